"""The demo's teacher: a plain classifier of single digits, whose weights are shipped as `teacher.safetensors`.

    python -m pipelines.digits.teacher train      # trains it again and replaces its weights, about four minutes
    python -m pipelines.digits.teacher measure    # its accuracy on digits that it was not trained on

Shapes: B batch, N images, D features, C classes, H W cells (y, x), S side of a scene.
"""

from pathlib import Path

import click
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from pipelines.digits.scenes import CLASS_NAMES, SCENE_SIZE, Scene, draw_scene, load_pool
from store.cli.base import CONTEXT, Commands

TEACHER_NAME = "test_resnet"
TEACHER_ARGS = {"output_stride": 8}  # 120 pixels become 15 x 15 cells
TEACHER_WEIGHTS = Path(__file__).with_name("teacher.safetensors")
INPUT_SIZE = SCENE_SIZE
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)

SEED = 0
SCENES = 6000
BATCH = 32
LEARNING_RATE = 4e-3
# Side of each epoch's crops. First small ones: the digit fills the crop, so that the mean over all cells shows which
# cells matter. Then larger ones: cells over background learn to give low logits.
CROP_SIZES = (64,) * 7 + (96,) * 2


def create_teacher() -> nn.Module:
    """Create the teacher's architecture with random weights."""
    model: nn.Module = timm.create_model(TEACHER_NAME, num_classes=len(CLASS_NAMES), **TEACHER_ARGS)
    return model


def load_teacher(path: Path = TEACHER_WEIGHTS) -> nn.Module:
    """Load the teacher in float32, ready to evaluate.

    Args:
        path: safetensors file of its float16 weights.

    Raises:
        RuntimeError: If the file's tensors are not exactly the architecture's.
    """
    model = create_teacher()
    model.load_state_dict(load_file(path), strict=True)
    return model.eval()


def normalise(images: Tensor) -> Tensor:
    """Scale (B, 3, S, S) uint8 images to the float32 that the teacher expects; all channels have one mean and std."""
    return (images.float() / 255 - MEAN[0]) / STD[0]


def stack_images(scenes: list[Scene]) -> Tensor:
    """Stack the scenes' images as (N, 3, S, S) uint8."""
    return torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).contiguous()


def train_teacher() -> nn.Module:
    """Train on scenes with one digit, all of the teacher's pool; gives the model in evaluation mode."""
    torch.manual_seed(SEED)
    pool = load_pool("teacher")
    scenes = [draw_scene(SEED, index, pool, digits_max=1) for index in range(SCENES)]
    images = stack_images(scenes)
    boxes = torch.tensor([scene.digits[0].box for scene in scenes]).mul(SCENE_SIZE).round().long()
    labels = torch.tensor([scene.label for scene in scenes])
    model = create_teacher().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    batches = SCENES // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, LEARNING_RATE, total_steps=batches * len(CROP_SIZES), pct_start=0.15
    )
    for epoch, size in enumerate(CROP_SIZES):
        losses = []
        for rows in torch.randperm(SCENES)[: batches * BATCH].view(batches, BATCH):
            batch = normalise(_crop(images[rows], boxes[rows], size))
            losses.append(_step(model, optimiser, batch, labels[rows]))
            schedule.step()
        click.echo(f"epoch {epoch + 1} of {len(CROP_SIZES)}, crops of {size}: loss {np.mean(losses):.3f}")
    return model.eval()


def _step(model: nn.Module, optimiser: torch.optim.Optimizer, batch: Tensor, labels: Tensor) -> float:
    """Take one step on a batch (B, 3, S, S) float32 with labels (B,) int64; returns its loss."""
    loss = functional.cross_entropy(model(batch), labels, label_smoothing=0.05)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.item()


def _crop(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Random crops (B, 3, size, size) that contain the whole digit; boxes (B, 4) int64 in pixels."""
    x1, y1, x2, y2 = boxes.unbind(1)
    lefts, tops = _crop_start(x1, x2, size), _crop_start(y1, y2, size)
    corners = zip(images, tops.tolist(), lefts.tolist(), strict=True)
    return torch.stack([image[:, top : top + size, left : left + size] for image, top, left in corners])


def _crop_start(low: Tensor, high: Tensor, size: int) -> Tensor:
    """Random starts, (B,) int64, of crops along one axis that contain low..high and stay inside the scene."""
    first, last = (high - size).clamp(min=0), low.clamp(max=SCENE_SIZE - size)
    return first + (torch.rand(len(low)) * (last - first + 1)).long()


def label_maps(model: nn.Module, scenes: list[Scene]) -> NDArray[np.float32]:
    """Apply the teacher's features and its linear head at every cell.

    Args:
        model: the teacher, in evaluation mode.
        scenes: at least one.

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
    """Fraction of the scenes whose label has the highest mean logit."""
    guesses = label_maps(model, scenes).mean(axis=(1, 2)).argmax(axis=1)
    return float(np.mean([guess == scene.label for guess, scene in zip(guesses, scenes, strict=True)]))


def box_accuracy(model: nn.Module, scenes: list[Scene]) -> float:
    """Fraction of the digits that have the highest mean logit in their own box; cells are weighted by overlap."""
    hits = []
    for map_HWC, scene in zip(label_maps(model, scenes), scenes, strict=True):
        for digit in scene.digits:
            x1, y1, x2, y2 = digit.box
            rows, columns = _overlaps(y1, y2, map_HWC.shape[0]), _overlaps(x1, x2, map_HWC.shape[1])
            hits.append(np.einsum("h,w,hwc->c", rows, columns, map_HWC).argmax() == digit.label)
    return float(np.mean(hits))


def _overlaps(low: float, high: float, cells: int) -> NDArray[np.float64]:
    """Overlap of each cell along one axis with low..high, (cells,), as a fraction of the axis."""
    starts = np.arange(cells) / cells
    inside: NDArray[np.float64] = np.minimum(starts + 1 / cells, high) - np.maximum(starts, low)
    return inside.clip(min=0)


@click.group(cls=Commands, context_settings=CONTEXT)
def main() -> None:
    """Train the demo's teacher again, or measure the one that is shipped."""
    torch.set_num_threads(2)


@main.command()
def train() -> None:
    """Train the teacher and write its weights, as float16, over the shipped ones."""
    state = train_teacher().state_dict()
    half = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    save_file(half, TEACHER_WEIGHTS)
    click.echo(f"wrote {TEACHER_WEIGHTS}, {TEACHER_WEIGHTS.stat().st_size:,} bytes")


@main.command()
@click.option("--scenes", default=1000, show_default=True, help="Scenes of each kind.")
def measure(scenes: int) -> None:
    """Measure the shipped teacher on scenes of the val pool, with one digit and with several."""
    model, pool = load_teacher(), load_pool("val")
    single = [draw_scene(101, index, pool, digits_max=1) for index in range(scenes)]
    drawn = (draw_scene(102, index, pool) for index in range(scenes))
    several = [scene for scene in drawn if len(scene.digits) > 1]
    click.echo(f"one digit: top-1 {image_accuracy(model, single):.1%} of {len(single)} scenes")
    digits = sum(len(scene.digits) for scene in several)
    click.echo(f"two to four digits: {box_accuracy(model, several):.1%} of {digits} boxes, {len(several)} scenes")


if __name__ == "__main__":
    main()
