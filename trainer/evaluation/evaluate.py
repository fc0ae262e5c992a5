"""Evaluates a network on validation shards: predictions and exact counts of hits, in one process or on several ranks.

Shapes: B batch, C classes, L labels that occur (0 to the highest), S side of an image.
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

TOP = 5  # k of the top-k accuracy besides top-1; all classes if there are fewer
ALONE = Ranks()


class Tally:
    """Exact counts: samples, top-1 and top-5 hits of each label; samples with ReaL labels and their top-1 hits.

    Args:
        num_labels: L.
        real: the ReaL labels, to count by these too.
    """

    def __init__(self, num_labels: int, real: RealLabels | None = None) -> None:
        # One tensor, so that one reduction over the ranks adds up everything; the others are views of it.
        self._counts = torch.zeros(num_labels * 3 + 2, dtype=torch.int64)
        self.per_class_L3 = self._counts[:-2].view(num_labels, 3)
        self.real_2 = self._counts[-2:]
        self._real = real

    def add(self, keys: Sequence[str], labels_B: Tensor, logits_BC: Tensor) -> None:
        """Count a batch.

        Args:
            keys: the samples' keys; used only with ReaL labels.
            labels_B: (B,) int64, the dataset's own labels, each below `num_labels`.
            logits_BC: (B, C) float32, on the CPU.
        """
        top_BK = logits_BC.topk(min(TOP, logits_BC.shape[1]), dim=1).indices
        hits_BK = top_BK == labels_B[:, None]
        ones_B = torch.ones_like(labels_B)
        counted_B3 = torch.stack([ones_B, hits_BK[:, 0].long(), hits_BK.any(1).long()], dim=1)
        self.per_class_L3.index_add_(0, labels_B, counted_B3)
        if self._real is not None:
            real_B = [self._real[val_number(key) - 1] for key in keys]
            hits = sum(top1 in labels for top1, labels in zip(top_BK[:, 0].tolist(), real_B, strict=True))
            self.real_2 += torch.tensor([sum(map(bool, real_B)), hits])

    def join(self, ranks: Ranks) -> None:
        """Add up the counts of all ranks, in place; each rank calls it once."""
        ranks.sum(self._counts)

    def total(self) -> tuple[int, int, int]:
        """Samples, top-1 hits, top-5 hits."""
        samples, top1_hits, top5_hits = self.per_class_L3.sum(0).tolist()
        return samples, top1_hits, top5_hits


class Prediction(NamedTuple):
    """The network's logits for some samples, in the shards' order."""

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
        """Top-1 accuracy, 0 to 1."""
        return self.top1_hits / self.samples

    @property
    def top5(self) -> float:
        """Top-5 accuracy, 0 to 1."""
        return self.top5_hits / self.samples


def open_val(shards: Sequence[Path], num_classes: int) -> tuple[ShardIndex, ...]:
    """Index validation shards and check that every sample has a label.

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
    """Yield the logits of this rank's samples, batch by batch; leaves the model in evaluation mode.

    Args:
        model: on the settings' device; not wrapped for DistributedDataParallel, which would wait for the other ranks.
        val: from `open_val`.
        settings: resolved (`resolve_device`), for preprocessing, batch size, workers and precision.
        ranks: each predicts every `world`-th sample; the numbers of samples differ by at most one, and may be 0.

    Raises:
        ImageError: an image cannot be decoded.
        ShardError: a shard changed since it was indexed.
        TrainingError: a loader process was killed, the device's memory is full, or logits are not finite.
    """
    device = torch.device(settings.device)
    mean, std = (torch.tensor(values, device=device) for values in (settings.mean, settings.std))
    model.eval()
    batches = ValBatches(val, settings, ranks)
    items = load_items(batches, workers=settings.workers, preload=[__name__], pin_memory=device.type == "cuda")
    for keys, labels, images in items:
        with full_memory(), torch.inference_mode(), autocast(settings):
            logits = model(normalise(images.to(device, non_blocking=True), mean, std)).float().cpu()
        if not logits.isfinite().all():
            raise TrainingError(f"{keys[0]!r} or a later sample of its batch: the student's logits are not finite")
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
        should_stop: called before every batch; all ranks stop if it returns true on one of them.
        real: ReaL labels to count hits by too; call `check_real` before.
        progress: called after every batch with the approximate number of finished images and the number of images.

    Returns:
        The same counts on every rank; None if it was stopped.

    Raises:
        RelabelError: as `predict`.
        PeerError: another rank raised one of these errors.
    """
    samples = [sample for index in val for sample in index.samples]
    tally = Tally(max(sample.label for sample in samples) + 1, real)
    rounds = ValBatches(val, settings, ranks).rounds
    predictions = predict(model, val, settings, ranks)

    def report(done: int) -> None:
        if progress is not None:
            progress(len(samples) * done // rounds, len(samples))

    if not _count(tally, predictions, range(rounds), ranks, should_stop, report):
        return None
    tally.join(ranks)
    return tally


def _count(
    tally: Tally,
    predictions: Iterator[Prediction],
    rounds: range,
    ranks: Ranks,
    should_stop: Callable[[], bool] | None,
    report: Callable[[int], None],
) -> bool:
    """Add up this rank's predictions, each round a batch on every rank; False if it was stopped."""
    error: RelabelError | None = None
    stopped = False
    for done in rounds:
        # The other ranks must learn of an error at once: they would wait for this rank forever.
        stopped = ranks.any(error is not None or (should_stop is not None and should_stop()))
        if stopped:
            break
        try:
            if (prediction := next(predictions, None)) is not None:
                tally.add(*prediction)
        except RelabelError as raised:
            error = raised
        report(done + 1)
    ranks.together(lambda: _raise(error))
    return not stopped


def evaluate(
    model: nn.Module,
    val: Sequence[ShardIndex],
    settings: TrainSettings,
    ranks: Ranks = ALONE,
    should_stop: Callable[[], bool] | None = None,
) -> Accuracy | None:
    """Count top-1 and top-5 hits over all ranks; None if it was stopped. Arguments and errors as `score`."""
    tally = score(model, val, settings, ranks, should_stop)
    return None if tally is None else accuracy_of(tally)


def accuracy_of(tally: Tally) -> Accuracy:
    """A tally's totals."""
    samples, top1_hits, top5_hits = tally.total()
    return Accuracy(samples=samples, top1_hits=top1_hits, top5_hits=top5_hits)


def _raise(error: RelabelError | None) -> None:
    if error is not None:
        raise error
