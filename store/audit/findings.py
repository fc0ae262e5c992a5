"""Finding wrong labels: what the label maps of a whole store say against the original labels of its images.

Letters: N images of a group, C classes, P pairs of an image and a class that is present in it.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import AuditSettings, GroupAudit, is_class, present_cells
from store.format.schema import StoreSchema
from store.group import LabelGroup
from store.maps.statistics import SHOWN_COUNTS
from store.reader import StoreFault

# The images that an audit lists: the first of all groups by some order, found group by group in bounded memory.


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
    figures, target = group.figures, int(group.labels[i])
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


# Per class: images with it as original label, as top class, as both; images in which it is present.
CLASS_COUNTS = ("labelled", "on_top", "agree", "present")


@dataclass(kw_only=True, slots=True)
class Audit:
    """Sums and lists over the groups added so far; quarantined rows are only named."""

    schema: StoreSchema
    settings: AuditSettings
    images: int = 0
    without_label: int = 0
    unknown_label: int = 0  # a number that is none of the teacher's classes
    label_present: int = 0  # not the top class, but present somewhere
    images_with_classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SHOWN_COUNTS, np.int64))
    counts: NDArray[np.int64] = field(init=False)  # (4, C) of CLASS_COUNTS
    confusions: Counter[tuple[int, int]] = field(default_factory=Counter)  # original label, top class
    suspicious: TopImages = field(init=False)
    several: TopImages = field(init=False)
    undecodable: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(CLASS_COUNTS), self.schema.num_classes), np.int64)
        self.suspicious, self.several = TopImages(top=self.settings.top), TopImages(top=self.settings.top)

    def add(self, audited: GroupAudit, group: LabelGroup) -> None:
        """Count a group's images, and name its quarantined rows."""
        self.images += len(audited.rows)
        self.undecodable += [
            {"group": group.name, "row": bad.row, "key": bad.key, "reason": bad.reason}
            for bad in group.commit.undecodable
        ]
        self._count_classes(audited)
        self._compare_labels(audited)

    def add_damaged(self, name: str, fault: StoreFault) -> None:
        """Name a group that could not be read; nothing of it was counted."""
        self.damaged.append({"group": name, "problem": str(fault)})

    def _count_classes(self, audited: GroupAudit) -> None:
        figures, num_classes = audited.figures, self.schema.num_classes
        self.counts[1] += np.bincount(figures.top, minlength=num_classes)
        self.counts[3] += np.bincount(figures.present, minlength=num_classes)
        held = np.minimum(figures.classes, SHOWN_COUNTS - 1)
        self.images_with_classes += np.bincount(held, minlength=SHOWN_COUNTS)
        rows = np.flatnonzero(figures.classes > 1)
        self.several.add(audited, self.schema, rows, -figures.classes[rows], -figures.entropy[rows])

    def _compare_labels(self, audited: GroupAudit) -> None:
        figures, labels, num_classes = audited.figures, audited.labels, self.schema.num_classes
        known = is_class(labels, num_classes)
        self.without_label += int((labels < 0).sum())
        self.unknown_label += int((labels >= num_classes).sum())
        agree = known & (labels == figures.top)
        self.counts[0] += np.bincount(labels[known], minlength=num_classes)
        self.counts[2] += np.bincount(labels[agree], minlength=num_classes)
        is_label = figures.present == labels[figures.present_rows]
        present = np.bincount(figures.present_rows[is_label], minlength=len(labels)) > 0
        self.label_present += int((present & ~agree).sum())
        pairs, times = np.unique(np.stack([labels, figures.top], axis=1)[known & ~agree], axis=0, return_counts=True)
        self.confusions.update(dict(zip(map(tuple, pairs.tolist()), times.tolist(), strict=True)))
        # The best cell first: a label that is right for a small part of an image has it, a wrong one has not.
        rows = np.flatnonzero(known & ~agree)
        self.suspicious.add(audited, self.schema, rows, figures.label_best[rows], figures.label_whole[rows])

    def to_json(self) -> dict[str, Any]:
        """All that was found as plain values; docs/audit.md names the fields."""
        labelled, agree = int(self.counts[0].sum()), int(self.counts[2].sum())
        return {
            "images": self.images,
            "fill": self.settings.fill,
            "present": {"probability": self.settings.threshold, "cells": present_cells(self.schema.map_size)},
            "with_label": labelled,
            "without_label": self.without_label,
            "unknown_label": self.unknown_label,
            "label_on_top": agree,
            "label_present": self.label_present,
            "label_contradicted": labelled - agree - self.label_present,
            "images_with_classes": self.images_with_classes.tolist(),
            "suspicious": self.suspicious.to_json(),
            "several_classes": self.several.to_json(),
            "confusions": self._confusions(),
            "classes": self._classes(),
            "quarantined": self.undecodable,
            "damaged": self.damaged,
        }

    def _confusions(self) -> list[dict[str, Any]]:
        """Pairs of original label and another top class, the most frequent first."""
        ordered = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0]))
        name = self.schema.class_name
        return [
            {"label": label, "label_name": name(label), "top": top, "top_name": name(top), "images": times}
            for (label, top), times in ordered
        ]

    def _classes(self) -> list[dict[str, Any]]:
        return [
            {"class": c, "name": self.schema.class_name(c), **dict(zip(CLASS_COUNTS, values, strict=True))}
            for c, values in enumerate(self.counts.T.tolist())
        ]
