"""Predictions and exact counts on validation shards, by one process or by several ranks.

Shapes: B batch, C classes, S side of an image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from store.errors import RelabelError, ShardError, TrainingError
from store.shards.index import NO_LABEL, ShardIndex, index_shard
from trainer.data.crops import normalise
from trainer.data.loading import load_items, worker_deaths
from trainer.distributed import Ranks
from trainer.evaluation.real import RealLabels, val_number
from trainer.evaluation.valset import ValBatches
from trainer.settings import TrainSettings
from trainer.student.device import autocast, full_memory
from trainer.student.trained import load_trained

# Exact counts of hits, added up batch by batch and then over all ranks.
#
# Shapes: B batch, C classes, L labels that occur (0 to the highest).


BEST = 5  # top-5: among the five highest logits, or all if there are fewer classes


class Tally:
    """Samples, top-1 hits and top-5 hits of each label; and by ReaL labels, samples that have some and top-1 hits."""

    def __init__(self, num_labels: int, real: RealLabels | None = None) -> None:
        # One tensor, so that the ranks add up everything at once; the others are views of it.
        self._counts = torch.zeros(num_labels * 3 + 2, dtype=torch.int64)
        self.per_class_L3 = self._counts[:-2].view(num_labels, 3)
        self.real_2 = self._counts[-2:]
        self._real = real

    def add(self, keys: Sequence[str], labels_B: Tensor, logits_BC: Tensor) -> None:
        """Count a batch.

        Args:
            keys: the samples' keys; looked at only with ReaL labels.
            labels_B: int64, the dataset's own labels, each below `num_labels`.
            logits_BC: float32, on the CPU.
        """
        best_BK = logits_BC.topk(min(BEST, logits_BC.shape[1]), dim=1).indices
        hits_BK = best_BK == labels_B[:, None]
        ones_B = torch.ones_like(labels_B)
        counted_B3 = torch.stack([ones_B, hits_BK[:, 0].long(), hits_BK.any(1).long()], dim=1)
        self.per_class_L3.index_add_(0, labels_B, counted_B3)
        if self._real is not None:
            real_B = [self._real[val_number(key) - 1] for key in keys]
            hits = sum(best in labels for best, labels in zip(best_BK[:, 0].tolist(), real_B, strict=True))
            self.real_2 += torch.tensor([sum(map(bool, real_B)), hits])

    def join(self, ranks: Ranks) -> None:
        """Make this the tally of all ranks; each of them calls it once."""
        ranks.sum(self._counts)

    def total(self) -> tuple[int, int, int]:
        """Samples, top-1 hits, top-5 hits."""
        samples, top1_hits, top5_hits = self.per_class_L3.sum(0).tolist()
        return samples, top1_hits, top5_hits


ALONE = Ranks()


class Prediction(NamedTuple):
    """What the student says of some samples, in the shards' order."""

    keys: list[str]
    labels: Tensor  # (B,) int64, the dataset's own labels
    logits: Tensor  # (B, C) float32, on the CPU


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """Exact counts over a validation set."""

    samples: int
    top1_hits: int
    top5_hits: int  # among the five highest logits, or all if there are fewer classes

    @property
    def top1(self) -> float:
        """Share of samples, 0 to 1."""
        return self.top1_hits / self.samples

    @property
    def top5(self) -> float:
        """Share of samples, 0 to 1."""
        return self.top5_hits / self.samples


def open_val(shards: Sequence[Path], num_classes: int) -> tuple[ShardIndex, ...]:
    """Index validation shards strictly and check that every sample has a label.

    Raises:
        ShardError: no shards, a damaged one, or a sample whose label is missing or not one of the classes.
    """
    if not shards:
        raise ShardError("no validation shards given")
    val = tuple(index_shard(path) for path in shards)
    for index in val:
        for sample in index.samples:
            if sample.label == NO_LABEL:
                raise ShardError(f"{index.path}: {sample.key!r} has no .cls label; validation needs one per image")
            if sample.label >= num_classes:
                raise ShardError(
                    f"{index.path}: {sample.key!r} has label {sample.label}; the student knows 0 to {num_classes - 1}"
                )
    return val


