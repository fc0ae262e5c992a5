"""Measures how well each kind of target matches the digits in a crop, on the demo's scenes, whose digits are known.

    python -m pipelines.demo annotate --out demo
    python -m benchmarks.studies.target_quality --demo demo --plot target_quality.png

A crop's true distribution over the classes is the area of each digit's box inside the crop, divided by their sum. A
target's score is its overlap with that, sum_c min(target_c, truth_c), from 0 to 1. Crops are drawn as in training, of
one area after the other; crops without a digit are left out.

Letters: N crops, C classes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pipelines.digits.shards import SceneTruth, read_truth
from store.cli.base import Command
from store.cli.options import LocalPath
from store.maps.pooling import KINDS, crop_target
from store.maps.types import Box
from store.reader import LabelStore
from trainer.data.crops import draw_crop

AREAS = (0.08, 0.15, 0.25, 0.4, 0.6, 0.8, 1.0)
SIDE = 120  # pixels of a scene
SMOOTHING = 0.1
NAMES = (*KINDS, "original, smoothed")
# Okabe and Ito's colours, each with a marker for readers who cannot distinguish them.
STYLES = ("#0072b2", "o"), ("#e69f00", "s"), ("#009e73", "^"), ("#d55e00", "v"), ("#000000", "D"), ("#cc79a7", "x")

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Scores:
    """Scores of each kind of target on crops of one area."""

    by_kind: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})
    empty: int = 0  # crops without a digit

    def mean(self, kind: str) -> float:
        """Mean over all crops."""
        return float(np.mean(self.by_kind[kind]))

    def error(self, kind: str) -> float:
        """Standard error of that mean."""
        values = self.by_kind[kind]
        return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def truth_of_crop(truth: SceneTruth, box: Box, num_classes: int) -> Floats | None:
    """(C,) each class's fraction of the digits' area in a crop; None if the crop has no digit."""
    areas = np.zeros(num_classes)
    for label, (x1, y1, x2, y2) in zip(truth.labels, truth.boxes, strict=True):
        width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
        areas[label] += max(width, 0) * max(height, 0)
    return areas / areas.sum() if areas.any() else None


def measure(store: LabelStore, truths: dict[str, SceneTruth], area: float, seed: int) -> Scores:
    """Score one crop of that area in every scene."""
    rng, scores, count = np.random.default_rng(seed), Scores(), store.schema.num_classes
    for group in store:
        for i, key in enumerate(group.keys):
            x1, y1, x2, y2 = draw_crop(rng, SIDE, SIDE, scale=(area, area), ratio=(3 / 4, 4 / 3)).normalised(SIDE, SIDE)
            box = float(x1), float(y1), float(x2), float(y2)
            truth = truth_of_crop(truths[key], box, count)
            if truth is None:
                scores.empty += 1
                continue
            row = group.row(i)
            targets = {str(kind): crop_target(store.schema, row, box=box, kind=kind) for kind in KINDS}
            targets["original, smoothed"] = (1 - SMOOTHING) * targets["original"] + np.float32(SMOOTHING / count)
            for name, target in targets.items():
                scores.by_kind[name].append(float(np.minimum(target, truth).sum()))
    return scores


def draw(found: dict[float, Scores], file: Path) -> None:
    """Draw a line for each kind of target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    panel = figure.subplots()
    for name, (colour, marker) in zip(NAMES, STYLES, strict=True):
        means = [scores.mean(name) for scores in found.values()]
        errors = [scores.error(name) for scores in found.values()]
        panel.errorbar(list(found), means, errors, color=colour, marker=marker, ms=5, lw=1.5, capsize=2, label=name)
    panel.set_xlabel("area of the crop, fraction of the scene")
    panel.set_ylabel("overlap with the digits in the crop")
    panel.set_ylim(0, 1)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=9, ncols=2, loc="lower right")
    figure.savefig(file, dpi=120)


@click.command(cls=Command)
@click.option("--demo", type=LocalPath(exists=True), required=True, help="The demo's folder.")
@click.option("--plot", type=LocalPath(), required=True, help="File for the picture, a PNG.")
def main(demo: Path, plot: Path) -> None:
    """Print a table and draw it."""
    store = LabelStore.open(demo / "labels.zarr")
    shards = sorted((demo / "shards").glob("digits-train-*.tar"))
    truths = {truth.key: truth for shard in shards for truth in read_truth(shard)}
    found = {}
    print(f"| area | {' | '.join(NAMES)} | crops without a digit |\n|---|{'---|' * (len(NAMES) + 1)}")
    for seed, area in enumerate(AREAS):
        found[area] = scores = measure(store, truths, area, seed)
        cells = " | ".join(f"{scores.mean(name):.3f} ± {scores.error(name):.3f}" for name in NAMES)
        print(f"| {area:g} | {cells} | {scores.empty / len(truths):.1%} |", flush=True)
    draw(found, plot)


if __name__ == "__main__":
    main()
