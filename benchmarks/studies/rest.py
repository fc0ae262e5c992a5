"""Compares values for the classes that a cell does not keep: distance of crops' targets from those of all logits.

    python -m benchmarks.studies.rest --shards 'photos/*.tar' --teacher NAME --input-size 224 ...

The teacher's logits are taken as they are, as log-probabilities, and as log-odds, which is what training with binary
cross-entropy gives: the same predictions, on three scales. Then bytes and distances of centred scores that are rounded
(`relabel-annotate run --score-step`).

Letters: N images, K kept classes of a cell, C classes, H W cells (y, x).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from annotator.run.rounding import round_to
from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import shards_option
from store.format.arrays import array_specs, encode_array
from store.format.schema import Preprocessing, StoreSchema, TeacherIdentity
from store.maps.pooling import axis_weights, pool_map, softmax
from store.maps.types import Box
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import index_shard
from store.shards.patterns import expand_shards
from trainer.data.crops import IMAGENET_CROPS, draw_crop

Floats = NDArray[np.float32]
Logits = NDArray[np.float32]  # (H, W, C)
STEPS = (None, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Kept:
    """The top K logits of each cell of one image, and three figures of the others."""

    classes: NDArray[np.int64]  # (K, H, W)
    scores: Floats  # (K, H, W)
    mean: Floats  # (H, W)
    tail: Floats  # (H, W) log-sum-exp less the logarithm of their number: the tail's mass, spread evenly


REST: dict[str, Callable[[Kept], Floats]] = {
    "mean of the others": lambda kept: kept.mean,
    "0": lambda kept: np.zeros_like(kept.mean),
    "tail spread evenly": lambda kept: kept.tail,
    "lowest kept score": lambda kept: kept.scores[-1],
}


def log_odds(log_p: Logits) -> Logits:
    """The logarithm of p / (1 - p)."""
    return log_p - np.log(-np.expm1(np.minimum(log_p, -1e-6)))


def log_softmax(logits: Logits) -> Logits:
    """Log-probabilities of each cell."""
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)), np.float32)


SCALES: dict[str, Callable[[Logits], Logits]] = {
    "logits": lambda logits: logits,
    "log p": log_softmax,
    "log odds": lambda logits: log_odds(log_softmax(logits)),
}


def keep(logits_HWC: Logits, top_k: int) -> Kept:
    """Split the logits of an image into the kept ones and figures of the others."""
    order = np.argsort(-logits_HWC, axis=-1, kind="stable")
    ordered = np.take_along_axis(logits_HWC, order, axis=-1)
    others = ordered[..., top_k:].astype(np.float64)
    return Kept(
        classes=order[..., :top_k].transpose(2, 0, 1),
        scores=ordered[..., :top_k].transpose(2, 0, 1),
        mean=others.mean(-1).astype(np.float32),
        tail=(np.logaddexp.reduce(others, axis=-1) - np.log(others.shape[-1])).astype(np.float32),
    )


def kept_target(kept: Kept, rest_HW: Floats, box: Box, num_classes: int) -> Floats:
    """The target of a crop where every other class has the logit `rest_HW` in its cell.

    Softmax ignores a shift of all classes, so the kept scores less that logit, with 0 for the others, give the same.
    """
    shifted = kept.scores - rest_HW
    return softmax(
        pool_map(kept.classes.astype(np.uint16), shifted.astype(np.float16), num_classes=num_classes, box=box)
    )


def full_target(logits_HWC: Logits, box: Box) -> Floats:
    """The target of a crop from all logits."""
    height, width, _ = logits_HWC.shape
    down_H, across_W = axis_weights(box[1], box[3], height)[0], axis_weights(box[0], box[2], width)[0]
    return softmax(np.einsum("h,w,hwc->c", down_H, across_W, logits_HWC).astype(np.float32))


def distance(found: Floats, expected: Floats) -> float:
    """Total variation: half the sum of the absolute differences; 0 equal, 1 disjoint."""
    return float(np.abs(found - expected).sum(dtype=np.float64) / 2)


def measure(logits: Sequence[Logits], boxes: Sequence[Sequence[Box]], top_k: int) -> dict[str, dict[str, float]]:
    """Mean distance of all crops by the other classes' value and the scale of the logits."""
    sums = {rest: dict.fromkeys(SCALES, 0.0) for rest in REST}
    for logits_HWC, of_image in zip(logits, boxes, strict=True):
        for scale, convert in SCALES.items():
            scaled = convert(logits_HWC)
            kept = keep(scaled, top_k)
            for box in of_image:
                full = full_target(scaled, box)
                for rest, value in REST.items():
                    found = kept_target(kept, value(kept), box, scaled.shape[-1])
                    sums[rest][scale] += distance(found, full)
    crops = sum(map(len, boxes))
    return {rest: {scale: total / crops for scale, total in by_scale.items()} for rest, by_scale in sums.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class StepFigures:
    """Figures of one step: bytes an image, and mean distances of targets."""

    scores: float
    tail: float
    from_lossless: float
    from_all: float  # logits


def measure_steps(
    logits: Sequence[Logits], boxes: Sequence[Sequence[Box]], top_k: int
) -> dict[float | None, StepFigures]:
    """Bytes of the stored arrays by the step of rounding, and distances of the crops' targets."""
    kept = [keep(logits_HWC, top_k) for logits_HWC in logits]
    centred = [(one.scores - one.mean).astype(np.float16) for one in kept]
    others = logits[0].shape[-1] - top_k
    tails = [(one.tail + np.log(others) - one.mean).astype(np.float16) for one in kept]
    full = [
        [full_target(logits_HWC, box) for box in of_image] for logits_HWC, of_image in zip(logits, boxes, strict=True)
    ]
    found: dict[float | None, StepFigures] = {}
    lossless = _pooled(kept, centred, boxes, logits[0].shape[-1])
    for step in STEPS:
        scores, tail = (
            [part if step is None else round_to(part, step) for part in parts] for parts in (centred, tails)
        )
        targets = _pooled(kept, scores, boxes, logits[0].shape[-1])
        found[step] = StepFigures(
            scores=_bytes("scores", scores),
            tail=_bytes("tail", tail),
            from_lossless=_mean_distance(targets, lossless),
            from_all=_mean_distance(targets, full),
        )
    return found


def _pooled(
    kept: Sequence[Kept], scores: Sequence[NDArray[np.float16]], boxes: Sequence[Sequence[Box]], num_classes: int
) -> list[list[Floats]]:
    return [
        [softmax(pool_map(one.classes.astype(np.uint16), part, num_classes=num_classes, box=box)) for box in of_image]
        for one, part, of_image in zip(kept, scores, boxes, strict=True)
    ]


def _mean_distance(found: Sequence[Sequence[Floats]], expected: Sequence[Sequence[Floats]]) -> float:
    return float(
        np.mean([distance(*pair) for pairs in zip(found, expected, strict=True) for pair in zip(*pairs, strict=True)])
    )


def _bytes(name: str, maps: Sequence[NDArray[np.float16]]) -> float:
    """Bytes an image of an array of a store."""
    values = np.stack(maps)
    schema = StoreSchema(
        score_kind="centred_logit",
        teacher=TeacherIdentity(architecture="any", arguments={}, digest=""),
        preprocessing=Preprocessing(input_size=(1, 1), interpolation="bicubic", mean=(0.0,), std=(1.0,)),
        num_classes=1000,
        top_k=values.shape[1] if values.ndim == 4 else 1,
        map_size=(values.shape[-2], values.shape[-1]),
    )
    spec = next(spec for spec in array_specs(schema, len(values), with_tail=True) if spec.name == name)
    return sum(map(len, encode_array(spec, values).values())) / len(values)


def draw_boxes(rng: np.random.Generator, sizes: Sequence[tuple[int, int]], crops: int) -> list[list[Box]]:
    """Random crops of images of these heights and widths, drawn as in training."""
    return [
        [draw_crop(rng, height, width, **IMAGENET_CROPS).normalised(height, width) for _ in range(crops)]
        for height, width in sizes
    ]


@torch.inference_mode()
def all_logits(teacher: Teacher, images: Sequence[NDArray[np.uint8]]) -> list[Logits]:
    """(H, W, C) logits of each image, squashed to the teacher's input size."""
    from PIL import Image

    height, width = teacher.preprocessing.input_size
    resampling = Image.Resampling[teacher.preprocessing.interpolation.upper()]
    found = []
    for image in images:
        pixels = np.array(Image.fromarray(image).resize((width, height), resampling))
        features = teacher.features(teacher.normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
        found.append(teacher.head(features)[0].cpu().numpy())
    return found


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@teacher_options
@click.option("--crops", default=4, show_default=True, help="Random crops of each image.")
@click.option("--top-k", default=5, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(patterns: tuple[str, ...], teacher: TeacherSettings, crops: int, top_k: int, seed: int) -> None:
    """Compare the values, and then the steps."""
    network = Teacher(teacher)
    indexes = [index_shard(Path(shard)) for shard in expand_shards(patterns)]
    images = [decode_image(read_image(index.path, sample)) for index in indexes for sample in index.samples]
    boxes = draw_boxes(np.random.default_rng(seed), [image.shape[:2] for image in images], crops)
    logits = all_logits(network, images)
    size = " x ".join(map(str, network.preprocessing.input_size))
    print(f"{teacher.name} at {size} px, {len(images)} images, {crops} crops of each, K {top_k}, seed {seed}\n")
    found = measure(logits, boxes, top_k)
    print("| other classes |", " | ".join(SCALES), "|\n|---|" + "---|" * len(SCALES))
    for rest, by_scale in found.items():
        print(f"| {rest} |", " | ".join(f"{value:.3f}" for value in by_scale.values()), "|")
    print("\n| step | bytes of scores | of tail | distance from lossless | from all logits |\n|---|---|---|---|---|")
    for step, figures in measure_steps(logits, boxes, top_k).items():
        name = "lossless" if step is None else f"1/{1 / step:g}"
        print(f"| {name} | {figures.scores:,.0f} | {figures.tail:,.0f} | {figures.from_lossless:.4f} |", end=" ")
        print(f"{figures.from_all:.4f} |")


if __name__ == "__main__":
    main()
