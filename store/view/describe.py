"""Stores, groups, label maps, cells and crops as plain values, for JSON and for the modules that draw them.

Shape letters: K top-k, H W cells (y, x).
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from store.errors import DamagedStoreError, LabelMapError, RelabelError
from store.format.arrays import ArraySpec, array_specs
from store.format.schema import SQUASH, StoreSchema
from store.group import GroupRow, LabelGroup
from store.maps.pooling import cell_confidence, crop_target, has_label
from store.maps.regions import labelled_region
from store.maps.types import WHOLE_IMAGE, Box, LabelRow
from store.reader import LabelStore, StoreFault

Description = dict[str, Any]
SHOWN_CLASSES = 5


def describe_store(store: LabelStore, groups: list[Description]) -> Description:
    """A store's schema, the sums over its groups from `list_groups`, and the size and compression of its arrays."""
    readable = [entry for entry in groups if entry["damaged"] is None]
    rows = sum(entry["rows"] for entry in readable)
    return {
        "path": str(store),
        **store.schema.to_attributes(),
        "rows": rows,
        "quarantined": sum(entry["quarantined"] for entry in readable),
        "bytes": sum(entry["bytes"] for entry in readable),
        "arrays": [_array_size(spec, readable) for spec in array_specs(store.schema, rows, with_tail=True)],
        "damaged": [entry["name"] for entry in groups if entry["damaged"] is not None],
        "groups": len(groups),
    }


def list_groups(store: LabelStore) -> list[Description]:
    """Each group's rows, undecodable rows and bytes, or the problem of a damaged group."""
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
        "quarantined": len(group.undecodable),
        "bytes": sizes.total(),
        "arrays": dict(sizes),
        "damaged": None,
    }


def _array_size(spec: ArraySpec, groups: list[Description]) -> Description:
    """Bytes of one array in all groups, as stored and without compression."""
    holding = [entry for entry in groups if spec.name in entry["arrays"]]
    stored = sum(entry["arrays"][spec.name] for entry in holding)
    held_rows = sum(entry["rows"] for entry in holding)
    raw = None if spec.dtype == "string" else held_rows * math.prod(spec.shape[1:]) * np.dtype(spec.dtype).itemsize
    return {"name": spec.name, "bytes": stored, "raw_bytes": raw, "rows": held_rows}


def describe_group(group: LabelGroup) -> Description:
    """A group's commit record and its keys."""
    tar = group.commit.tar
    return {
        "name": group.name,
        "rows": len(group),
        "bytes": _bytes(group),
        "tar": {"size": tar.size, "sha256": tar.sha256},
        "provenance": group.commit.provenance,
        "quarantined": [{"row": bad.row, "key": bad.key, "reason": bad.reason} for bad in group.commit.undecodable],
        "keys": group.keys,
    }


def refuse_damage(groups: Sequence[Description]) -> None:
    """Raise DamagedStoreError if any of the groups from `list_groups` is damaged."""
    damaged = [group["damaged"] for group in groups if group["damaged"] is not None]
    if damaged:
        raise DamagedStoreError(f"{len(damaged)} of {len(groups)} groups are damaged; the first: {damaged[0]}")


def _bytes(group: LabelGroup) -> int:
    return sum(record.size for record in group.commit.objects.values())


def describe_row(row: GroupRow, image_size: tuple[int, int] | None = None, *, temperature: float = 1.0) -> Description:
    """One label map: the pooled target of all of it, the dominant classes, and the map itself.

    Args:
        row: of a group.
        image_size: height and width in pixels; without it, `region` is None where maps cover the centre of each image.
        temperature: divides the pooled logits before softmax.
    """
    schema = row.group.schema
    name = schema.class_name(row.label) if has_label(schema, row) else None
    description: Description = {
        "key": row.key,
        "group": row.group.name,
        "row": row.number,
        "target": row.label,
        "target_name": name,
        "quarantined": row.undecodable,
    }
    if row.undecodable is not None:
        return description
    known = image_size or ((1, 1) if schema.preprocessing.mode == SQUASH else None)
    return description | {
        "region": None if known is None else list(labelled_region(schema.preprocessing, *known)),
        "temperature": temperature,
        "pooled": _pooled(schema, row, temperature=temperature)[0],
        "dominant": [{"class": c, "name": schema.class_name(c), "cells": cells} for c, cells in top1_cells(row)],
        "classes": row.classes.tolist(),
        "scores": row.scores.tolist(),
        "confidence": cell_confidence(row.scores, row.tail_logsumexp).tolist(),
    }


def describe_cell(schema: StoreSchema, row: LabelRow, y: int, x: int) -> Description:
    """The kept classes of one cell: their scores, and their probabilities, exact where there is a tail.

    Raises:
        LabelMapError: no such cell, or an undecodable image.
    """
    refuse_undecodable(row)
    _, height, width = row.classes.shape
    if not (0 <= y < height and 0 <= x < width):
        raise LabelMapError(
            f"cell {y},{x}: the map has {height} x {width} cells, so y is 0 to {height - 1} and x 0 to {width - 1}"
        )
    scores = row.scores[:, y, x].astype(np.float32)
    top1 = cell_confidence(row.scores, row.tail_logsumexp)[y, x]
    return {
        "cell": [y, x],
        "exact": row.tail_logsumexp is not None,
        "classes": [
            {"class": c, "name": schema.class_name(c), "score": float(score), "probability": float(probability)}
            for c, score, probability in zip(
                row.classes[:, y, x].tolist(), scores, top1 * np.exp(scores - scores[0]), strict=True
            )
        ],
    }


def describe_box(
    schema: StoreSchema,
    row: LabelRow,
    box: Box,
    image_size: tuple[int, int] | None = None,
    *,
    temperature: float = 1.0,
) -> Description:
    """The pooled target of a crop, with its probability of the label.

    Raises:
        LabelMapError: as `crop_target`, or an undecodable image.
    """
    refuse_undecodable(row)
    pooled, label = _pooled(schema, row, box, image_size, temperature=temperature)
    return {"box": list(box), "temperature": temperature, "pooled": pooled, "label": label}


def refuse_undecodable(row: LabelRow) -> None:
    """Raise LabelMapError where the image could not be decoded, so that the row has no label map."""
    if row.undecodable is not None:
        raise LabelMapError(f"{row.key!r} was undecodable and has no label map: {row.undecodable}")


def _pooled(
    schema: StoreSchema,
    row: LabelRow,
    box: Box = WHOLE_IMAGE,
    image_size: tuple[int, int] | None = None,
    *,
    temperature: float,
) -> tuple[list[Description], Description | None]:
    """The largest classes of a crop's target, and its label, each with its probability."""
    target = crop_target(schema, row, box=box, temperature=temperature, image_size=image_size)

    def entry(c: int) -> Description:
        return {"class": c, "name": schema.class_name(c), "probability": float(target[c])}

    best = np.argsort(-target, kind="stable")[:SHOWN_CLASSES]
    return [entry(c) for c in best.tolist()], entry(row.label) if has_label(schema, row) else None


def top1_cells(row: LabelRow) -> list[tuple[int, int]]:
    """The classes that are top-1 in a cell and their cells, most first; colours and letters follow this order."""
    classes, counts = np.unique(row.classes[0], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return list(zip(classes[order].tolist(), counts[order].tolist(), strict=True))
