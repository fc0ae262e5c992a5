"""Measures ImageNet-21k's order of samples, and opening a group with its class names, for docs/scale.md."""

import time
from pathlib import Path
from statistics import median

import numpy as np
from msgspec.structs import replace

from benchmarks.resample import Plan, write_resampled
from store.reader import LabelStore
from trainer.order.sample_order import SampleOrder

IMAGENET_21K = Plan(rows=14_197_122, groups=11_348)  # images of the 2011 release, in groups as large as ImageNet-1k's
CLASSES = 21_841
SMALL = Plan(rows=16 * 64, groups=16)
RUNS = 15


def order_21k() -> float:
    """Seconds to the first batch of one of 64 workers, for which all blocks are counted."""
    sizes = tuple(IMAGENET_21K.sizes())
    order = SampleOrder(group_rows=sizes, undecodable=(), batch_size=1024, seed=0)
    start = time.perf_counter()
    next(order.batches(0, order.owned(rank=0, world=8, worker=0, workers=8)))
    return time.perf_counter() - start


def open_named(given: str, path: Path, classes: int, letters: int) -> float:
    """Milliseconds to open a group of a store with so many class names, which every record's digest covers."""
    schema = LabelStore.open(given).schema
    names = tuple(f"{i:x}".rjust(letters, "-") for i in range(classes))
    schema = replace(schema, num_classes=max(classes, schema.num_classes), class_names=names)
    write_resampled(given, path, SMALL, schema)
    seconds = []
    for _ in range(RUNS):
        store = LabelStore.open(path)
        start = time.perf_counter()
        opened = list(store)
        seconds.append((time.perf_counter() - start) / len(opened))
    return 1e3 * median(seconds)


def mean_name(given: str) -> int:
    """Mean length of the given store's class names; 14 letters if it has none."""
    names = LabelStore.open(given).schema.class_names
    return 14 if names is None else round(float(np.mean([len(name) for name in names])))
