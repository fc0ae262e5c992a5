"""Draws figure 3 of docs/explanation.md: the value of the classes that a cell does not keep.

Shape letters: H W cells (y, x), C classes.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotator.teacher.teacher import Teacher
from benchmarks.figures.parts import save, stored_image, tidy
from benchmarks.studies.rest import REST, SCALES, all_logits, draw_boxes, measure
from pipelines.digits.scenes import SCENE_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES = {
    "mean of the others": ("#009e73", "o", "-"),
    "0": ("#0072b2", "s", "--"),
    "tail spread evenly": ("#cc79a7", "^", "-."),
    "lowest kept score": ("#d55e00", "v", ":"),
}
SHOWN = ("logits", "log p")
TOP_KS = (1, 2, 3, 4, 5)
SEED = 2

Distances = dict[int, dict[str, dict[str, float]]]  # by K, the value and the scale


def make(teacher: Teacher, file: Path, *, scenes: int) -> list[str]:
    """Draw the figure and measure on so many scenes; returns the numbers that the page quotes, a line each."""
    boxes = draw_boxes(np.random.default_rng(SEED), [(SCENE_SIZE, SCENE_SIZE)] * scenes, 1)
    logits = all_logits(teacher, [stored_image(i) for i in range(scenes)])
    found = {top_k: measure(logits, boxes, top_k) for top_k in TOP_KS}
    _draw(found, file)
    return [
        f"{rest}, {scale}: distance from the full target, "
        + ", ".join(f"K {top_k}: {found[top_k][rest][scale]:.3f}" for top_k in TOP_KS)
        for rest in REST
        for scale in SCALES
    ]


def _draw(found: Distances, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.9), layout="constrained")
    for panel, scale in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        _draw_scale(panel, found, scale)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    save(figure, file)


def _draw_scale(panel: "Axes", found: Distances, scale: str) -> None:
    for rest, (colour, marker, style) in STYLES.items():
        values = [found[top_k][rest][scale] for top_k in TOP_KS]
        panel.plot(TOP_KS, values, label=rest, color=colour, marker=marker, ls=style, ms=5, lw=1.5)
    panel.set_ylim(0, 1)
    panel.set_xticks(TOP_KS)
    panel.set_xlabel("kept classes K, of 10", fontsize=9)
    panel.set_ylabel("distance to the target of all logits", fontsize=9)
    tidy(panel, f"the teacher's {'log-probabilities' if scale == 'log p' else scale}")
