"""Draws figure 3 of docs/explanation.md: the logits that are assumed for the classes that a cell did not keep.

Shape letters: K kept classes of a cell, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from annotator.teacher.teacher import Teacher
from benchmarks.figures.parts import CLASSES, Floats, LabelMap, label_maps, save, stored_image, tidy
from pipelines.digits.scenes import SCENE_SIZE
from store.maps.pooling import fill_logits
from store.maps.types import Box, Fill
from trainer.data.crops import IMAGENET_CROPS, draw_crop

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILLS: tuple[Fill, ...] = get_args(Fill)
STYLES: dict[Fill, tuple[str, str]] = {"zero": ("#0072b2", "o"), "tail": ("#009e73", "^"), "min": ("#d55e00", "s")}
SCENE = 40
CELL = (7, 5)  # y, x: above the 6, where the teacher is confident
COUNTS = (10, 30, 100, 300, 1_000, 3_000, 10_000, 21_841)
TOP_KS = (1, 2, 3, 4, 5)
SEED = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Distances:
    """Distances of each crop's target from that of the full logits, by fill and K."""

    by_fill: dict[Fill, list[NDArray[np.float64]]]  # an array for each of `TOP_KS`

    def mean(self, fill: Fill, top_k: int) -> float:
        """Mean over all crops."""
        return float(self.by_fill[fill][TOP_KS.index(top_k)].mean())

    def error(self, fill: Fill, top_k: int) -> float:
        """Standard error of that mean."""
        values = self.by_fill[fill][TOP_KS.index(top_k)]
        return float(values.std(ddof=1) / np.sqrt(len(values)))


def make(teacher: Teacher, file: Path, *, scenes: int) -> list[str]:
    """Draw the figure and measure on so many scenes; returns the numbers that the page quotes, a line each."""
    (label_map,) = label_maps(teacher, [stored_image(SCENE)])
    found = _measure(teacher, scenes)
    _draw(label_map, found, file)
    kept = ", ".join(f"{score:.2f}" for score in label_map.scores[(slice(None), *CELL)])
    lines = [f"cell {CELL[0]},{CELL[1]} of train-{SCENE:06d}: scores {kept}, tail {label_map.tail_logsumexp[CELL]:.2f}"]
    for fill in FILLS:
        shares = ", ".join(f"{count:,}: {first_class(label_map, count, fill):.3f}" for count in (10, 1_000, 21_841))
        lines.append(f"{fill}: first class of the cell by the number of classes, {shares}")
    for fill in FILLS:
        by_k = ", ".join(f"K {k}: {found.mean(fill, k):.3f} ± {found.error(fill, k):.3f}" for k in TOP_KS)
        lines.append(f"{fill}: distance from the full target, {by_k} ({scenes:,} crops)")
    return lines


def first_class(label_map: LabelMap, num_classes: int, fill: Fill) -> float:
    """Probability of the cell's top-1 class if the others were spread over so many classes."""
    scores_K11 = label_map.scores[:, CELL[0], CELL[1], None, None].astype(np.float32)
    tail_11 = label_map.tail_logsumexp[CELL[0], CELL[1], None, None]
    rest = float(fill_logits(scores_K11, num_classes, fill, tail_11)[0, 0])
    kept_K = np.exp(scores_K11[:, 0, 0].astype(np.float64))
    return float(kept_K[0] / (kept_K.sum() + (num_classes - len(kept_K)) * np.exp(rest)))


def _measure(teacher: Teacher, scenes: int) -> Distances:
    """Total variation distances of one random crop of each scene, drawn as in training."""
    rng = np.random.default_rng(SEED)
    sides = [draw_crop(rng, SCENE_SIZE, SCENE_SIZE, **IMAGENET_CROPS) for _ in range(scenes)]
    boxes: list[Box] = [side.normalised(SCENE_SIZE, SCENE_SIZE) for side in sides]
    images = [stored_image(i) for i in range(scenes)]
    full_NC = _targets(label_maps(teacher, images, CLASSES), boxes, "zero")
    by_fill: dict[Fill, list[NDArray[np.float64]]] = {fill: [] for fill in FILLS}
    for top_k in TOP_KS:
        maps = label_maps(teacher, images, top_k)
        for fill in FILLS:
            differences_NC = np.abs(_targets(maps, boxes, fill) - full_NC)
            by_fill[fill].append(differences_NC.sum(1, dtype=np.float64) / 2)
    return Distances(by_fill=by_fill)


def _targets(maps: Sequence[LabelMap], boxes: Sequence[Box], fill: Fill) -> Floats:
    return np.stack([one.target(box, fill) for one, box in zip(maps, boxes, strict=True)])


def _draw(label_map: LabelMap, found: Distances, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for fill, (colour, marker) in STYLES.items():
        line = {"color": colour, "marker": marker, "ms": 5, "lw": 1.5}
        left.plot(COUNTS, [first_class(label_map, count, fill) for count in COUNTS], label=fill, **line)
        means, errors = ([of(fill, k) for k in TOP_KS] for of in (found.mean, found.error))
        right.errorbar(TOP_KS, means, errors, capsize=2, label=fill, **line)
    left.set_xscale("log")
    left.set_xticks((10, 100, 1_000, 21_841), ("10", "100", "1,000", "21,841"))
    left.set_xticks([], minor=True)
    left.set_ylim(top=1)
    _finish(left, "the first class of a cell", "number of classes C", "probability")
    _finish(right, "crops: distance to the target of all logits", "kept classes K, of 10", "total variation distance")
    right.set_xticks(TOP_KS)
    save(figure, file)


def _finish(panel: "Axes", title: str, across: str, up: str) -> None:
    panel.set_ylim(bottom=0)
    panel.set_xlabel(across, fontsize=9)
    panel.set_ylabel(up, fontsize=9)
    panel.legend(frameon=False, fontsize=9, title="fill", title_fontsize=9)
    tidy(panel, title)
