"""How good the demo's teacher is, on digits it has never seen: `python -m pipelines.digits.measure`.

Shapes: B batch, D features, C classes, H W cells (y, x).
"""

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.digits.pools import load_pool
from pipelines.digits.scenes import Scene, draw_scene
from pipelines.digits.teacher import load_teacher, normalise, stack_images

BATCH = 50


def label_maps(model: nn.Module, scenes: list[Scene]) -> NDArray[np.float32]:
    """Apply the teacher's features and its linear head at every cell.

    Args:
        model: The teacher, in evaluation mode.
        scenes: At least one.

    Returns:
        (B, H, W, C) float32 logits; their mean over the cells is the model's own output.
    """
    head, maps = model.get_submodule("fc"), []
    with torch.inference_mode():
        for start in range(0, len(scenes), BATCH):
            images = stack_images(scenes[start : start + BATCH])
            features_BDHW = model.forward_features(normalise(images))  # type: ignore[operator]
            maps.append(head(features_BDHW.permute(0, 2, 3, 1)).numpy())
    return np.concatenate(maps)


def image_accuracy(model: nn.Module, scenes: list[Scene]) -> float:
    """Share of scenes whose highest mean logit is the scene's label."""
    guesses = label_maps(model, scenes).mean(axis=(1, 2)).argmax(axis=1)
    return float(np.mean([guess == scene.label for guess, scene in zip(guesses, scenes, strict=True)]))


def box_accuracy(model: nn.Module, scenes: list[Scene]) -> float:
    """Share of digits whose own box has the digit as its highest mean logit, cells weighted by overlap."""
    hits = []
    for map_HWC, scene in zip(label_maps(model, scenes), scenes, strict=True):
        for digit in scene.digits:
            x1, y1, x2, y2 = digit.box
            rows, columns = _overlaps(y1, y2, map_HWC.shape[0]), _overlaps(x1, x2, map_HWC.shape[1])
            hits.append(np.einsum("h,w,hwc->c", rows, columns, map_HWC).argmax() == digit.label)
    return float(np.mean(hits))


def _overlaps(low: float, high: float, cells: int) -> NDArray[np.float64]:
    """How much of each of the cells along one axis lies between low and high, (cells,), unscaled."""
    starts = np.arange(cells) / cells
    inside: NDArray[np.float64] = np.minimum(starts + 1 / cells, high) - np.maximum(starts, low)
    return inside.clip(min=0)


@click.command()
@click.option("--scenes", default=1000, show_default=True, help="Scenes of each kind.")
def main(scenes: int) -> None:
    """Measure the shipped teacher on scenes of the val pool."""
    torch.set_num_threads(2)
    model, pool = load_teacher(), load_pool("val")
    single = [draw_scene(101, index, pool, digits_max=1) for index in range(scenes)]
    drawn = (draw_scene(102, index, pool) for index in range(scenes))
    several = [scene for scene in drawn if len(scene.digits) > 1]
    click.echo(f"one digit: top-1 {image_accuracy(model, single):.1%} of {len(single)} scenes")
    digits = sum(len(scene.digits) for scene in several)
    click.echo(f"two to four digits: {box_accuracy(model, several):.1%} of {digits} boxes, {len(several)} scenes")


if __name__ == "__main__":
    main()
