"""LabelPooling by separable weights and one scatter-add, against a dense map and torchvision's RoIAlign.

Run with `python -m benchmarks.bench_pooling`. Both get what the trainer has: top-K maps and boxes.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.ops import roi_align

from trainer.pooling import pool_logits

BATCH, TOP_K, CLASSES, SIDE = 256, 5, 1000, 15
RUNS = {"sparse": 50, "dense": 7}


def make_input() -> tuple[Tensor, Tensor, Tensor]:
    """(B, K, H, W) uint16 classes, (B, K, H, W) float16 scores, (B, 4) float32 boxes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, CLASSES, SIDE, SIDE, generator=generator)
    scores, classes = logits.topk(TOP_K, dim=1)
    corners = torch.rand(BATCH, 2, 2, generator=generator).sort(1).values.clamp(0.0, 1.0)
    # topk leaves strides that the loader's batches do not have.
    return classes.to(torch.uint16).contiguous(), scores.half().contiguous(), corners.reshape(BATCH, 4)


def sparse(classes: Tensor, scores: Tensor, boxes: Tensor) -> Tensor:
    return pool_logits(classes, scores, boxes, num_classes=CLASSES)


def dense(classes: Tensor, scores: Tensor, boxes: Tensor) -> Tensor:
    maps = torch.zeros(len(classes), CLASSES, SIDE, SIDE).scatter_(1, classes.long(), scores.float())
    rois = torch.cat([torch.arange(len(boxes), dtype=torch.float32)[:, None], boxes * SIDE], dim=1)
    pooled: Tensor = roi_align(maps, rois, (1, 1), 1.0, -1, aligned=True)
    return pooled[:, :, 0, 0]


def milliseconds(run: Callable[[], Tensor], runs: int) -> list[float]:
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return times


def main() -> None:
    torch.set_num_threads(1)
    inputs = make_input()
    print(
        f"batch {BATCH}, {SIDE} x {SIDE} cells, top {TOP_K} of {CLASSES} classes, one thread, torch {torch.__version__}"
    )
    medians = {}
    for name, function in (("sparse", sparse), ("dense", dense)):
        times = milliseconds(lambda function=function: function(*inputs), RUNS[name])  # type: ignore[misc]
        medians[name] = statistics.median(times)
        low, _, high = statistics.quantiles(times, n=4)
        print(f"{name:6}: median {medians[name]:8.2f} ms, quartiles {low:.2f} to {high:.2f}, {len(times)} runs")
    difference = float((sparse(*inputs) - dense(*inputs)).abs().max())
    print(f"ratio {medians['dense'] / medians['sparse']:.0f}, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
