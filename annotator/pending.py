"""To the device and back without waiting: while it computes one batch, the next one is on its way.

Shape letters: B batch, K ranks, H W cells (y, x).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from store.errors import TeacherError

Maps = tuple[Tensor, Tensor, Tensor]  # classes (B, K, H, W) int32, scores (B, K, H, W) and tail (B, H, W) float16


@dataclass(frozen=True, slots=True)
class PendingMaps:
    """Label maps that a device is still computing."""

    maps: Maps  # in host memory, valid once `done` is
    fits: Tensor  # () bool: whether float16 holds every score
    done: torch.cuda.Event | None  # None where there is nothing to wait for

    def wait(self) -> Maps:
        """The label maps, in host memory.

        Raises:
            TeacherError: logits that are not finite, or beyond what float16 holds.
        """
        if self.done is not None:
            self.done.synchronize()
        if not self.fits:
            raise TeacherError("the teacher gave logits that are NaN or beyond 65,504; try --precision float32")
        return self.maps


def send_to_host(classes: Tensor, scores: Tensor, tail: Tensor, fits: Tensor) -> PendingMaps:
    """Start copies to page-locked host memory, behind what the device still has to compute."""
    if classes.device.type != "cuda":
        return PendingMaps((classes.cpu(), scores.cpu(), tail.cpu()), fits.cpu(), None)
    parts = [_page_locked(part) for part in (classes, scores, tail, fits)]
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(classes.device))
    return PendingMaps((parts[0], parts[1], parts[2]), parts[3], done)


def copy_to_device(batch: Tensor, device: torch.device) -> Tensor:
    """A copy that runs beside the computation before it, if the batch lies in page-locked memory."""
    if device.type != "cuda":
        return batch.to(device)
    stream = _copies(device)
    with torch.cuda.stream(stream):
        there = batch.to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(stream)
    there.record_stream(current)  # or its memory could be given away while it is read
    return there


def _page_locked(part: Tensor) -> Tensor:
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
