"""Asynchronous host/device copies, double-buffered: the next batch is copied while the device computes this one.

Shape letters: B batch, K kept classes, H W cells (y, x).
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from store.errors import TeacherError

# classes (B, K, H, W) int32, scores (B, K, H, W) float16, tail_logsumexp (B, H, W) float16
Maps = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class AsyncMaps:
    """Label maps that a device may still be computing."""

    maps: Maps  # in host memory, valid once `done` has happened
    fits: Tensor  # () bool: whether float16 holds every score
    done: torch.cuda.Event | None  # recorded after the copies; None where they are complete

    def wait(self) -> Maps:
        """Block until the label maps are in host memory, and return them.

        Raises:
            TeacherError: logits that are not finite, or beyond what float16 holds.
        """
        if self.done is not None:
            self.done.synchronize()
        if not self.fits:
            raise TeacherError(
                "the teacher gave logits that are not finite, or more than 65,504 apart; try --precision float32"
            )
        return self.maps


def send_to_host(classes: Tensor, scores: Tensor, tail_logsumexp: Tensor, fits: Tensor) -> AsyncMaps:
    """Start copies of label maps to page-locked host memory, queued after the device's computations."""
    if classes.device.type != "cuda":
        return AsyncMaps((classes.cpu(), scores.cpu(), tail_logsumexp.cpu()), fits.cpu(), None)
    parts = [_page_locked(part) for part in (classes, scores, tail_logsumexp, fits)]
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(classes.device))
    return AsyncMaps((parts[0], parts[1], parts[2]), parts[3], done)


def copy_to_device(batch: Tensor, device: torch.device) -> Tensor:
    """Copy a batch in a stream of its own, beside earlier computations, if it is in page-locked memory."""
    if device.type != "cuda":
        return batch.to(device)
    stream = _copy_stream(device)
    with torch.cuda.stream(stream):
        copied = batch.to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(stream)
    copied.record_stream(current)  # or its memory could be reused while it is read
    return copied


def _page_locked(part: Tensor) -> Tensor:
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
