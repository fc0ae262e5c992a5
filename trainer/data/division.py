"""Which part of every batch belongs to this process, and whether something else divides the batches once more."""

import os
import sys
from collections.abc import Iterator
from types import FrameType

import torch.distributed as dist

from store.errors import SettingsError

# Classes that give each process a part of what a dataset yields, in the packages that have them.
DIVIDERS = ("DataLoaderDispatcher", "IterableDatasetShard")
PACKAGES = ("accelerate", "transformers")


def current_ranks() -> tuple[int, int]:
    """This process's rank and the number of ranks.

    They are those of `torch.distributed`, or, before it is initialised, those that torchrun has set; without both, this
    is rank 0 of 1.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    if rank.isdecimal() and world.isdecimal() and int(rank) < int(world):
        return int(rank), int(world)
    return 0, 1


def refuse_second_division(world: int) -> None:
    """Raise SettingsError if samples are read by what would divide them among the ranks.

    accelerate's `prepare` wraps the dataset or its loader, and tells neither; the wrappers are among the callers.
    """
    if max(world, current_ranks()[1]) > 1 and (name := next(filter(None, map(_divider, _callers())), None)):
        raise SettingsError(
            f"{name} would divide among the processes what LabelledSamples divides among the ranks, and most samples "
            "would be lost: do not give this loader to accelerate's prepare; in a transformers.Trainer, let "
            "get_train_dataloader return it"
        )


def _callers() -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _divider(frame: FrameType) -> str | None:
    """The name of the class whose method this frame is in, if it is one of those that divide."""
    module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname.partition(".")[0]
    package = module.partition(".")[0]
    return f"{package}'s {name}" if package in PACKAGES and name in DIVIDERS else None
