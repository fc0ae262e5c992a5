"""Draws figure 2 of docs/explanation.md: why label maps cover the whole image, and not a centre crop.

Shape letters: C classes, h w pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from annotator.teacher.teacher import Teacher
from benchmarks.figures.parts import (
    LabelMap,
    Line,
    Pixels,
    colours_of,
    draw_box,
    draw_cells,
    draw_target,
    hide_axes,
    label_maps,
    outlined,
    save,
    scene,
)
from pipelines.digits.scenes import SCENE_SIZE
from pipelines.digits.shards import SceneTruth
from store.maps.types import Box
from trainer.data.crops import resize_and_centre

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 180, SCENE_SIZE  # 3 to 2, as many photographs are
CENTRE: Box = ((WIDTH - HEIGHT) / 2 / WIDTH, 0, (WIDTH + HEIGHT) / 2 / WIDTH, 1)  # the part that a centre crop keeps
PICTURE = 54
BOX: Box = (0.0, 0.3, 0.35, 1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class WidePicture:
    """Two neighbouring scenes, cut to 3 to 2 where no digit is cut."""

    image: Pixels  # (h, w, 3)
    truth: SceneTruth  # boxes normalised by the wide picture


def make(teacher: Teacher, file: Path, *, pairs: int) -> list[str]:
    """Draw the figure and measure on so many pairs of scenes; returns the numbers that the page quotes, a line each."""
    drawn = wide_picture(PICTURE)
    assert drawn is not None
    whole, centre = both_maps(teacher, [drawn])
    _draw(drawn, whole[0], centre[0], file)
    lines = [f"wide picture {PICTURE}, crop {','.join(f'{side:g}' for side in BOX)}"]
    for name, label_map in (("squash", whole[0]), ("centre crop", centre[0])):
        target = label_map.target(BOX)
        best = np.argsort(-target, kind="stable")[:2]
        lines.append(f"{name}: " + ", ".join(f"{c}: {target[c]:.2f}" for c in best))
    return [*lines, *_measure(teacher, pairs)]


def wide_picture(index: int) -> WidePicture | None:
    """The demo's scenes 2 index and 2 index + 1 side by side, cut to 3 to 2; None if every cut goes through a digit."""
    pair = [scene(2 * index), scene(2 * index + 1)]
    image = np.concatenate([one.image for one in pair], axis=1)
    digits = [(d.label, np.array(d.box) * SCENE_SIZE + (i * SCENE_SIZE, 0) * 2) for i in (0, 1) for d in pair[i].digits]
    for left in range(2 * SCENE_SIZE - WIDTH + 1):
        right = left + WIDTH
        if any(x1 < edge < x2 for edge in (left, right) for _, (x1, _, x2, _) in digits):
            continue
        inside = [(label, box) for label, box in digits if left <= box[0] and box[2] <= right]
        boxes = [(box - (left, 0, left, 0)) / (WIDTH, HEIGHT, WIDTH, HEIGHT) for _, box in inside]
        truth = SceneTruth(
            key=str(index), labels=tuple(label for label, _ in inside), boxes=tuple(_as_box(box) for box in boxes)
        )
        return WidePicture(image=np.ascontiguousarray(image[:, left:right]), truth=truth)
    return None


def both_maps(teacher: Teacher, pictures: list[WidePicture]) -> tuple[list[LabelMap], list[LabelMap]]:
    """Label maps with the preprocessing `squash`, and with resize and centre crop, by the same teacher and size."""
    size = teacher.preprocessing.input_size[0]
    squashed = [
        np.asarray(Image.fromarray(picture.image).resize((size, size), Image.Resampling.BILINEAR))
        for picture in pictures
    ]
    centred = [resize_and_centre(picture.image, size, 1.0, "bilinear") for picture in pictures]
    return label_maps(teacher, squashed), label_maps(teacher, centred)


def seen_on_centre(box: Box) -> Box:
    """The part of the image that a crop's box covers on a map of the centre."""
    x1, y1, x2, y2 = box
    left, right = CENTRE[0], CENTRE[2]
    return left + x1 * (right - left), y1, left + x2 * (right - left), y2


