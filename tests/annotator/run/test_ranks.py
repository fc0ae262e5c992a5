import pytest

from annotator.run.ranks import Rank, find_rank
from store.errors import SettingsError

ARRAY = {"SLURM_ARRAY_TASK_ID": "13", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_STEP": "4",
         "SLURM_ARRAY_TASK_COUNT": "3"}  # fmt: skip


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "2", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (2, 8, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4"}, (3, 4, 0)),
        (ARRAY, (2, 3, 0)),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, (5, 8, 1)),
        # A batch script that asked for eight tasks but runs alone.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0"}, None),
        (ARRAY | {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "1"}, (5, 6, 1)),
        (ARRAY | {"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 0)),
    ],
)
def test_rank_is_found_in_the_environment(environment: dict[str, str], expected: tuple[int, int, int] | None) -> None:
    found = find_rank(environment)
    assert (found and (found.rank, found.world, found.local)) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "1"}, "WORLD_SIZE is None, expected a number"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK gives rank 4 of 4 processes"),
        ({"RANK": "x", "WORLD_SIZE": "4"}, "RANK is 'x', expected a number"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK is '-1', expected a number"),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "12"}, "SLURM_ARRAY_TASK_ID is not 5 plus a multiple of 4"),
        ({"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "4"}, "SLURM gives rank 9 of 4 processes"),
    ],
)
def test_inconsistent_ranks_are_refused(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        find_rank(environment)


def test_assigned_shards_are_disjoint_and_complete() -> None:
    items = list(range(11))
    parts = [Rank(rank=rank, world=4, local=0, by="test").assigned(items) for rank in range(4)]
    assert sorted(item for part in parts for item in part) == items
    assert {len(part) for part in parts} == {2, 3}
