"""How far a run has come."""

from dataclasses import dataclass


@dataclass(kw_only=True, slots=True)
class Position:
    """Counted from 0; a checkpoint holds the same."""

    epoch: int = 0  # epochs that are done, evaluation included
    step: int = 0  # steps done in the epoch after those
    loss_sum: float = 0.0  # over these steps
    top1: float | None = None  # of the last epoch done, 0 to 1; None without validation shards
    best_top1: float | None = None  # of all epochs so far

    def end_epoch(self, top1: float | None) -> bool:
        """Go on to the next epoch; whether this one was the best."""
        is_best = top1 is not None and (self.best_top1 is None or top1 > self.best_top1)
        self.epoch, self.step, self.loss_sum, self.top1 = self.epoch + 1, 0, 0.0, top1
        self.best_top1 = top1 if is_best else self.best_top1
        return is_best
