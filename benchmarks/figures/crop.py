"""Draws figure 1 of docs/explanation.md: how a crop becomes a target.

Shape letters: C classes, H W cells (y, x), L cells along one axis.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotator.teacher.teacher import Teacher
from benchmarks.figures.parts import (
    CLASSES,
    GREY,
    Floats,
    LabelMap,
    colours_of,
    draw_box,
    draw_cells,
    draw_target,
    hide_axes,
    label_maps,
    save,
    stored_image,
    tidy,
)
from store.maps.pooling import axis_weights
from store.maps.types import Box

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCENE = 40
BOX: Box = (0.3, 0.5, 0.9, 0.95)


def make(teacher: Teacher, file: Path) -> list[str]:
    """Draw the figure; returns the numbers that the page quotes, a line each."""
    image = stored_image(SCENE)
    (label_map,) = label_maps(teacher, [image])
    _, height, width = label_map.classes.shape
    down_H, across_W = axis_weights(BOX[1], BOX[3], height)[0], axis_weights(BOX[0], BOX[2], width)[0]
    _draw(image, label_map, down_H, across_W, file)
    target, logits = label_map.target(BOX), label_map.pooled(BOX)
    best = np.argsort(-target, kind="stable")[:3]
    named = ", ".join(f"{c}: logit {logits[c]:.2f}, target {target[c]:.2f}" for c in best)
    return [
        f"scene train-{SCENE:06d}, crop {','.join(f'{side:g}' for side in BOX)}: {named}",
        f"cells with weight: {np.count_nonzero(np.outer(down_H, across_W))} of {height * width}",
        f"largest weight of a cell: {np.outer(down_H, across_W).max():.4f}",
    ]


def _draw(image: np.ndarray, label_map: LabelMap, down_H: Floats, across_W: Floats, file: Path) -> None:
    from matplotlib.figure import Figure

    colours = colours_of(label_map)
    figure = Figure(figsize=(7.6, 5.9), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1.15, 1))
    above = grid[0].subgridspec(1, 3, width_ratios=(1, 1, 1.18))
    panels = [figure.add_subplot(above[i]) for i in (0, 1)]
    panels[0].imshow(image, extent=(0, 1, 1, 0))
    hide_axes(panels[0], "1. image, and a random crop")
    draw_cells(panels[1], label_map, colours)
    panels[1].set_aspect(1)
    hide_axes(panels[1], "2. label map, and the crop's box")
    draw_box(panels[0], BOX)
    draw_box(panels[1], BOX)
    weights = above[2].subgridspec(2, 2, width_ratios=(3, 1), height_ratios=(1, 3))
    _draw_weights([figure.add_subplot(weights[at]) for at in ((0, 0), (1, 0), (1, 1))], down_H, across_W)
    below = grid[1].subgridspec(1, 2)
    first, second = (figure.add_subplot(below[i]) for i in (0, 1))
    _draw_logits(first, label_map.pooled(BOX), colours)
    draw_target(second, label_map.target(BOX), colours, "5. softmax: the target")
    second.set_xlabel("class", fontsize=8.5)
    second.set_ylabel("probability", fontsize=8.5)
    save(figure, file)


def _draw_weights(panels: "list[Axes]", down_H: Floats, across_W: Floats) -> None:
    """Draw the product as a heat map, with its two factors at the sides."""
    across, product, down = panels
    height, width = len(down_H), len(across_W)
    across.bar(range(width), across_W, width=0.9, color="black")
    across.set_xlim(-0.5, width - 0.5)
    across.set_title("3. weight of each cell\n     = across x down", fontsize=9.5, loc="left")
    across.text(0, 0.95, "across", transform=across.transAxes, fontsize=8, va="top")
    most = np.outer(down_H, across_W).max()
    product.text(0, 0.5, f"black: {most:.4f} each\nall together: 1", fontsize=8, va="top")
    down.barh(range(height), down_H, height=0.9, color="black")
    down.set_ylim(height - 0.5, -0.5)
    down.text(0.5, 1, "down", transform=down.transAxes, fontsize=8, va="top", ha="center")
    product.imshow(np.outer(down_H, across_W), cmap="Greys", aspect="auto")
    product.set_xticks(np.arange(-0.5, width), [])
    product.set_yticks(np.arange(-0.5, height), [])
    product.grid(color="0.85", lw=0.4)
    product.tick_params(length=0)
    for panel in (across, down):
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[:].set_visible(False)


def _draw_logits(panel: "Axes", logits_C: Floats, colours: dict[int, tuple[float, ...]]) -> None:
    bars = panel.bar(range(CLASSES), logits_C, color=[colours.get(c, GREY) for c in range(CLASSES)])
    panel.bar_label(bars, fmt="%.2f", fontsize=7.5, padding=1)
    panel.margins(y=0.15)
    panel.axhline(0, color="black", lw=0.8)
    panel.set_xticks(range(CLASSES))
    panel.set_xlabel("class", fontsize=8.5)
    panel.set_ylabel("logit", fontsize=8.5)
    tidy(panel, "4. scores x weights, added up by class")
