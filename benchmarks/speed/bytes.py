"""Bytes that an image's label map takes: in the store, bare, and as one `.pt` file as the published maps are.

    python -m benchmarks.speed.bytes --labels STORE

STORE holds real maps. They are drawn at random into groups of 1,251 rows, another group each run. All ways are
lossless. A published file is a float32 tensor of scores and class ids.
"""

import io

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.scale.data import Plan, draw_groups, read_maps
from benchmarks.speed.store import ROWS
from benchmarks.tables import ratios, table
from store.cli.base import Command
from store.format.arrays import array_specs, encode_array
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.writer import GroupLabels

MAPS = ("classes", "scores")
PT_FILES = 32  # of each group: they are all of almost the same size


def store_bytes(labels: GroupLabels, schema: StoreSchema) -> dict[str, float]:
    """Of each array, for one image."""
    sizes = {}
    for spec in array_specs(schema, ROWS, with_tail=True):
        values = np.array(labels.keys, dtype=object) if spec.name == "keys" else getattr(labels, spec.name)
        sizes[spec.name] = sum(map(len, encode_array(spec, values).values())) / ROWS
    return sizes


def pt_bytes(classes_KHW: NDArray[np.uint16], scores_KHW: NDArray[np.float16]) -> int:
    """Of a file as the published ones are."""
    file = io.BytesIO()
    torch.save(torch.from_numpy(np.stack([scores_KHW, classes_KHW]).astype(np.float32)), file)
    return file.tell()


def mean_file(labels: GroupLabels) -> float:
    """Bytes of a `.pt` file, of the group's first rows."""
    pairs = zip(labels.classes[:PT_FILES], labels.scores[:PT_FILES], strict=True)
    return float(np.mean([pt_bytes(classes, scores) for classes, scores in pairs]))


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1), help="Groups to draw.")
def main(labels: str, runs: int) -> None:
    """Encode some groups."""
    schema, plan = LabelStore.open(labels).schema, Plan(rows=runs * ROWS, groups=runs)
    drawn = [group for _, group, _ in draw_groups(read_maps(labels), schema, plan)]
    sizes = [store_bytes(group, schema) for group in drawn]
    ours = [sum(size[name] for name in MAPS) for size in sizes]
    raw = [float(group.classes[0].nbytes + group.scores[0].nbytes) for group in drawn]
    files = [mean_file(group) for group in drawn]
    height, width = schema.map_size
    print(f"{height} x {width} cells, top {schema.top_k}; classes and scores, without a tail unless named\n")
    table("an image's map", {
        "in the store: bytes": ours,
        "bare: bytes": raw,
        "`.pt` as published: bytes": files,
        "store / bare": ratios(ours, raw),
        "store / `.pt`": ratios(ours, files),
        "in the store, all arrays: bytes": [sum(size.values()) for size in sizes],
        **{f"of it {name}: bytes": [size[name] for size in sizes] for name in sizes[0]},
    })  # fmt: skip


if __name__ == "__main__":
    main()
