"""Compares the bytes of an image's label map in the store, as bare arrays, and as a `.pt` file as published.

    python -m benchmarks.speed.bytes --labels STORE

STORE holds real maps. They are drawn at random into groups of 1,251 rows, another group for each run. All ways are
lossless. A published file is a float32 tensor of scores and class ids.
"""

import io
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import ratios, table
from benchmarks.resample import GROUP_ROWS, Plan, draw_groups, read_maps
from store.cli.base import Command
from store.format.schema import CommitRecord
from store.reader import LabelStore
from store.writer import GroupLabels, StoreWriter

MAPS = ("classes", "scores")
PT_FILES = 32  # files measured of each group; all have almost the same size


def store_bytes(record: CommitRecord) -> dict[str, float]:
    """Bytes of each array of a group, divided by its rows."""
    sizes: dict[str, float] = {}
    for path, written in record.objects.items():
        array = path.partition("/")[0]
        sizes[array] = sizes.get(array, 0) + written.size / record.rows
    return sizes


def pt_bytes(classes_KHW: NDArray[np.uint16], scores_KHW: NDArray[np.float16]) -> int:
    """Bytes of a `.pt` file of one image, as published."""
    file = io.BytesIO()
    torch.save(torch.from_numpy(np.stack([scores_KHW, classes_KHW]).astype(np.float32)), file)
    return file.tell()


def mean_file(labels: GroupLabels) -> float:
    """Mean bytes of the `.pt` files of a group's first rows."""
    pairs = zip(labels.classes[:PT_FILES], labels.scores[:PT_FILES], strict=True)
    return float(np.mean([pt_bytes(classes, scores) for classes, scores in pairs]))


@click.command(cls=Command)
@click.option("--labels", required=True, help="A store of real label maps.")
@click.option("--runs", default=7, show_default=True, type=click.IntRange(1), help="Groups to write.")
def main(labels: str, runs: int) -> None:
    """Write some groups and print their sizes."""
    schema, plan = LabelStore.open(labels).schema, Plan(rows=runs * GROUP_ROWS, groups=runs)
    drawn, sizes = [], []
    with TemporaryDirectory() as folder:
        writer = StoreWriter.open(Path(folder) / "labels.zarr", schema)
        for name, group, tar in draw_groups(read_maps(labels), schema, plan):
            sizes.append(store_bytes(writer.write(name, group, tar=tar, provenance={})))
            drawn.append(group)
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
