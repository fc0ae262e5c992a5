"""Join the processes that torchrun has started, and let them agree; a single process is rank 0 of 1.

They agree over gloo, on the CPU, so that nothing here waits for a device.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from store.errors import PeerError, RelabelError, SettingsError, TrainingError
from store.foreign import RANK_DIED, says
from store.text import first_line
from trainer.rendezvous import rendezvous

T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # for a rank that saves a checkpoint or waits for its disk


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """This process's rank, and collective operations among all ranks."""

    rank: int = 0
    world: int = 1
    control: Any = None  # the gloo group; None where there is one process

    def assigned(self, items: Sequence[T]) -> Sequence[T]:
        """The items assigned to this rank: every `world`-th, starting with its own."""
        return items[self.rank :: self.world]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; called on every rank."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor([int(flag)])))

    def sum(self, values: Tensor) -> Tensor:
        """Sum a CPU tensor over all ranks, in place; int64 counts stay exact."""
        if self.world > 1:
            with peer_deaths():
                dist.all_reduce(values, group=self.control)
        return values

    def together(self, work: Callable[[], T]) -> T:
        """Run `work` on every rank; an error on one rank is raised on all.

        Raises:
            RelabelError: on the first rank that raised it.
            PeerError: on the others.
        """
        error, result = None, None
        try:
            result = work()
        except RelabelError as raised:
            error = raised
        found = self._gather(error)
        failed = [rank for rank, raised in enumerate(found) if raised is not None]
        if not failed:
            return result  # type: ignore[return-value]
        if error is not None and failed[0] == self.rank:
            raise error
        raise PeerError(f"rank {failed[0]} stopped: {found[failed[0]]}")

    def agree(self, value: object, otherwise: RelabelError) -> None:
        """Raise `otherwise` if the ranks' values differ; errors as in `together`."""
        differs = any(other != value for other in self._gather(value))

        def check() -> None:
            if differs and self.rank == 0:
                raise otherwise

        self.together(check)

    def first(self, work: Callable[[], T]) -> T:
        """Run `work` on rank 0 and return its result on every rank; errors as in `together`."""
        result = self.together(lambda: work() if self.rank == 0 else None)
        return self._gather(result)[0]  # type: ignore[return-value]

    def gathered(self, values: Sequence[T]) -> list[T]:
        """The values of all ranks, one rank's after another's; called on every rank."""
        return [value for part in self._gather(list(values)) for value in part]

    def _gather(self, value: T) -> list[T]:
        """The values of all ranks. They are pickled, which is safe: all ranks are processes of this run."""
        values: list[Any] = [value] * self.world
        if self.world > 1:
            with peer_deaths():
                dist.all_gather_object(values, value, group=self.control)
        return values


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the ranks that torchrun has started; each uses the GPU of its local rank.

    Args:
        device: "cpu" or "cuda".

    Raises:
        SettingsError: the ranks of the environment contradict each other, or cannot be reached.
    """
    if "WORLD_SIZE" not in os.environ:
        yield Ranks()
        return
    try:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE, **rendezvous())
        ranks = Ranks(
            rank=dist.get_rank(), world=dist.get_world_size(), control=dist.new_group(backend="gloo", timeout=PATIENCE)
        )
    except (RuntimeError, ValueError, LookupError) as error:
        raise SettingsError(
            f"the ranks of this run cannot be joined ({first_line(error)}); start them with torchrun, each with a "
            "GPU of its own where there are GPUs"
        ) from error
    try:
        yield ranks
    except BaseException:
        # Destroying the group would wait for kernels that wait for other ranks. The other ranks notice when this
        # process has ended.
        if dist.get_backend() == "nccl":
            dist.distributed_c10d._abort_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def peer_deaths() -> Iterator[None]:
    """Turn the death of another rank into a TrainingError; a context or a decorator."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not says(error, RANK_DIED):
            raise
        raise TrainingError(
            f"another rank died, or cannot be reached ({first_line(error)}); look for its message, then run again with "
            "--resume (torchrun --max-restarts does so)"
        ) from error