def predict(
    model: nn.Module, val: Sequence[ShardIndex], settings: TrainSettings, ranks: Ranks = ALONE
) -> Iterator[Prediction]:
    """The student's logits for every sample of this rank, batch by batch; leaves the model in evaluation mode.

    Args:
        model: on the settings' device; not wrapped for DistributedDataParallel, which would wait for the other ranks.
        val: from `open_val`.
        settings: resolved ones (`resolve_device`), for size, mean, deviation, batch size, workers and precision.
        ranks: each predicts every `world`-th sample, some one fewer than others, or none.

    Raises:
        ImageError: an image cannot be decoded.
        ShardError: a shard changed since it was indexed.
        TrainingError: a loader process was killed, the device's memory is full, or logits are not finite.
    """
    device = torch.device(settings.device)
    mean, std = (torch.tensor(values, device=device) for values in (settings.mean, settings.std))
    model.eval()
    batches = ValBatches(val, settings, ranks)
    for keys, labels, images in load_items(batches, workers=settings.workers, pin_memory=device.type == "cuda"):
        with full_memory(), torch.inference_mode(), autocast(settings):
            logits = model(normalise(images.to(device, non_blocking=True), mean, std)).float().cpu()
        if not logits.isfinite().all():
            raise TrainingError(f"{keys[0]!r} and what follows: the student's logits are not finite numbers")
        yield Prediction(keys, labels, logits)


@worker_deaths()
def score(
    model: nn.Module,
    val: Sequence[ShardIndex],
    settings: TrainSettings,
    ranks: Ranks = ALONE,
    should_stop: Callable[[], bool] | None = None,
    *,
    real: RealLabels | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Tally | None:
    """Count hits over all ranks, each of which calls this with the same arguments.

    Args:
        model: see `predict`.
        val: see `predict`.
        settings: see `predict`.
        ranks: see `predict`.
        should_stop: asked before every batch; where one rank's says yes, all stop.
        real: count hits by these labels too; `check_real` has checked the keys.
        progress: told after every batch how many images are done, about, and how many there are.

    Returns:
        The same counts on every rank; None if it was stopped.

    Raises:
        PeerError: on the ranks beside the one that raised one of `predict`'s errors.
    """
    samples = [sample for index in val for sample in index.samples]
    tally = Tally(max(sample.label for sample in samples) + 1, real)
    rounds = ValBatches(val, settings, ranks).rounds
    predictions = predict(model, val, settings, ranks)

    def tell(done: int) -> None:
        if progress is not None:
            progress(len(samples) * done // rounds, len(samples))

    if not _count(tally, predictions, range(rounds), ranks, should_stop, tell):
        return None
    tally.join(ranks)
    return tally


def _count(
    tally: Tally,
    predictions: Iterator[Prediction],
    rounds: range,
    ranks: Ranks,
    should_stop: Callable[[], bool] | None,
    tell: Callable[[int], None],
) -> bool:
    """Add up this rank's predictions, each round a batch on every rank; False if it was stopped."""
    error: RelabelError | None = None
    stopped = False
    for done in rounds:
        # A rank's failure must end the others too, which would wait for it forever.
        stopped = ranks.any(error is not None or (should_stop is not None and should_stop()))
        if stopped:
            break
        try:
            if (prediction := next(predictions, None)) is not None:
                tally.add(*prediction)
        except RelabelError as raised:
            error = raised
        tell(done + 1)
    ranks.together(lambda: _raise(error))
    return not stopped


def evaluate(
    model: nn.Module,
    val: Sequence[ShardIndex],
    settings: TrainSettings,
    ranks: Ranks = ALONE,
    should_stop: Callable[[], bool] | None = None,
) -> Accuracy | None:
    """Top-1 and top-5 hits over all ranks, or None if it was stopped; see `score` for arguments and errors."""
    tally = score(model, val, settings, ranks, should_stop)
    return None if tally is None else accuracy_of(tally)


def accuracy_of(tally: Tally) -> Accuracy:
    """A tally's totals."""
    samples, top1_hits, top5_hits = tally.total()
    return Accuracy(samples=samples, top1_hits=top1_hits, top5_hits=top5_hits)


def load_student(checkpoint: Path) -> tuple[nn.Module, TrainSettings]:
    """A trained student on this machine's device, with the settings it was trained with; see `load_trained`."""
    student = load_trained(checkpoint)
    return student.model, student.settings


def _raise(error: RelabelError | None) -> None:
    if error is not None:
        raise error
