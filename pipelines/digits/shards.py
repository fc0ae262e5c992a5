"""Scenes written as WebDataset tars, the same bytes every time."""

import json
import os
from pathlib import Path
from typing import Literal

import numpy as np
import simplejpeg
import webdataset

from pipelines.digits.pools import load_pool
from pipelines.digits.scenes import Scene, draw_scene

Split = Literal["train", "val"]
JPEG_QUALITY = 92


def write_shards(folder: Path, split: Split, scenes_count: int, shards_count: int, seed: int) -> list[Path]:
    """Write a split as `digits-<split>-0000.tar` and so on; what exists already is kept, not compared.

    Each sample has three members: `<key>.jpg`, `<key>.cls` (the label, in ASCII) and `<key>.json` with every
    digit's box and label. A scene's key and content do not depend on the number of shards.

    Args:
        folder: Where to write; made if absent.
        split: Which digits to use.
        scenes_count: Scenes in the whole split.
        shards_count: Tars to spread them over, consecutive scenes together, sizes at most one apart.
        seed: Chooses the scenes.

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
    """Write one tar under a name of this process's own, then rename: a tar with the final name is whole."""
    pool = load_pool(split)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, mtime=0) as writer:
            for index in indices:
                writer.write(_encode(f"{split}-{index:06d}", draw_scene(seed, index, pool)))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