LINES: dict[str, tuple[Box, Line]] = {
    "a crop, and its box": (BOX, {"colour": "white", "style": "-"}),
    "what resize and centre crop\nkeep of the image": (CENTRE, {"colour": "#56b4e9", "style": "--"}),
    "where that box lies on a map\nof the middle": (seen_on_centre(BOX), {"colour": "#e69f00", "style": "-"}),
}


def _measure(teacher: Teacher, pairs: int) -> list[str]:
    """Mean probability of a digit in the target of its own box, by preprocessing and way to place the box."""
    names = (
        "squash",
        "centre crop",
        "digits in the middle: squash",
        "digits in the middle: centre crop, box corrected",
    )
    found: dict[str, list[float]] = {name: [] for name in names}
    digits = pictures = 0
    for picture, whole, centre in _maps_of_pairs(teacher, pairs):
        pictures += 1
        for label, box in zip(picture.truth.labels, picture.truth.boxes, strict=True):
            digits += 1
            targets = [whole.target(box), centre.target(box)]
            if CENTRE[0] <= box[0] and box[2] <= CENTRE[2]:
                targets += [whole.target(box), centre.target(_on_centre(box))]
            for name, target in zip(names, targets, strict=False):
                found[name].append(float(target[label]))
    return [f"wide pictures: {pictures} of {pairs} pairs"] + [
        f"{name}: a digit has {np.mean(values):.3f} in the target of its box ({len(values):,} of {digits:,} digits)"
        for name, values in found.items()
    ]


def _on_centre(box: Box) -> Box:
    """The crop's box on a map of the centre; the inverse of `seen_on_centre`."""
    x1, y1, x2, y2 = box
    left, right = CENTRE[0], CENTRE[2]
    return (x1 - left) / (right - left), y1, min((x2 - left) / (right - left), 1), y2


def _maps_of_pairs(teacher: Teacher, pairs: int) -> Iterator[tuple[WidePicture, LabelMap, LabelMap]]:
    pictures = [picture for index in range(pairs) if (picture := wide_picture(index)) is not None]
    for start in range(0, len(pictures), 50):
        some = pictures[start : start + 50]
        yield from zip(some, *both_maps(teacher, some), strict=True)


def _as_box(sides: "np.ndarray | tuple[float, ...]") -> Box:
    x1, y1, x2, y2 = (float(side) for side in sides)
    return x1, y1, x2, y2


def _draw(picture: WidePicture, whole: LabelMap, centre: LabelMap, file: Path) -> None:
    from matplotlib.figure import Figure

    colours = colours_of(whole, centre)
    figure = Figure(figsize=(7.6, 7.9), layout="constrained")
    panels = figure.subplots(3, 2, width_ratios=(1.35, 1))
    _draw_image(panels[0, 0], panels[0, 1], picture.image)
    names = ("squash: the map covers the whole image", "centre crop: the map covers the middle only")
    for (cells, bars), label_map, name in zip(panels[1:], (whole, centre), names, strict=True):
        draw_cells(cells, label_map, colours)
        cells.set_aspect(HEIGHT / WIDTH if label_map is whole else 1)
        hide_axes(cells, name)
        draw_box(cells, BOX)
        target_C = label_map.target(BOX)
        best = int(target_C.argmax())
        where = "is in" if best in picture.truth.labels_inside(BOX) else "is not in"
        draw_target(bars, target_C, colours, f"target of the crop: {best}, which {where} it")
    save(figure, file)


def _draw_image(panel: "Axes", legend: "Axes", image: Pixels) -> None:
    panel.imshow(image, extent=(0, 1, 1, 0), aspect=HEIGHT / WIDTH)
    hide_axes(panel, "a wide image")
    for name, (box, line) in LINES.items():
        draw_box(panel, box, **line)
        legend.plot([], [], label=name, **outlined(**line))
    legend.set_axis_off()
    legend.legend(loc="center left", frameon=False, fontsize=9, handlelength=3.5, labelspacing=1.4)
