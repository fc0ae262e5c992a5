"""Stores, groups and rows as plain values, ready for JSON or for drawing.

Shape letters: K ranks, C classes, H W cells (y, x).
"""

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import RelabelError
from store.group import LabelGroup, LabelRow
from store.layout import ArraySpec, array_specs
from store.pooling import Fill, cell_confidence, pool_map, softmax
from store.reader import LabelStore, StoreFault
from store.schema import StoreSchema

Description = dict[str, Any]
SHOWN_CLASSES = 5


def describe_store(store: LabelStore, groups: list[Description]) -> Description:
    """The schema of a store, the sum of its groups from `list_groups`, and how well its arrays are compressed."""
    whole = [entry for entry in groups if entry["damaged"] is None]
    rows = sum(entry["rows"] for entry in whole)
    return {
        "path": str(store),
        **store.schema.to_attributes(),
        "rows": rows,
        "quarantined": sum(entry["quarantined"] for entry in whole),
        "bytes": sum(entry["bytes"] for entry in whole),
        "arrays": [_array_size(spec, whole) for spec in array_specs(store.schema, rows, with_tail=True)],
        "damaged": [entry["name"] for entry in groups if entry["damaged"] is not None],
        "groups": len(groups),
    }


def list_groups(store: LabelStore) -> list[Description]:
    """Each group's rows, quarantined rows and bytes; of a damaged one, what is wrong with it."""
    return [_group_entry(name, group) for name, group in store.survey()]


def _group_entry(name: str, group: LabelGroup | StoreFault) -> Description:
    if isinstance(group, RelabelError):
        return {"name": name, "damaged": str(group)}
    sizes: Counter[str] = Counter()
    for path, record in group.commit.objects.items():
        sizes[path.partition("/")[0]] += record.size
    return {
        "name": name,
        "rows": len(group),
        "quarantined": len(group.quarantined),
        "bytes": sizes.total(),
        "arrays": dict(sizes),
        "damaged": None,
    }


def _array_size(spec: ArraySpec, groups: list[Description]) -> Description:
    """Bytes of one array in all groups, as stored and as they would be without compression."""
    holding = [entry for entry in groups if spec.name in entry["arrays"]]
    stored = sum(entry["arrays"][spec.name] for entry in holding)
    held_rows = sum(entry["rows"] for entry in holding)
    raw = None if spec.dtype == "string" else held_rows * math.prod(spec.shape[1:]) * np.dtype(spec.dtype).itemsize
    return {"name": spec.name, "bytes": stored, "raw_bytes": raw, "rows": held_rows}


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
        "confidence": cell_confidence(row.scores, row.tail).tolist(),
    }


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
