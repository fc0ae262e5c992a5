"""Published maps for tests: files with what values one likes, and stores whose groups match their shards."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from store.format.schema import StoreSchema
from store.shards.index import index_shard
from store.writer import StoreWriter
from tests.builders.stores import make_labels


def make_tensor(*, top_k: int = 3, cells: tuple[int, int] = (4, 4), num_classes: int = 12, seed: int = 0) -> Tensor:
    """A valid map [2, K, A, B]: random descending scores that float16 holds exactly, ids different in each cell."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(4, 3, (top_k, *cells)).astype(np.float16), axis=0)
    ids = rng.random((num_classes, *cells)).argsort(axis=0)[:top_k]
    return torch.from_numpy(np.stack([scores.astype(np.float32), ids.astype(np.float32)]))


def pt_bytes(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def write_map(root: Path, name: str, content: object | None = None, *, seed: int = 0) -> Path:
    """`<root>/<name>.pt`, a valid map unless told otherwise."""
    path = root / f"{name}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else pt_bytes(make_tensor(seed=seed)))
    return path


def label_shard(labels: Path, shard: Path, schema: StoreSchema, *, seed: int = 0) -> None:
    """Commit random maps for every sample of a shard."""
    index = index_shard(shard, hashed=True)
    data = shard.read_bytes()
    images = [data[sample.offset : sample.offset + sample.length] for sample in index.samples]
    digests = [int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little") for image in images]
    group = replace(
        make_labels(schema, len(images), seed),
        keys=tuple(sample.key for sample in index.samples),
        offsets=np.array([(sample.offset, sample.length) for sample in index.samples], np.uint64),
        digests=np.array(digests, np.uint64),
        labels=np.array([sample.label for sample in index.samples], np.int32),
    )
    tar = index.identity()
    StoreWriter.open(labels, schema).write(index.name, group, tar=tar, provenance={})


class SilentExport:
    """A reporter that says nothing."""

    def exported(self, rows: int) -> None: ...
    def failed(self, reason: str) -> None: ...
