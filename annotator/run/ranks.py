"""A static share of the shards for each of several processes that torchrun or SLURM has started.

They need not know of each other: the store tells who was first where two meet.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from store.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """Which of how many processes this is."""

    rank: int
    world: int
    local: int  # which one on its machine
    by: str  # who says so

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items: every `world`-th, so that shares differ by one at most."""
        return items[self.rank :: self.world]


def find_rank(environment: Mapping[str, str]) -> Rank | None:
    """The rank that torchrun or SLURM has given this process, None where it runs alone.

    Tasks of a SLURM step (`srun -n 8`) in an array are counted through.

    Raises:
        SettingsError: variables that do not fit together.
    """

    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name)
        if text is None and default is not None:
            return default
        if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
            raise SettingsError(f"the environment's {name} is {text!r:.40}, expected a number")
        return int(text)

    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, world, local, by = number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK", 0), "RANK"
    else:
        rank, world, local, by = 0, 1, number("SLURM_LOCALID", 0), "SLURM"
        if "SLURM_ARRAY_TASK_ID" in environment:  # ids may start anywhere and skip
            ids_from, ids_step = number("SLURM_ARRAY_TASK_MIN", 0), number("SLURM_ARRAY_TASK_STEP", 1)
            rank, between = divmod(number("SLURM_ARRAY_TASK_ID") - ids_from, max(ids_step, 1))
            if between:
                raise SettingsError(f"SLURM's array task does not lie {ids_step} by {ids_step} from {ids_from} on")
            world = number("SLURM_ARRAY_TASK_COUNT")
        # A batch script has a SLURM_PROCID among many tasks too, but runs alone: only a step tells how many run.
        if "SLURM_STEP_NUM_TASKS" in environment:
            tasks = number("SLURM_STEP_NUM_TASKS")
            rank, world = rank * tasks + number("SLURM_PROCID"), world * tasks
    if not 0 <= rank < world:
        raise SettingsError(f"{by} says that this is rank {rank} of {world}: the shards cannot be shared out")
    return Rank(rank=rank, world=world, local=local, by=by) if world > 1 else None
