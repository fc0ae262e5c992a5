"""What a process runs out of, provoked under real limits."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from store.errors import TrainingError
from store.shards.images import Range, read_image, read_ranges
from store.shards.index import Sample
from store.system.limits import MOST_FILES, allow_open_files
from tests.builders.paths import ROOT
from tests.builders.processes import few_files
from trainer.data.loading import load_items

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

HUGE = 1 << 42  # bytes


def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with few_files(100):
        allow_open_files()
        allowed = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (allowed, hard)


PROGRAM = """
import resource
from store.errors import TrainingError
from trainer.data.loading import load_items
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))
    try:
        list(load_items([1] * 100, workers=8, preload=[]))
    except TrainingError as error:
        print(error)
"""


def test_too_few_open_files_for_the_workers_is_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout == (
        "too many open files, of which a process may have 30 here; raise the limit (ulimit -n), or use fewer workers "
        "or a smaller batch_size\n"
    )


def test_many_files_are_read_with_few_of_them_open(tmp_path: Path) -> None:
    """A batch of images may come from as many shards."""
    for i in range(400):
        (tmp_path / f"{i}.tar").write_bytes(i.to_bytes(2, "big"))
    ranges = [Range(tmp_path / f"{i % 400}.tar", 0, 2) for i in range(0, 2000, 3)]
    with few_files(len(os.listdir("/proc/self/fd")) + 270):
        found = list(read_ranges(ranges))
    assert found == [(i % 400).to_bytes(2, "big") for i in range(0, 2000, 3)]


def test_lack_of_open_files_is_no_fault_of_the_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"image")
    with few_files(3), pytest.raises(OSError, match="Too many open files") as caught:
        read_image(tmp_path / "a.tar", Sample("k", 0, 5, -1))
    assert type(caught.value) is OSError
    assert caught.value.errno == errno.EMFILE


class Exhausting(Dataset[None]):
    """An item that no machine has the memory or files for."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> None:
        if self.what == "torch":
            torch.empty(HUGE)
        elif self.what == "numpy":
            np.empty(HUGE)
        elif self.what == "python":
            bytearray(HUGE)
        else:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
            Path("/dev/null").read_bytes()


@pytest.mark.parametrize(
    ("what", "workers", "message"),
    [
        ("torch", 0, r"^out of memory; use fewer workers or a smaller batch_size$"),
        ("numpy", 0, r"^out of memory; use fewer workers"),
        ("python", 0, r"^out of memory; use fewer workers"),
        ("numpy", 1, r"^out of memory; use fewer workers"),
        ("files", 1, r"^too many open files, .* or use fewer workers"),
    ],
)
def test_lack_of_memory_or_files_is_one_line_that_says_what_to_lower(what: str, workers: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        list(load_items(Exhausting(what), workers=workers, preload=[]))
