"""Writes scenes as WebDataset tars, byte for byte the same each time, and reads back which digits they show."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import webdataset

from pipelines.digits.scenes import Scene, draw_scene, load_pool
from store.files import write_atomically
from store.maps.types import Box

Split = Literal["train", "val"]
JPEG_QUALITY = 92


def write_shards(folder: Path, split: Split, scenes_count: int, shards_count: int, seed: int) -> list[Path]:
    """Write a split as `digits-<split>-0000.tar` and so on; existing tars are kept without comparison.

    Each sample has three members: `<key>.jpg`, `<key>.cls` (the label, in ASCII) and `<key>.json` with every
    digit's box and label. A scene's key and content do not depend on the number of shards.

    Args:
        folder: where to write; made if absent.
        split: which digits to use.
        scenes_count: scenes in the whole split.
        shards_count: tars to spread them over, consecutive scenes together, sizes at most one apart.
        seed: chooses the scenes.

    Returns:
        The tars' paths in order.

    Raises:
        ValueError: If a shard would be empty.
    """
    if not 1 <= shards_count <= scenes_count:
        raise ValueError(f"shards_count {shards_count}: expected 1 to {scenes_count}, one scene a shard or more")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for shard in range(shards_count):
        path = folder / f"digits-{split}-{shard:04d}.tar"
        indices = range(shard * scenes_count // shards_count, (shard + 1) * scenes_count // shards_count)
        if not path.exists():
            _write_shard(path, split, indices, seed)
        paths.append(path)
    return paths


def _write_shard(path: Path, split: Split, indices: range, seed: int) -> None:
    """Write one tar under a temporary name, then rename it, so that a tar of the final name is complete."""
    pool = load_pool(split)
    with write_atomically(path) as stream, webdataset.TarWriter(stream, encoder=False, mtime=0) as writer:
        for index in indices:
            writer.write(_encode(f"{split}-{index:06d}", draw_scene(seed, index, pool)))


def _encode(key: str, scene: Scene) -> dict[str, str | bytes]:
    """Turn a scene into the members of one sample."""
    boxes, labels = [digit.box for digit in scene.digits], [digit.label for digit in scene.digits]
    pixels = np.ascontiguousarray(scene.image)
    return {
        "__key__": key,
        "jpg": simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace="RGB"),
        "cls": str(scene.label).encode(),
        "json": json.dumps({"boxes": boxes, "labels": labels}).encode(),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class SceneTruth:
    """All digits of a scene, for scoring labels and students; training never reads them."""

    key: str
    labels: tuple[int, ...]
    boxes: tuple[Box, ...]  # x1, y1, x2, y2, normalised by the scene

    def labels_touching(self, box: Box) -> set[int]:
        """Digits whose boxes overlap a box."""
        x1, y1, x2, y2 = box
        return {
            label
            for label, (left, top, right, bottom) in zip(self.labels, self.boxes, strict=True)
            if left < x2 and x1 < right and top < y2 and y1 < bottom
        }

    def labels_inside(self, box: Box) -> set[int]:
        """Digits whose boxes are completely inside a box."""
        x1, y1, x2, y2 = box
        return {
            label
            for label, (left, top, right, bottom) in zip(self.labels, self.boxes, strict=True)
            if x1 <= left and y1 <= top and right <= x2 and bottom <= y2
        }


def read_truth(shard: Path) -> Iterator[SceneTruth]:
    """Every scene's digits, from the `.json` members of a shard that `write_shards` wrote."""
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            if extension == "json" and (file := tar.extractfile(member)):
                content = json.load(file)
                boxes = tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in content["boxes"])
                yield SceneTruth(key=key, labels=tuple(content["labels"]), boxes=boxes)
