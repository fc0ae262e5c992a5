"""Stores, groups and rows as plain values, ready for JSON or for drawing.

Shape letters: K ranks, C classes, H W cells (y, x).
"""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.pooling import Fill, pool_map, softmax
from store.reader import LabelGroup, LabelRow, LabelStore
from store.schema import StoreSchema

Description = dict[str, Any]
SHOWN_CLASSES = 5


def describe_store(store: LabelStore) -> Description:
    """The schema of a store, and each group's rows, quarantined rows and bytes."""
    groups = [
        {"name": group.name, "rows": len(group), "quarantined": len(group.quarantined), "bytes": _bytes(group)}
        for group in store
    ]
    return {
        "path": str(store.path),
        **store.schema.to_attributes(),
        "rows": sum(group["rows"] for group in groups),
        "quarantined": sum(group["quarantined"] for group in groups),
        "bytes": sum(group["bytes"] for group in groups),
        "groups": groups,
    }


def describe_group(group: LabelGroup) -> Description:
    """What the commit record of a group says, with its keys."""
    tar = group.commit.tar
    return {
        "name": group.name,
        "rows": len(group),
        "bytes": _bytes(group),
        "tar": {"size": tar.size, "sha256": tar.sha256},
        "provenance": group.commit.provenance,
        "quarantined": [{"row": bad.row, "key": bad.key, "reason": bad.reason} for bad in group.commit.quarantined],
        "keys": group.keys,
    }


def describe_row(schema: StoreSchema, group: LabelGroup, index: int) -> Description:
    """One label map: the pooled target of the whole image, the dominant classes, and the map itself."""
    row = group.row(index)
    name = schema.class_name(row.target) if 0 <= row.target < schema.num_classes else None
    description: Description = {
        "key": row.key,
        "group": group.name,
        "row": index,
        "target": row.target,
        "target_name": name,
        "quarantined": row.quarantined,
    }
    if row.quarantined is not None:
        return description
    return description | {
        "pooled": _pooled(schema, row),
        "dominant": _dominant(schema, row),
        "classes": row.classes.tolist(),
        "scores": row.scores.tolist(),
        "confidence": cell_confidence(row).tolist(),
    }


def cell_confidence(row: LabelRow) -> NDArray[np.float32]:
    """(H, W) float32: the probability of each cell's first class, exact where the row has a tail."""
    scores = row.scores.astype(np.float32)
    others = np.exp(scores - scores[0]).sum(axis=0)
    if row.tail is not None:
        others = others + np.exp(row.tail.astype(np.float32) - scores[0])
    return np.asarray(1 / others, np.float32)


def _pooled(schema: StoreSchema, row: LabelRow) -> list[Description]:
    """The first classes of the whole image under the default fill, and what each has under the other ones."""
    fills: list[Fill] = ["zero", "min"] if row.tail is None else ["zero", "tail", "min"]
    probabilities = {fill: _whole_image(schema, row, fill) for fill in fills}
    best = np.argsort(-probabilities["zero"], kind="stable")[:SHOWN_CLASSES]
    return [
        {
            "class": int(c),
            "name": schema.class_name(int(c)),
            "probability": {fill: float(values[c]) for fill, values in probabilities.items()},
        }
        for c in best
    ]


def _whole_image(schema: StoreSchema, row: LabelRow, fill: Fill) -> NDArray[np.float32]:
    logits = pool_map(row.classes, row.scores, num_classes=schema.num_classes, fill=fill, tail_HW=row.tail)
    return softmax(logits)


def _dominant(schema: StoreSchema, row: LabelRow) -> list[Description]:
    """The classes that lead in some cell, by how many cells."""
    counts = Counter(row.classes[0].reshape(-1).tolist())
    return [{"class": c, "name": schema.class_name(c), "cells": n} for c, n in counts.most_common()]


def _bytes(group: LabelGroup) -> int:
    return sum(record.size for record in group.commit.objects.values())
