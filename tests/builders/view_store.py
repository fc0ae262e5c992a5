"""A small store with its image shards, to be viewed: hostile keys, hostile class names, one undecodable row."""

from pathlib import Path

import numpy as np
from msgspec.structs import replace

from store.format.schema import CENTRE, Preprocessing, StoreSchema
from store.shards.index import index_shard
from store.writer import GroupLabels, StoreWriter
from tests.builders.stores import PROVENANCE, TAR, make_jpeg, make_labels, make_schema, mark_undecodable, write_tar

EVIL_KEY = "k<script>alert(1)</script>'\"&\x1b[31m\u202e"
EVIL_NAME = "</script><img src=x onerror=alert(2)>\x1b[2J\u202e$\\frac$"
LONG_KEY, LONG_NAME = "g0/" + 90 * "x", 90 * "W"
SYNONYMS = "bighorn, bighorn sheep, cimarron, Rocky Mountain bighorn"  # of class 7, the label of row 4
ROWS = 7
BAD_ROW = 2
WIDTH, HEIGHT = 64, 48


CENTRE_PART = Preprocessing(
    mode=CENTRE, crop_pct=0.5, input_size=(64, 64), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


def view_schema(preprocessing: Preprocessing | None = None) -> StoreSchema:
    schema = make_schema(num_classes=20, top_k=3, map_size=(4, 6))
    names = [f"class {i}" for i in range(20)]
    names[3], names[5], names[7] = EVIL_NAME, LONG_NAME, SYNONYMS
    return replace(schema, class_names=tuple(names), preprocessing=preprocessing or schema.preprocessing)


def shard_keys(seed: int) -> list[str]:
    keys = [f"g{seed}/img{row:03}" for row in range(ROWS)]
    if seed == 0:
        keys[1], keys[6] = EVIL_KEY, LONG_KEY
    return keys


def write_shard(folder: Path, seed: int) -> Path:
    members = []
    for row, key in enumerate(shard_keys(seed)):
        jpeg = make_jpeg(100 * seed + row, width=WIDTH, height=HEIGHT)
        members.append((f"{key}.jpg", b"\xff\xd8\xff broken" if (seed, row) == (0, BAD_ROW) else jpeg))
    return write_tar(folder / f"train-{seed}.tar", members)


def view_labels(seed: int, shard: Path, *, with_tail: bool = True) -> GroupLabels:
    """Labels whose offsets, lengths and digests are the shard's."""
    from store.shards.index import image_digest

    samples = index_shard(shard).samples
    data = shard.read_bytes()
    labels = make_labels(view_schema(), ROWS, seed, with_tail=with_tail)
    fields = {name: getattr(labels, name) for name in GroupLabels.__slots__}
    fields["keys"] = tuple(sample.key for sample in samples)
    fields["offsets"] = np.array([(sample.offset, sample.length) for sample in samples], np.uint64)
    digests = [image_digest(data[sample.offset : sample.offset + sample.length]) for sample in samples]
    fields["digests"] = np.array(digests, np.uint64)
    fields["labels"] = np.array([3, 3, 5, -1, 7, 0, 19], np.int32)
    fields["classes"] = fields["classes"].copy()
    return mark_undecodable(GroupLabels(**fields), BAD_ROW, "damaged JPEG: <b>") if seed == 0 else GroupLabels(**fields)


def write_view_store(folder: Path, groups: int = 2, preprocessing: Preprocessing | None = None) -> tuple[Path, str]:
    """A store of groups `train-0`, `train-1` and so on, the last without a tail; and the pattern of its shards."""
    path = folder / "labels.zarr"
    writer = StoreWriter.open(path, view_schema(preprocessing))
    for seed in range(groups):
        labels = view_labels(seed, write_shard(folder, seed), with_tail=seed != groups - 1)
        writer.write(f"train-{seed}", labels, tar=TAR, provenance=PROVENANCE)
    return path, str(folder / "train-*.tar")
