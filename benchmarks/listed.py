"""Lists the benchmarks of `make bench` as command lines, with their sizes for each use.

Command lines are text with variables, as a report shows them: `$SHARDS`, `$LABELS` and `$TEACHER` are the options that
name the data, `$SCRATCH` is a folder to create and remove, `$WORKERS` is the number of the machine's cores less two.
"""

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[1]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def fill(command: str, values: Mapping[str, str]) -> str:
    """Replace these variables in a command line, and no others.

    >>> fill("$LABELS --scratch $SCRATCH", {"LABELS": "--labels a.zarr"})
    '--labels a.zarr --scratch $SCRATCH'
    """
    return Template(command).safe_substitute(values)


def words(command: str, variables: Mapping[str, str]) -> list[str]:
    """Split a command line as a shell does; the values of variables are not split.

    >>> words('--labels "$MATERIAL/demo.zarr"', {"MATERIAL": "a folder"})
    ['--labels', 'a folder/demo.zarr']
    """
    return [fill(word, variables) for word in shlex.split(command)]


def environment() -> dict[str, str]:
    """This process's environment, with one thread for each library's pool and unbuffered output."""
    return {**os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One module of `benchmarks`, with its arguments for each use."""

    module: str
    title: str
    peer: str  # the alternative in its ratios
    needs: str = ""  # arguments for the uses quick and full
    quick: str
    full: str
    gpu: str | None = None  # all arguments of the variant for CUDA; None if it has none

    def arguments(self, use: str) -> str | None:
        """Arguments for a use: quick, full or gpu; None if it has no variant for it."""
        return self.gpu if use == "gpu" else f"{self.needs} {self.quick if use == 'quick' else self.full}".strip()


BENCHMARKS = (
    Benchmark(
        module="speed.pooling",
        title="LabelPooling",
        peer="the dense way: the kept classes scattered to a full map, then torchvision's RoIAlign",
        quick="--batch 64 --runs 3 --memory-runs 1 --step-runs 2 --step-batch 16",
        full="--runs 15 --memory-runs 7 --step-runs 7",
        gpu="--device cuda --runs 15 --memory-runs 7 --step-runs 15 --step-batch 256",
    ),
    Benchmark(
        module="speed.reads",
        title="Label reading",
        peer="one `.pt` file for each image; the floor is numpy memmaps of the bare arrays",
        needs="$LABELS --scratch $SCRATCH",
        quick="--groups 2 --runs 3",
        full="--groups 8 --runs 9",
    ),
    Benchmark(
        module="speed.bytes",
        title="Bytes of the store",
        peer="the bare arrays, and `.pt` files as the published maps are",
        needs="$LABELS",
        quick="--runs 3",
        full="--runs 15",
    ),
    Benchmark(
        module="speed.loader",
        title="Loader",
        peer="timm's own WebDataset loader on the same shards, and the same loader without labels",
        needs="$SHARDS $LABELS --scratch $SCRATCH",
        quick="--copies 16 --runs 2",
        full="--copies 32 --runs 7",
    ),
    Benchmark(
        module="speed.annotator",
        title="Annotator",
        peer="its own teacher bare, on random data, and a script that writes one file for each image",
        needs="$SHARDS $TEACHER --scratch $SCRATCH --threads 1",
        quick="--copies 2 --runs 2",
        full="--copies 4 --runs 7",
        gpu="$SHARDS --scratch $SCRATCH --random-weights --teacher tf_efficientnet_l2 --input-size 475 "
        "--precision bfloat16 --compile --batch-size 64 --workers $WORKERS --device cuda --copies 8 --runs 3",
    ),
    Benchmark(
        module="speed.step",
        title="Training step",
        peer="the same step without labels, and a loop of timm's parts as its training script sets them up",
        needs="$SHARDS $LABELS --scratch $SCRATCH",
        quick="--copies 8 --batch-size 16 --steps 1 --runs 3",
        full="--batch-size 64 --steps 2 --runs 7",
        gpu="$SHARDS $LABELS --scratch $SCRATCH --device cuda --workers $WORKERS --batch-size 256 --steps 16 --runs 9",
    ),
    Benchmark(
        module="speed.start",
        title="Start-up of relabel-store",
        peer="a bare Python, and one that imports zarr",
        needs="$LABELS",
        quick="--runs 5",
        full="--runs 21",
    ),
    Benchmark(
        module="speed.store",
        title="Times of the store",
        peer="writing, reading and listing the same bytes without a format",
        needs="$LABELS --scratch $SCRATCH",
        quick="--groups 8 --runs 5",
        full="--groups 128 --runs 15",
    ),
    Benchmark(
        module="speed.browse",
        title="Audit and browse",
        peer="reading every map, a process with the same imports, the same bytes from Python's own file server",
        needs="--scratch $SCRATCH",
        quick="--groups 8 --audits 1 --runs 2",
        full="--groups 64 --audits 7 --runs 7",
    ),
    Benchmark(
        module="speed.ray",
        title="Two Ray actors",
        peer="twice the rate of one actor",
        needs="$SHARDS $TEACHER --scratch $SCRATCH",
        quick="--copies 4 --runs 1",
        full="--copies 8 --runs 3",
    ),
)
