"""The static shard assignment of several processes that torchrun or SLURM has started.

The processes do not communicate: where two annotate one shard, the store keeps the labels of the first.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from store.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rank:
    """This process's number among the processes of a run."""

    rank: int
    world: int
    local: int  # number on its machine
    by: str  # the variable it was read from: RANK or SLURM

    def assigned(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items: every `world`-th, so that counts differ by one at most."""
        return items[self.rank :: self.world]


def find_rank(environment: Mapping[str, str]) -> Rank | None:
    """The rank that torchrun or SLURM has given this process, None where it runs alone.

    In an array of SLURM steps (`srun -n 8`) the tasks of all steps are numbered consecutively.

    Raises:
        SettingsError: malformed or inconsistent variables.
    """

    def number(name: str, default: int | None = None) -> int:
        text = environment.get(name)
        if text is None and default is not None:
            return default
        if text is None or not re.fullmatch(r"[0-9]{1,9}", text):
            raise SettingsError(f"the environment variable {name} is {text!r:.40}, expected a number")
        return int(text)

    if "RANK" in environment or "WORLD_SIZE" in environment:
        rank, world, local, by = number("RANK"), number("WORLD_SIZE"), number("LOCAL_RANK", 0), "RANK"
    else:
        rank, world, local, by = 0, 1, number("SLURM_LOCALID", 0), "SLURM"
        if "SLURM_ARRAY_TASK_ID" in environment:  # ids may start anywhere and skip
            ids_from, ids_step = number("SLURM_ARRAY_TASK_MIN", 0), number("SLURM_ARRAY_TASK_STEP", 1)
            rank, between = divmod(number("SLURM_ARRAY_TASK_ID") - ids_from, max(ids_step, 1))
            if between:
                raise SettingsError(
                    f"SLURM_ARRAY_TASK_ID is not {ids_from} plus a multiple of {ids_step}, as the array's variables say"
                )
            world = number("SLURM_ARRAY_TASK_COUNT")
        # A batch script has a SLURM_PROCID among many tasks too, but runs alone: only a step has SLURM_STEP_NUM_TASKS.
        if "SLURM_STEP_NUM_TASKS" in environment:
            tasks = number("SLURM_STEP_NUM_TASKS")
            rank, world = rank * tasks + number("SLURM_PROCID"), world * tasks
    if not 0 <= rank < world:
        raise SettingsError(f"{by} gives rank {rank} of {world} processes; check the launcher's environment")
    return Rank(rank=rank, world=world, local=local, by=by) if world > 1 else None
