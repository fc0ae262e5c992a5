"""Predictions and exact counts on validation shards.

Shapes: B batch, C classes, S side of an image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from store.errors import ImageError, RelabelError, RunFolderError, ShardError
from store.images import decode_image
from store.shards import NO_LABEL, Sample, ShardIndex, index_shard
from trainer.checkpoint import load_checkpoint
from trainer.crops import normalise, resize_and_centre
from trainer.device import autocast, full_memory, resolve_device
from trainer.loading import load_items, worker_deaths
from trainer.model import build_student
from trainer.overrides import settings_from_json
from trainer.ranges import read_range
from trainer.settings import TrainSettings
from trainer.wording import reason


class Prediction(NamedTuple):
    """What the student says of some samples, in the shards' order."""

    keys: list[str]
    originals: Tensor  # (B,) int64, the dataset's own labels
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


def predict(model: nn.Module, val: Sequence[ShardIndex], settings: TrainSettings) -> Iterator[Prediction]:
    """The student's logits for every sample, batch by batch; leaves the model in evaluation mode.

    Args:
        model: on the settings' device.
        val: from `open_val`.
        settings: resolved ones (`resolve_device`), for size, mean, deviation, batch size, workers and precision.

    Raises:
        ImageError: an image cannot be decoded.
        ShardError: a shard changed since it was indexed.
        TrainingError: a loader process was killed.
    """
    device = torch.device(settings.device)
    mean, std = (torch.tensor(values, device=device) for values in (settings.mean, settings.std))
    model.eval()
    batches = _ValBatches(val, settings)
    for keys, originals, images in load_items(batches, workers=settings.workers, pin_memory=device.type == "cuda"):
        with torch.inference_mode(), autocast(settings):
            logits = model(normalise(images.to(device, non_blocking=True), mean, std))
        yield Prediction(keys, originals, logits.float().cpu())


@full_memory()
@worker_deaths()
def evaluate(model: nn.Module, val: Sequence[ShardIndex], settings: TrainSettings) -> Accuracy:
    """Top-1 and top-5 hits; see `predict` for arguments and errors."""
    samples = top1_hits = top5_hits = 0
    for prediction in predict(model, val, settings):
        best = prediction.logits.topk(min(5, prediction.logits.shape[1]), dim=1).indices
        hits = best == prediction.originals[:, None]
        samples += len(hits)
        top1_hits += int(hits[:, 0].sum())
        top5_hits += int(hits.any(1).sum())
    return Accuracy(samples=samples, top1_hits=top1_hits, top5_hits=top5_hits)


def load_student(checkpoint: Path) -> tuple[nn.Module, TrainSettings]:
    """A trained student on this machine's device, with the settings it was trained with, resolved for here.

    Raises:
        RunFolderError: the checkpoint is absent or damaged, or its student cannot be built here.
    """
    state = load_checkpoint(checkpoint)
    try:
        settings = resolve_device(settings_from_json({**state.settings, "device": "auto", "precision": "auto"}))
        model = build_student(settings, state.num_classes)
        model.load_state_dict(state.model)
    except Exception as error:  # whatever odd settings and tensors make torch raise
        raise RunFolderError(f"{checkpoint}: holds no student that can be used here: {reason(error)}") from error
    return model.to(settings.device).eval(), settings


ValBatch = tuple[list[str], Tensor, Tensor]
"""Keys, (B,) int64 original labels and (B, 3, S, S) uint8 images."""


class _ValBatches(Dataset[ValBatch | RelabelError]):
    """Validation images batch by batch, or what is wrong with one of them as a value."""

    def __init__(self, val: Sequence[ShardIndex], settings: TrainSettings) -> None:
        self.samples: list[tuple[Path, Sample]] = [(index.path, sample) for index in val for sample in index.samples]
        self.settings = settings

    def __len__(self) -> int:
        return -(-len(self.samples) // self.settings.batch_size)

    def __getitem__(self, i: int) -> ValBatch | RelabelError:
        size = self.settings.batch_size
        part = self.samples[i * size : (i + 1) * size]
        try:
            images = [self._image(path, sample) for path, sample in part]
        except RelabelError as error:
            return error
        originals = torch.tensor([sample.label for _, sample in part], dtype=torch.int64)
        return [sample.key for _, sample in part], originals, torch.stack(images)

    def _image(self, path: Path, sample: Sample) -> Tensor:
        settings = self.settings
        try:
            image = decode_image(read_range(path, sample.offset, sample.length))
            pixels = resize_and_centre(image, settings.val_size, settings.val_crop_pct, settings.interpolation)
        except ImageError as error:
            raise ImageError(
                f"{path}: {sample.key!r}: {error}; validation images are never skipped: mend the shard"
            ) from error
        except OSError as error:
            raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error
        return torch.from_numpy(pixels.copy()).permute(2, 0, 1)
