"""Compares the findings of an audit with the digits of the demo's scenes, which are known.

    python -m pipelines.demo annotate --out demo
    python -m benchmarks.studies.audit_truth --demo demo

1. Classes: the classes that an audit counts as present in an image against the digits of the scene, for several
   probabilities and areas.
2. Labels of crops: for random crops as in training, whether the target pooled for the crop shows that the scene's label
   is not in it. A crop lacks its label if it shows less than a tenth of the area of every digit of that label, and has
   it from a half on; crops between the two are left out. The peer is the target pooled over the whole image, which is
   the same for all crops of an image. Three sets of crops, each with its own seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import table
from pipelines.digits.shards import SceneTruth, read_truth
from store.audit.figures import PRESENT_AREA, PRESENT_PROBABILITY
from store.cli.base import Command
from store.cli.options import LocalPath
from store.maps.pooling import crop_target
from store.maps.statistics import present_classes
from store.maps.types import Box
from store.reader import LabelStore
from trainer.data.crops import draw_crop

LACKS, HAS = 0.1, 0.5  # of a digit's area
SIDE = 120  # pixels of a scene
PROBABILITIES, AREAS = (0.5, 0.7, 0.9, 0.97), (0.0, 0.01, PRESENT_AREA, 0.04)
BELOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Numbers of classes found, present, and both."""

    right: int  # found and present
    found: int
    present: int

    @property
    def precision(self) -> float:
        """Fraction of the found classes that are present."""
        return self.right / max(self.found, 1)

    @property
    def recall(self) -> float:
        """Fraction of the present classes that were found."""
        return self.right / max(self.present, 1)


def count_classes(store: LabelStore, truths: dict[str, SceneTruth], probability: float, cells: int) -> Counts:
    right = found = present = 0
    for group in store:
        maps = group.read(0, len(group))
        rows, classes = present_classes(maps, threshold=probability, cells=cells)
        seen = set(zip(rows.tolist(), classes.tolist(), strict=True))
        digits = {(row, label) for row, key in enumerate(group.keys) for label in truths[key].labels}
        right, found, present = right + len(seen & digits), found + len(seen), present + len(digits)
    return Counts(right=right, found=found, present=present)


def print_classes(store: LabelStore, truths: dict[str, SceneTruth]) -> None:
    cells_of_map = int(np.prod(store.schema.map_size))
    print("| a class is present if it is top-1 | precision | recall | F1 |\n|---|---|---|---|")
    for area in AREAS:
        for probability in PROBABILITIES:
            cells = max(int(np.ceil(area * cells_of_map)), 1)
            counts = count_classes(store, truths, probability, cells)
            f1 = 2 * counts.right / (counts.found + counts.present)
            is_default = (area, probability) == (PRESENT_AREA, PRESENT_PROBABILITY)
            where = f"in {cells} of {cells_of_map} cells with {probability:g}{' (default)' if is_default else ''}"
            print(f"| {where} | {counts.precision:.1%} | {counts.recall:.1%} | {f1:.3f} |", flush=True)


def visible_fraction(truth: SceneTruth, label: int, box: Box) -> float:
    """Largest fraction of a digit of that label that is inside a crop."""
    fractions = []
    for digit, (x1, y1, x2, y2) in zip(truth.labels, truth.boxes, strict=True):
        if digit == label:
            width, height = min(x2, box[2]) - max(x1, box[0]), min(y2, box[3]) - max(y1, box[1])
            fractions.append(max(width, 0) * max(height, 0) / ((x2 - x1) * (y2 - y1)))
    return max(fractions)


def crops(store: LabelStore, truths: dict[str, SceneTruth], seed: int) -> Iterator[tuple[float, float, float]]:
    """Yield for a crop of every scene its label's visible fraction, and its probability in two targets."""
    rng = np.random.default_rng(seed)
    for group in store:
        for i, key in enumerate(group.keys):
            box = draw_crop(rng, SIDE, SIDE, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)).normalised(SIDE, SIDE)
            row = group.row(i)
            corners = (float(box[0]), float(box[1]), float(box[2]), float(box[3]))
            pooled, whole = (crop_target(store.schema, row, box=b)[row.label] for b in (corners, (0.0, 0.0, 1.0, 1.0)))
            yield visible_fraction(truths[key], row.label, corners), float(pooled), float(whole)


def average_precision(suspicion: NDArray[np.float64], lacks: NDArray[np.bool_]) -> float:
    """Mean of the precision at every crop that lacks its label, the most suspicious first."""
    right = lacks[np.argsort(-suspicion, kind="stable")]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    return float(precision[right].mean())


def print_crops(store: LabelStore, truths: dict[str, SceneTruth], seeds: Sequence[int]) -> None:
    rows: dict[str, list[float]] = {}
    for seed in seeds:
        visible, pooled, whole = np.array(list(crops(store, truths, seed))).T
        judged = (visible < LACKS) | (visible >= HAS)
        lacks, pooled, whole = (visible < LACKS)[judged], pooled[judged], whole[judged]
        for below in BELOW:
            found = pooled < below
            rows.setdefault(f"precision, label below {below:g}", []).append((found & lacks).sum() / max(found.sum(), 1))
            rows.setdefault(f"recall, label below {below:g}", []).append((found & lacks).sum() / lacks.sum())
        rows.setdefault("average precision, target of the crop", []).append(average_precision(-pooled, lacks))
        rows.setdefault("average precision, target of the whole image", []).append(average_precision(-whole, lacks))
        rows.setdefault("crops that lack their label", []).append(lacks.mean())
        rows.setdefault("crops left out, between the two", []).append(1 - judged.mean())
    table("the crop does not contain the label", rows)


@click.command(cls=Command)
@click.option("--demo", type=LocalPath(exists=True), required=True, help="The demo's folder.")
@click.option("--seeds", default=3, show_default=True, help="Sets of crops.")
def main(demo: Path, seeds: int) -> None:
    """Print both tables."""
    store = LabelStore.open(demo / "labels.zarr")
    shards = sorted((demo / "shards").glob("digits-train-*.tar"))
    truths = {truth.key: truth for shard in shards for truth in read_truth(shard)}
    print(f"{len(truths):,} scenes, {store.schema.map_size[0]} x {store.schema.map_size[1]} cells\n")
    print_classes(store, truths)
    print()
    print_crops(store, truths, range(seeds))


if __name__ == "__main__":
    main()
