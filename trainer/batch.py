"""One training batch: crops with the label maps of their whole images.

Letters: B batch, S side of a crop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor

from trainer.settings import TrainSettings
from trainer.targets.targets import LabelBatch

ALIGNED = 64  # bytes: where tensors begin in a piece of memory


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch(LabelBatch):
    """Crops and the label maps of their whole images: uint16 classes and float16 scores."""

    images: Tensor  # (B, 3, S, S) uint8
    flips: Tensor  # (B,) bool: mirror this crop left to right
    left_out: tuple[str, ...] = ()  # errors of undecodable images in whose place other crops stand

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to a device; asynchronous from pinned memory."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy the batch to page-locked memory; the DataLoader calls this."""
        return self._map(Tensor.pin_memory)

    def share_memory(self) -> "Batch":
        """Copy the batch to one piece of shared memory; each piece keeps a file open in the process that receives it.

        Raises:
            RuntimeError: /dev/shm is full.
        """
        tensors = [value for field in fields(self) if isinstance(value := getattr(self, field.name), Tensor)]
        ends = list(accumulate(-(-tensor.nbytes // ALIGNED) * ALIGNED for tensor in tensors))
        memory = torch.empty(ends[-1], dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        starts = iter([0, *ends])

        def move(tensor: Tensor) -> Tensor:
            start = next(starts)
            piece: Tensor = memory[start : start + tensor.nbytes].view(tensor.dtype)
            return piece.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

        return self._map(move)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: change(value) if isinstance(value, Tensor) else value for name, value in values.items()
        }
        return Batch(**changed)


def join_parts(parts: Sequence[Batch]) -> Batch:
    """Join the workers' parts of one batch, in the workers' order."""
    if len(parts) == 1:
        return parts[0]
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Batch)}
    left_out = tuple(chain.from_iterable(columns.pop("left_out")))
    joined: dict[str, Any] = {name: torch.cat(part) for name, part in columns.items()}
    return Batch(**joined, left_out=left_out)


def blank_batch(settings: TrainSettings, size: int) -> Batch:
    """Black crops of whole images with label maps of one cell and class 0, on the CPU."""
    return Batch(
        images=torch.zeros(size, 3, settings.image_size, settings.image_size, dtype=torch.uint8),
        boxes=torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(size, 1),
        classes=torch.zeros(size, 1, 1, 1, dtype=torch.uint16),
        scores=torch.zeros(size, 1, 1, 1, dtype=torch.float16),
        labels=torch.zeros(size, dtype=torch.int64),
        flips=torch.zeros(size, dtype=torch.bool),
    )
