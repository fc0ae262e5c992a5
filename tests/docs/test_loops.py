"""The loops of docs/howto/own_loop.md on two ranks: which rows each of them trains on, and in which epoch."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.builders.paths import ROOT
from tests.builders.training import make_dataset
from tests.docs.blocks import read_blocks

PAGE = "docs/howto/own_loop.md"
SMALL = 'MODEL, EPOCHS, BATCH, WORKERS = "test_resnet", 2, 32, 2'
COUNT = "from tests.builders.pooled_rows import record\nrecord()\n"


def block(begins: str) -> str:
    (found,) = [block.text for block in read_blocks(PAGE) if begins in block.text]
    return found


def run_loop(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    make_dataset(folder, (40, 30, 65))
    crops = block("# crops.py").replace("{0000..1023}", "{0..2}").replace(", 224, ", ", 32, ")
    crops = crops.replace('"labels.zarr"', '"labels"')
    (folder / "crops.py").write_text(re.sub(r"MODEL, EPOCHS.*", SMALL, crops))
    (folder / "loop.py").write_text(COUNT + program)
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{folder}", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "loop.py"],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def rows_of(folder: Path, rank: int) -> list[list[str]]:
    return [line.split() for line in (folder / f"rows{rank}.txt").read_text().splitlines()]


LOOPS = {"torch": "dist.init_process_group()", "lightning": "import lightning", "accelerate": "import accelerate",
         "transformers": "import transformers"}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("package", LOOPS)
def test_two_ranks_train_on_every_row_once_an_epoch(tmp_path: Path, package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    done = run_loop(tmp_path, block(LOOPS[package]))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    calls = [rows_of(tmp_path, rank) for rank in range(2)]
    assert [len(call) for rank in calls for call in rank] == [16] * 16, "two ranks, two epochs of four batches"
    epochs = [[row for rank in calls for call in rank[4 * n : 4 * n + 4] for row in call] for n in range(2)]
    for rows in epochs:
        assert len(set(rows)) == len(rows) == 128
    assert epochs[0] != epochs[1], "the second epoch has another order"


def prepared(package: str) -> str:
    """The page's loop, with its loader given to accelerate's prepare."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    right, wrong = {
        "accelerate": ("model, optimiser = accelerator.prepare(model, optimiser)",
                       "model, optimiser, loader = accelerator.prepare(model, optimiser, loader)"),
        "transformers": ("return loader", "return self.accelerator.prepare(loader)"),
    }[package]  # fmt: skip
    program = block(LOOPS[package])
    assert right in program
    return program.replace(right, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("package", ["accelerate", "transformers"])
def test_loader_that_accelerate_would_divide_again_is_refused(tmp_path: Path, package: str) -> None:
    done = run_loop(tmp_path, prepared(package))
    assert done.returncode != 0
    assert re.search(r"accelerate's \w+ would divide among the processes what LabelledSamples divides", done.stderr)
    assert not list(tmp_path.glob("rows*.txt"))
