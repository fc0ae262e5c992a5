"""Compares LabelPooling with the dense way: scatter the top K to a full map, then torchvision's RoIAlign.

    python -m benchmarks.speed.pooling                  # one CPU core: time, memory, fraction of a training step
    python -m benchmarks.speed.pooling --device cuda    # time and memory, and a check for synchronisations

Both ways get top-K maps and boxes, as the trainer has them, and take turns; each round gives a ratio of its own. A turn
is a few calls in a row, of which the median counts; the first is left out, since the other way has filled the caches.

Shapes: B batch, K kept classes of a cell, C classes, H W cells (y, x).
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import timm
import torch
from torch import Tensor
from torchvision.ops import roi_align

from benchmarks.measure import median, milliseconds, ratios, table, take_turns
from store.cli.base import Command
from trainer.targets.pooling import pool_logits
from trainer.targets.targets import LabelBatch, TargetMaker, soft_cross_entropy

TOP_K, CLASSES, SIDE = 5, 1000, 15
DEFAULT_BATCH = {"cpu": 256, "cuda": 1024}
STEP_BATCH, STEP_MODEL, STEP_SIZE = 64, "resnet18", 224
CALLS = 5  # counted in each turn
MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of target to pool."""

    name: str
    grid: int


CASES = (
    Case(name="one target", grid=1),
    Case(name="7 x 7 targets", grid=7),
)


def make_labels(batch: int, device: str) -> LabelBatch:
    """Random maps in the dtypes of the store, and random boxes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, CLASSES, SIDE, SIDE, generator=generator)
    scores, classes = logits.topk(TOP_K, dim=1)
    corners = torch.rand(batch, 2, 2, generator=generator).sort(1).values
    # topk returns strided tensors; the loader's batches are contiguous.
    return LabelBatch(
        classes=classes.to(torch.uint16).contiguous().to(device),
        scores=scores.half().contiguous().to(device),
        boxes=corners.reshape(batch, 4).to(device),
        labels=torch.zeros(batch, dtype=torch.int64, device=device),
    )


def sparse(labels: LabelBatch, case: Case) -> Tensor:
    return pool_logits(
        labels.classes,
        labels.scores,
        labels.boxes,
        num_classes=CLASSES,
        grid=case.grid,
    )


def dense(labels: LabelBatch, case: Case) -> Tensor:
    batch = len(labels.boxes)
    maps = torch.zeros(batch, CLASSES, SIDE, SIDE, device=labels.boxes.device)
    maps.scatter_(1, labels.classes.long(), labels.scores.float())
    index = torch.arange(batch, dtype=torch.float32, device=maps.device)[:, None]
    rois = torch.cat([index, labels.boxes * SIDE], dim=1)
    pooled: Tensor = roi_align(maps, rois, (case.grid, case.grid), 1.0, -1, aligned=True)
    return pooled[:, :, 0, 0] if case.grid == 1 else pooled.permute(0, 2, 3, 1)


WAYS = {"sparse": sparse, "dense": dense}


def call_time(run: Callable[[], object], device: str) -> float:
    """Milliseconds of one call, including its work on the device."""
    wait_for(device)

    def whole() -> None:
        run()
        wait_for(device)

    return milliseconds(whole)


def wait_for(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def turn(way: Callable[[], object], device: str) -> float:
    """Milliseconds of the median of a few calls in a row."""
    return median([call_time(way, device) for _ in range(CALLS + 1)][1:])


def bench_time(labels: LabelBatch, device: str, runs: int) -> None:
    for case in CASES:
        ways = {name: partial(turn, partial(way, labels, case), device) for name, way in WAYS.items()}
        times = take_turns(ways, runs)
        table(case.name, {f"{name}: ms": values for name, values in times.items()} | {
            "dense / sparse": ratios(times["dense"], times["sparse"]),
        })  # fmt: skip
        difference = float((sparse(labels, case) - dense(labels, case)).abs().max())
        print(f"\nLargest difference of a logit: {difference:.1e}\n")


def peak_memory(way: str, batch: int, device: str) -> float:
    """MiB that one call allocates beyond its inputs; on the CPU measured in a process of its own."""
    if device == "cpu":
        command = [sys.executable, "-m", "benchmarks.speed.pooling", "--memory-of", way, "--batch", str(batch)]
        # Larger allocations then never reuse freed memory, which would hide them.
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
        run = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return int(run.stdout) / MIB
    labels = make_labels(batch, device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    WAYS[way](labels, CASES[0])
    return (torch.cuda.max_memory_allocated() - before) / MIB


def resident_growth(way: str, batch: int) -> int:
    """Bytes by which the process's resident set grows while it pools one batch."""
    labels = make_labels(batch, "cpu")
    WAYS[way](make_labels(2, "cpu"), CASES[0])  # loads code that is only loaded on use
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    WAYS[way](labels, CASES[0])
    return _status("VmHWM") - before


