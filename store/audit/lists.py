"""The images that an audit lists: the first of all groups by some order, found group by group in bounded memory."""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import GroupAudit
from store.schema import StoreSchema

Entry = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class TopImages:
    """The `top` images that come first by two figures, the second one deciding between equals."""

    top: int
    entries: list[tuple[float, float, Entry]] = field(default_factory=list)

    def add(
        self, group: GroupAudit, schema: StoreSchema, rows: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any]
    ) -> None:
        """Merge some images of a group.

        Args:
            group: whose images these are.
            schema: of its store.
            rows: (M,) positions in the group's figures.
            first: (M,) the lower, the further up in the list.
            second: (M,) decides where `first` is equal; then the order of groups and rows does.
        """
        best = np.lexsort((second, first))[: self.top].tolist()
        found = [(float(first[i]), float(second[i]), describe_image(group, schema, int(rows[i]))) for i in best]
        # Both are in order, and of equals the earlier groups' come first.
        merged = heapq.merge(self.entries, found, key=lambda entry: entry[:2])
        self.entries = list(merged)[: self.top]

    def to_json(self) -> list[Entry]:
        """The images, first one first."""
        return [entry for _, _, entry in self.entries]


def describe_image(group: GroupAudit, schema: StoreSchema, i: int) -> Entry:
    """One image's figures as plain values; None for what it has no label for."""
    figures, target = group.figures, int(group.targets[i])
    is_known = 0 <= target < schema.num_classes
    present = figures.present[figures.present_rows == i].tolist()
    return {
        "group": group.name,
        "row": int(group.rows[i]),
        "key": group.keys[i],
        "label": target if target >= 0 else None,
        "label_name": schema.class_name(target) if is_known else None,
        "label_whole": float(figures.label_whole[i]) if is_known else None,
        "label_best_cell": float(figures.label_best[i]) if is_known else None,
        "top": int(figures.top[i]),
        "top_name": schema.class_name(int(figures.top[i])),
        "top_probability": float(figures.top_probability[i]),
        "entropy_bits": float(figures.entropy[i]),
        "classes": [{"class": c, "name": schema.class_name(c)} for c in present],
    }
