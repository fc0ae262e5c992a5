"""Stores and groups as plain values, ready for JSON or for drawing."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from store.errors import DamagedStoreError, RelabelError
from store.format.arrays import ArraySpec, array_specs
from store.group import LabelGroup
from store.reader import LabelStore, StoreFault

Description = dict[str, Any]


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


def refuse_damage(groups: Sequence[Description]) -> None:
    """Raise DamagedStoreError if any of the groups from `list_groups` is damaged."""
    damaged = [group["damaged"] for group in groups if group["damaged"] is not None]
    if damaged:
        raise DamagedStoreError(f"{len(damaged)} of {len(groups)} groups are damaged; the first: {damaged[0]}")


def _bytes(group: LabelGroup) -> int:
    return sum(record.size for record in group.commit.objects.values())
