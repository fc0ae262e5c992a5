"""Compares a crop's pooled target with the teacher's own probabilities of the crop.

    python -m benchmarks.studies.targets --shards 'photos/*.tar' --labels real.zarr --teacher NAME --input-size 224 ...

The teacher is the one that made the labels. Each random crop is squashed to `--input-size`, best the size of the
teacher's training; its probabilities are compared with the target pooled over the crop's box, over the box with x and y
swapped, and over the whole map.

Shapes: B crops, K kept classes of a cell, C classes, H W cells (y, x).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import shards_option
from store.reader import LabelStore
from store.shards.patterns import expand_shards
from trainer.data.checks import check_rows
from trainer.data.crops import crop_and_resize, draw_crop
from trainer.data.join import join_shards
from trainer.data.samples import SampleReader
from trainer.targets.pooling import pool_logits
from trainer.targets.targets import LabelBatch

TEMPERATURES = (0.25, 0.5, 1.0, 2.0)
BOXES = ("the crop's box", "x and y swapped", "the whole map")


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Agreement of targets with the teacher's probabilities."""

    cross_entropy: float  # minus the mean, under the teacher's probabilities, of the target's logarithm
    same_class: float  # fraction of the crops whose target has the teacher's top-1


def draw_crops(
    shards: Sequence[Path], labels: LabelStore, *, crops: int, size: int, seed: int
) -> tuple[Tensor, LabelBatch]:
    """Random crops of images taken in turn, (B, 3, size, size) uint8, and the images' labels with the crops' boxes."""
    joined = join_shards(shards, labels)
    rows = np.concatenate([shard.start + np.flatnonzero(shard.group.usable()) for shard in joined])
    table = check_rows(joined, num_classes=None, workers=0)
    reader, rng = SampleReader(joined, table, cached_rows=len(rows)), np.random.default_rng(seed)
    samples = list(reader.read(np.resize(rows, crops)))
    pixels, boxes = [], []
    for sample in samples:
        height, width = sample.image.shape[:2]
        box = draw_crop(rng, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
        pixels.append(crop_and_resize(sample.image, box, size, "bicubic"))
        boxes.append(box.normalised(height, width))
    batch = LabelBatch(
        classes=torch.from_numpy(np.stack([sample.classes for sample in samples])),
        scores=torch.from_numpy(np.stack([sample.scores for sample in samples])),
        boxes=torch.tensor(boxes, dtype=torch.float32),
        labels=torch.tensor([sample.label for sample in samples]),
    )
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), batch


@torch.inference_mode()
def ask_teacher(teacher: Teacher, pixels_B3SS: Tensor) -> Tensor:
    """(B, C) the teacher's probabilities of each crop."""
    logits = [teacher.network(teacher.normalise(part)).float() for part in torch.split(pixels_B3SS, 16)]
    return torch.cat(logits).softmax(1).cpu()


def compare(answers_BC: Tensor, batch: LabelBatch, temperature: float) -> dict[str, Agreement]:
    """The agreement for each kind of box."""
    whole_B4 = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand_as(batch.boxes)
    boxes = (batch.boxes, batch.boxes[:, [1, 0, 3, 2]], whole_B4)
    found = {}
    for name, boxes_B4 in zip(BOXES, boxes, strict=True):
        logits_BC = pool_logits(
            batch.classes,
            batch.scores,
            boxes_B4,
            num_classes=answers_BC.shape[1],
        )
        logits_BC /= temperature
        entropies_B = -(answers_BC * logits_BC.log_softmax(1)).sum(1)
        same_B = logits_BC.argmax(1) == answers_BC.argmax(1)
        found[name] = Agreement(cross_entropy=float(entropies_B.mean()), same_class=float(same_B.float().mean()))
    return found


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@click.option("--labels", required=True, help="The store with the teacher's labels of these shards.")
@teacher_options
@click.option("--crops", default=200, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(patterns: tuple[str, ...], labels: str, teacher: TeacherSettings, crops: int, seed: int) -> None:
    """Compare pooled targets with the teacher's probabilities."""
    network, shards = Teacher(teacher), [Path(shard) for shard in expand_shards(patterns)]
    size = network.preprocessing.input_size[0]
    pixels, batch = draw_crops(shards, LabelStore.open(labels), crops=crops, size=size, seed=seed)
    answers = ask_teacher(network, pixels)
    print(f"{teacher.name} at {size} pixels, {crops} random crops of {len(shards)} shards, seed {seed}")
    print("\n| temperature | pooled over | cross-entropy | same class |\n|---|---|---|---|")
    for temperature in TEMPERATURES:
        for box, found in compare(answers, batch, temperature).items():
            print(f"| {temperature:g} | {box} | {found.cross_entropy:.2f} | {found.same_class:.1%} |")


if __name__ == "__main__":
    main()
