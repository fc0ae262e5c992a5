"""The benchmarks of `make bench`, as command lines: what each needs, and its sizes for each use.

`$SHARDS`, `$LABELS` and `$TEACHER` are the options that name the material, `$SCRATCH` is a folder to make and remove,
`$WORKERS` is two less than the machine's cores.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """One module below `benchmarks`."""

    module: str
    title: str
    peer: str  # what its ratios compare with
    needs: str = ""  # arguments of every use
    quick: str
    full: str
    gpu: str | None = None  # all arguments of its variant that needs CUDA, where there is one

    def arguments(self, use: str) -> str | None:
        """Of one use: quick, full or gpu."""
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
        peer="its own teacher bare, on data that are there already, and a script that writes one file for each image",
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
        peer="the same bytes without a format: written, read, listed",
        needs="$LABELS --scratch $SCRATCH",
        quick="--groups 8 --runs 5",
        full="--groups 128 --runs 15",
    ),
    Benchmark(
        module="speed.browse",
        title="Audit and browse",
        peer="reading every map, a process that imports the same, the same bytes from Python's own file server",
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
