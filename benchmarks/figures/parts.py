"""Makes and draws the parts of the figures of docs/explanation.md: scenes, label maps, boxes, targets.

Shape letters: K kept classes of a cell, C classes, H W cells (y, x), h w pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from annotator.teacher.teacher import Teacher
from pipelines.demo.stages import SEED, demo_teacher
from pipelines.digits.scenes import Scene, draw_scene, load_pool
from pipelines.digits.shards import JPEG_QUALITY
from store.maps.pooling import cell_confidence, pool_map, softmax
from store.maps.types import Box
from store.shards.decode import decode_image
from store.view.marks import OTHER, PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CLASSES = 10
GREY = tuple(value / 255 for value in OTHER)
DPI = 120
CELL_FONT = 5.5  # points

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Line(TypedDict):
    """Style of a box's outline."""

    colour: str
    style: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelMap:
    """The label map of one image, as in a store."""

    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W)
    tail_logsumexp: NDArray[np.float16]  # (H, W)

    def pooled(self, box: Box) -> Floats:
        """(C,) pooled logits of a crop."""
        return pool_map(self.classes, self.scores, num_classes=CLASSES, box=box)

    def target(self, box: Box) -> Floats:
        """(C,) target of a crop."""
        return softmax(self.pooled(box))


def make_teacher() -> Teacher:
    """The demo's teacher, on the CPU, so that the page's numbers can be reproduced anywhere."""
    torch.set_num_threads(1)
    return Teacher(demo_teacher(device="cpu"))


def label_maps(teacher: Teacher, images: Sequence[Pixels], top_k: int = 5) -> list[LabelMap]:
    """Label maps of images of the teacher's input size."""
    pixels_B3hw = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    classes, scores, tail_logsumexp = (part.numpy() for part in teacher.label_maps(pixels_B3hw, top_k))
    maps = zip(classes.astype(np.uint16), scores, tail_logsumexp, strict=True)
    return [LabelMap(classes=c, scores=s, tail_logsumexp=t) for c, s, t in maps]


def scene(index: int) -> Scene:
    """The demo's training scene of this number, before JPEG compression."""
    return draw_scene(SEED, index, load_pool("train"))


def stored_image(index: int) -> Pixels:
    """The pixels of that scene as decoded from the demo's shards, after JPEG compression."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(scene(index).image), quality=JPEG_QUALITY, colorspace="RGB")
    return decode_image(data)


def colours_of(*maps: LabelMap) -> dict[int, tuple[float, ...]]:
    """A colour for each of the classes that are top-1 in most cells; the other classes are drawn grey."""
    counts = sum(np.bincount(one.classes[0].ravel(), minlength=CLASSES) for one in maps)
    by_count = [int(c) for c in np.argsort(-np.asarray(counts), kind="stable")]
    return {c: tuple(value / 255 for value in rgb) for c, rgb in zip(by_count, PALETTE, strict=False)}


def draw_cells(panel: "Axes", label_map: LabelMap, colours: dict[int, tuple[float, ...]]) -> None:
    """Draw each cell's top-1 class as digit and colour; less confident cells are paler."""
    _, height, width = label_map.classes.shape
    rgb_HW3 = np.array([[colours.get(int(c), GREY)[:3] for c in line] for line in label_map.classes[0]])
    confidence_HW1 = cell_confidence(label_map.scores, label_map.tail_logsumexp)[..., None]
    panel.imshow(1 - confidence_HW1 * (1 - rgb_HW3), extent=(0, 1, 1, 0), interpolation="nearest", aspect="auto")
    for (y, x), class_id in np.ndenumerate(label_map.classes[0]):
        panel.text((x + 0.5) / width, (y + 0.5) / height, str(class_id), fontsize=CELL_FONT, ha="center", va="center")


def draw_box(panel: "Axes", box: Box, *, colour: str = "white", style: str = "-") -> None:
    """Draw a rectangle with an outline that is visible on any background."""
    x1, y1, x2, y2 = box
    panel.plot([x1, x2, x2, x1, x1], [y1, y1, y2, y2, y1], clip_on=False, **outlined(colour=colour, style=style))


def outlined(*, colour: str, style: str) -> dict[str, Any]:
    """Arguments for a line of matplotlib with a black edge."""
    from matplotlib.patheffects import withStroke

    effects = [withStroke(linewidth=3.8, foreground="black")]
    return {"color": colour, "ls": style, "lw": 1.8, "path_effects": effects, "solid_joinstyle": "miter"}


def draw_target(panel: "Axes", target: Floats, colours: dict[int, tuple[float, ...]], title: str) -> None:
    """Draw a bar for each class, from 0 to 9."""
    bars = panel.bar(range(CLASSES), target, color=[colours.get(c, GREY) for c in range(CLASSES)])
    panel.bar_label(bars, [f"{p:.2f}" if p >= 0.005 else "" for p in target], fontsize=8, padding=1)
    panel.set_ylim(0, 1.12)
    panel.set_xticks(range(CLASSES))
    tidy(panel, title)


def tidy(panel: "Axes", title: str) -> None:
    """Set the style of a panel with axes."""
    panel.set_title(title, fontsize=9.5, loc="left")
    panel.tick_params(labelsize=8.5)
    panel.spines[["top", "right"]].set_visible(False)


def hide_axes(panel: "Axes", title: str) -> None:
    """Set the style of a panel with a picture."""
    panel.set_title(title, fontsize=9.5, loc="left")
    panel.set_xticks([])
    panel.set_yticks([])


def save(figure: "Figure", file: Path) -> None:
    """Write a figure as a PNG of at most 256 colours, which takes a third of the bytes."""
    from io import BytesIO

    from PIL import Image

    stream = BytesIO()
    figure.savefig(stream, dpi=DPI, format="png")
    Image.open(stream).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
