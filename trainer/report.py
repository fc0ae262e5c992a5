"""What a run tells while it goes on, to whoever shows it."""

from dataclasses import dataclass
from typing import Protocol

from trainer.evaluation.evaluate import Accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """The steps since the last report."""

    epoch: int  # from 1
    epochs: int
    step: int  # steps done in this epoch
    steps: int  # in an epoch
    loss: float  # mean, over all ranks
    lr: float  # of the last step
    images_per_second: float  # of all ranks together
    waiting: float  # share of the time in which rank 0 waited for data, 0 to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReport:
    """A finished epoch."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean
    seconds: float  # training and validation, since this process took it up
    accuracy: Accuracy | None  # None without validation shards
    is_best: bool  # the best top-1 so far


class Reporter(Protocol):
    """Shows progress."""

    def step(self, report: StepReport) -> None:
        """Some steps are done."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch is done, evaluated and saved."""
