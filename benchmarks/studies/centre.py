"""What maps of the centre of each image are worth to training: crops drawn everywhere, or in that centre alone.

    python -m benchmarks.studies.centre --shards 'photos/*.tar' --teacher NAME --input-size 480 ...

The teacher makes a map of each image's centre, as timm evaluates, and sees random crops resized to `--crop-size`. Its
probabilities of a crop are compared with the target pooled over the crop's part in the centre, over the crop's box as
if the map were one of the whole image, and, for crops that are drawn in the centre, over their box.

Shape letters: K kept classes of a cell, C classes, H W cells (y, x), h w pixels.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray

from annotator.input.decode import squash
from annotator.settings import TeacherSettings
from annotator.teacher.teacher import Teacher
from pipelines.options import teacher_options
from store.cli.base import Command
from store.cli.options import shards_option
from store.format.schema import CENTRE
from store.maps.pooling import pool_map, softmax
from store.maps.regions import cut_box, cut_image, labelled_region
from store.maps.types import Box
from store.shards.decode import decode_image
from store.shards.images import read_image
from store.shards.index import index_shard
from store.shards.patterns import expand_shards
from trainer.data.crops import IMAGENET_CROPS, crop_and_resize, draw_crop

TOP_K = 5
Pixels = NDArray[np.uint8]


@torch.inference_mode()
def make_map(teacher: Teacher, pixels_hw3: Pixels) -> tuple[NDArray[np.uint16], NDArray[np.float16]]:
    """(K, H, W) classes and scores of one image."""
    logits_1HWC = teacher.head(teacher.features(teacher.normalise(_batch(pixels_hw3))))
    scores_HWK, classes_HWK = logits_1HWC[0].topk(TOP_K, dim=-1)
    scores, classes = (values.permute(2, 0, 1).cpu().numpy() for values in (scores_HWK, classes_HWK))
    return classes.astype(np.uint16), scores.astype(np.float16)


@torch.inference_mode()
def ask(teacher: Teacher, pixels_hw3: Pixels) -> NDArray[np.float32]:
    """(C,) the teacher's probabilities of a crop."""
    return np.asarray(teacher.network(teacher.normalise(_batch(pixels_hw3))).float().softmax(1)[0].cpu(), np.float32)


def _batch(pixels_hw3: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels_hw3.copy()).permute(2, 0, 1)[None]


def compare(target_C: NDArray[np.float32], answer_C: NDArray[np.float32]) -> tuple[float, float]:
    """Cross-entropy in nats, and 1.0 if both have the same top-1."""
    return -float(answer_C @ np.log(np.maximum(target_C, 1e-30))), float(target_C.argmax() == answer_C.argmax())


def measure(
    teacher: Teacher, image: Pixels, crop_pct: float, crops: int, size: int, rng: np.random.Generator
) -> Iterator[tuple[str, tuple[float, float]]]:
    """The figures of some crops of one image, by what was pooled; "outside" crops have none."""
    side = teacher.preprocessing.input_size[0]
    preprocessing = replace(teacher.preprocessing, mode=CENTRE, crop_pct=crop_pct, input_size=(side, side))
    centre, region = cut_image(image, preprocessing), labelled_region(preprocessing, *image.shape[:2])
    classes, scores = make_map(teacher, squash(centre, preprocessing))

    def target(box: Box) -> NDArray[np.float32]:
        return softmax(pool_map(classes, scores, num_classes=teacher.num_classes, box=box))

    for _ in range(crops):
        drawn = draw_crop(rng, *image.shape[:2], **IMAGENET_CROPS)
        box = drawn.normalised(*image.shape[:2])
        answer_C = ask(teacher, crop_and_resize(image, drawn, size, "bilinear"))
        cut = cut_box(box, region)
        if cut is None:
            yield "outside", (np.nan, np.nan)
        else:
            yield "inside" if min(cut) > 0 and max(cut) < 1 else "across", (np.nan, np.nan)
            yield "drawn everywhere, cut to the centre", compare(target(cut), answer_C)
        yield "drawn everywhere, taken for boxes of the map", compare(target(box), answer_C)
        inner = draw_crop(rng, *centre.shape[:2], **IMAGENET_CROPS)
        answer_C = ask(teacher, crop_and_resize(centre, inner, size, "bilinear"))
        yield "drawn in the centre", compare(target(inner.normalised(*centre.shape[:2])), answer_C)


@click.command(cls=Command)
@shards_option("Image shards", required=True)
@teacher_options
@click.option("--crop-pct", default=0.875, show_default=True, help="As timm's.")
@click.option("--crop-size", default=224, show_default=True, help="Pixels of a side.")
@click.option("--crops", default=12, show_default=True, help="Crops of each image.")
@click.option("--seed", default=0, show_default=True)
def main(
    patterns: tuple[str, ...], teacher: TeacherSettings, crop_pct: float, crop_size: int, crops: int, seed: int
) -> None:
    """Compare targets of maps of the centre with the teacher's probabilities."""
    network, rng = Teacher(teacher), np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float]]] = {}
    for path in map(Path, expand_shards(patterns)):
        for sample in index_shard(path).samples:
            image = decode_image(read_image(path, sample))
            for name, figures in measure(network, image, crop_pct, crops, crop_size, rng):
                found.setdefault(name, []).append(figures)
    places = {name: len(found.pop(name, [])) for name in ("inside", "across", "outside")}
    shares = ", ".join(f"{count / sum(places.values()):.1%} {name}" for name, count in places.items())
    print(f"{teacher.name}, crop_pct {crop_pct}, seed {seed}; crops drawn everywhere: {shares}")
    print("\n| crops | number | cross-entropy | same class |\n|---|---|---|---|")
    for name, kept in found.items():
        entropy, same = np.mean(kept, axis=0)
        print(f"| {name} | {len(kept):,} | {entropy:.2f} | {same:.1%} |")


if __name__ == "__main__":
    main()