def _status(field: str) -> int:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def bench_memory(batch: int, device: str, runs: int) -> None:
    peaks = take_turns({way: partial(peak_memory, way, batch, device) for way in WAYS}, runs)
    table(f"memory beyond the inputs, {CASES[0].name}", {f"{way}: MiB": values for way, values in peaks.items()} | {
        "dense / sparse": ratios(peaks["dense"], peaks["sparse"]),
    })  # fmt: skip


def bench_step(device: str, runs: int, batch: int) -> None:
    """Time making targets as a part of a training step of a small student."""
    torch.manual_seed(0)
    model = timm.create_model(STEP_MODEL, num_classes=CLASSES).to(device).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    labels = make_labels(batch, device)
    images = torch.randn(batch, 3, STEP_SIZE, STEP_SIZE, device=device).to(memory_format=torch.channels_last)
    make_targets = TargetMaker(
        kind="relabel", num_classes=CLASSES, temperature=1.0, original_weight=0.0, label_smoothing=0.0
    )

    def step() -> None:
        loss = soft_cross_entropy(model(images), make_targets(labels))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    times = take_turns(
        {"step": lambda: call_time(step, device), "targets": lambda: call_time(lambda: make_targets(labels), device)},
        runs,
    )
    print()
    table(f"{STEP_MODEL} at {STEP_SIZE} px, batch {batch}", {
        "a step: ms": times["step"],
        "of it pooling and softmax: ms": times["targets"],
        "pooling and softmax / step": ratios(times["targets"], times["step"]),
    })  # fmt: skip


def check_no_wait(labels: LabelBatch) -> None:
    torch.cuda.set_sync_debug_mode("error")
    for case in CASES:
        sparse(labels, case)
    torch.cuda.set_sync_debug_mode("default")
    print("\nno call of the sparse way synchronised with the device")


@click.command(cls=Command)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--batch", type=int, help="Label maps pooled at once. Default: 256 on the CPU, 1,024 on a GPU.")
@click.option("--runs", default=15, show_default=True, type=click.IntRange(1), help="Rounds of timing.")
@click.option("--memory-runs", default=3, show_default=True)
@click.option("--step-runs", default=5, show_default=True)
@click.option("--step-batch", default=STEP_BATCH, show_default=True)
@click.option("--memory-of", type=click.Choice(list(WAYS)), help="Print only how many bytes one call takes.")
def main(
    device: str,
    batch: int | None,
    runs: int,
    memory_runs: int,
    step_runs: int,
    step_batch: int,
    memory_of: str | None,
) -> None:
    """Compare LabelPooling with the dense way."""
    torch.set_num_threads(1)
    batch = batch or DEFAULT_BATCH[device]
    if memory_of:
        print(resident_growth(memory_of, batch))
        return
    where = torch.cuda.get_device_name() if device == "cuda" else "one CPU thread"
    print(f"{SIDE} x {SIDE} cells, top {TOP_K} of {CLASSES:,} classes, batch {batch:,}, {where}\n")
    labels = make_labels(batch, device)
    bench_time(labels, device, runs)
    bench_memory(batch, device, memory_runs)
    bench_step(device, step_runs, step_batch)
    if device == "cuda":
        check_no_wait(labels)


if __name__ == "__main__":
    main()
