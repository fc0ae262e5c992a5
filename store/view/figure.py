"""A label map over its image, with the targets of some crops, as a PNG. Needs the extra `view`.

Shape letters: H W cells (y, x).
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from store.format.schema import StoreSchema
from store.maps.pooling import cell_confidence, crop_target, has_label
from store.maps.regions import labelled_region
from store.maps.types import WHOLE_IMAGE, Box, LabelRow
from store.view.describe import top1_cells
from store.view.marks import OTHERS, Colour, Marks, class_marks, short_text, strength

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_CLASSES = 6
MAX_SIDE = 1024  # pixels


def draw_map(
    file: Path | BinaryIO,
    image: NDArray[np.uint8],
    row: LabelRow,
    schema: StoreSchema,
    *,
    crops: tuple[Box, ...] = (WHOLE_IMAGE,),
    temperature: float = 1.0,
) -> None:
    """Draw an image, its label map, and the pooled targets of some crops.

    Args:
        file: a path or an open file for the PNG.
        image: (h, w, 3) uint8, the whole image; drawn with at most 1,024 pixels a side.
        row: its label map.
        schema: of the row's store.
        crops: boxes, normalised by the whole image.
        temperature: divides the pooled logits before softmax.
    """
    import matplotlib  # takes a second to import, and most commands draw nothing

    # Names are hostile: they are not parsed as mathematics, and letters that the font lacks cause no warning.
    with matplotlib.rc_context({"text.parse_math": False}), warnings.catch_warnings(action="ignore"):
        targets = [
            crop_target(schema, row, box=box, temperature=temperature, image_size=image.shape[:2]) for box in crops
        ]
        hot = "" if temperature == 1 else f", temperature {temperature:g}"
        _draw(file, image, row, schema, crops, targets, hot)


def _draw(
    file: Path | BinaryIO,
    image: NDArray[np.uint8],
    row: LabelRow,
    schema: StoreSchema,
    crops: tuple[Box, ...],
    targets: list[NDArray[np.float32]],
    hot: str,
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke
    from PIL import Image

    picture = Image.fromarray(image)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))  # matplotlib uses 60 bytes a pixel
    width, height = picture.size
    figure = Figure(figsize=(3.4 * (2 + len(crops)), 3.7), layout="constrained")
    panels = figure.subplots(1, 2 + len(crops))
    shown = "image" if crops == (WHOLE_IMAGE,) else "image and crops"
    label = f"\nlabel {_name(schema, row.label, 22)}" if has_label(schema, row) else ""
    for panel, title in zip(panels, (shown + label, "label map; paler: less probable"), strict=False):
        panel.imshow(picture, extent=(0, 1, 1, 0), aspect=height / width)
        panel.set_title(title, fontsize=10)
        panel.set_axis_off()
    marks = class_marks(c for c, _ in top1_cells(row))
    x1, y1, x2, y2 = region = labelled_region(schema.preprocessing, *image.shape[:2])
    panels[1].imshow(_overlay(row, marks), extent=(x1, x2, y2, y1), interpolation="nearest", aspect=height / width)
    panels[1].set(xlim=(0, 1), ylim=(1, 0))  # of the whole image, also where the map covers a part
    _draw_letters(panels[1], row, marks, region)
    for class_id, (letter, colour) in marks.items():
        panels[1].plot([], [], "s", color=_unit(colour), label=f"{letter} {_name(schema, class_id, 22)}")
    panels[1].plot([], [], "s", color=_unit(OTHERS[1]), label=f"{OTHERS[0]} any other class")
    figure.legend(loc="outside lower left", ncols=4, fontsize=8, frameon=False)  # beside a panel it would squeeze it
    longest = float(max(target.max() for target in targets))
    for i, (box, target) in enumerate(zip(crops, targets, strict=True)):
        style = ("-", "--", ":", "-.")[i % 4]
        x1, y1, x2, y2 = box
        panels[0].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2, ls=style, ec="white"))
        name, outline = _crop_name(crops, i), [withStroke(linewidth=2, foreground="black")]
        panels[0].text(x1 + 0.02, y1 + 0.09, name, color="white", fontsize=8, weight="bold", path_effects=outline)
        _draw_target(panels[2 + i], f"target of {name}{hot}", target, schema, marks)
        panels[2 + i].set_xlim(0, 1.15 * longest)  # one scale, so that crops can be compared and flat targets be seen
    figure.savefig(file, dpi=120, format="png")


def _crop_name(crops: tuple[Box, ...], number: int) -> str:
    if crops[number] == WHOLE_IMAGE:
        return "the whole image"
    return "the crop" if len(crops) == 1 else f"crop {number + 1}"


def _unit(colour: Colour) -> tuple[float, ...]:
    """A colour as matplotlib takes it, 0 to 1."""
    return tuple(value / 255 for value in colour)


def _overlay(row: LabelRow, marks: Marks) -> NDArray[np.float32]:
    """(H, W, 4) RGBA: each cell's top-1 class, the more opaque the more confident the teacher."""
    rgb = np.array([[_unit(marks.get(int(c), OTHERS)[1]) for c in line] for line in row.classes[0]], np.float32)
    return np.concatenate([rgb, 0.85 * cell_confidence(row.scores, row.tail_logsumexp)[..., None]], axis=2)


def _draw_letters(panel: "Axes", row: LabelRow, marks: Marks, region: Box) -> None:
    """The letter of each cell's top-1 class, for readers who cannot distinguish the colours."""
    from matplotlib.patheffects import withStroke

    _, height, width = row.classes.shape
    x1, y1, x2, y2 = region
    style = {"color": "white", "fontsize": min(8, 120 / max(height, width)), "ha": "center", "va": "center"}
    confidence = cell_confidence(row.scores, row.tail_logsumexp)
    for (y, x), class_id in np.ndenumerate(row.classes[0]):
        letter, alpha = marks.get(int(class_id), OTHERS)[0], strength(float(confidence[y, x]))
        outline = withStroke(linewidth=1.5, foreground="black", alpha=alpha)  # white on yellow cannot be read
        across, down = x1 + (x2 - x1) * (x + 0.5) / width, y1 + (y2 - y1) * (y + 0.5) / height
        panel.text(across, down, letter, alpha=alpha, path_effects=[outline], **style)


def _name(schema: StoreSchema, class_id: int, length: int) -> str:
    return short_text(class_id, schema.class_name(class_id), length)


def _draw_target(panel: "Axes", title: str, target: NDArray[np.float32], schema: StoreSchema, marks: Marks) -> None:
    best = np.argsort(-target, kind="stable")[:SHOWN_CLASSES]
    bars = panel.barh(range(len(best)), target[best], color=[_unit(marks.get(int(c), OTHERS)[1]) for c in best])
    panel.bar_label(bars, fmt="%.2g", fontsize=8, padding=2)
    panel.set_yticks(range(len(best)), [_name(schema, int(c), 18) for c in best], fontsize=9)
    panel.invert_yaxis()
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("probability", fontsize=9)
    panel.spines[["top", "right"]].set_visible(False)
