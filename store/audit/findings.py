"""Sums and lists over a whole store: labels that the maps contradict, confusions, statistics of the targets.

Shape letters: N images of a group, C classes, M rows to be listed.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import AuditSettings, GroupAudit, present_cells
from store.format.schema import StoreSchema
from store.group import LabelGroup
from store.maps.notices import score_notice, target_notices
from store.maps.pooling import is_class
from store.reader import StoreFault

Entry = dict[str, Any]
COUNTED_CLASSES = 4  # images with 0, 1, 2, and 3 or more classes
# Per class: images with it as label, as top-1 class, as both; images in which it is present.
CLASS_COUNTS = ("labelled", "on_top", "agree", "present")


@dataclass(kw_only=True, slots=True)
class TopImages:
    """The first `top` images of all groups by two figures, found group by group in bounded memory."""

    top: int
    entries: list[tuple[float, float, Entry]] = field(default_factory=list)

    def add(
        self, group: GroupAudit, schema: StoreSchema, rows: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any]
    ) -> None:
        """Merge some images of a group.

        Args:
            group: the images' group.
            schema: of its store.
            rows: (M,) positions in the group's figures.
            first: (M,) the images are listed in rising order of it.
            second: (M,) orders images of equal `first`; images equal in both keep the store's order.
        """
        best = np.lexsort((second, first))[: self.top].tolist()
        found = [(float(first[i]), float(second[i]), describe_image(group, schema, int(rows[i]))) for i in best]
        # Both lists are in order; heapq.merge keeps images of earlier groups first.
        merged = heapq.merge(self.entries, found, key=lambda entry: entry[:2])
        self.entries = list(merged)[: self.top]

    def to_json(self) -> list[Entry]:
        """The images as plain values, in order."""
        return [entry for _, _, entry in self.entries]


def describe_image(group: GroupAudit, schema: StoreSchema, i: int) -> Entry:
    """One image's figures as plain values; the label's are None where there is no label."""
    figures, label = group.figures, int(group.labels[i])
    is_known = is_class(label, schema.num_classes)
    present = figures.present[figures.present_rows == i].tolist()
    return {
        "group": group.name,
        "row": int(group.rows[i]),
        "key": group.keys[i],
        "label": label if label >= 0 else None,
        "label_name": schema.class_name(label) if is_known else None,
        "label_whole": float(figures.label_whole[i]) if is_known else None,
        "label_best_cell": float(figures.label_best[i]) if is_known else None,
        "top": int(figures.top[i]),
        "top_name": schema.class_name(int(figures.top[i])),
        "top_probability": float(figures.top_probability[i]),
        "entropy_bits": float(figures.entropy[i]),
        "classes": [{"class": c, "name": schema.class_name(c)} for c in present],
    }


@dataclass(kw_only=True, slots=True)
class Audit:
    """Sums and lists over the groups added so far; undecodable rows are listed and not counted."""

    schema: StoreSchema
    settings: AuditSettings
    images: int = 0
    without_label: int = 0
    unknown_label: int = 0  # a number that is none of the teacher's classes
    label_present: int = 0  # not the top-1 class, but present somewhere
    label_top1_in_a_cell: int = 0
    images_with_classes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(COUNTED_CLASSES, np.int64))
    counts: dict[str, NDArray[np.int64]] = field(init=False)  # (C,) for each of CLASS_COUNTS
    seen: NDArray[np.bool_] = field(init=False)  # (C,) top-1 in any cell of any image
    entropies: list[NDArray[np.float32]] = field(default_factory=list)  # (N,) bits, of each group's images
    not_positive: float = 0.0  # sum over the images of the share of cells in which no score is above 0
    confusions: Counter[tuple[int, int]] = field(default_factory=Counter)  # label, top-1 class
    suspicious: TopImages = field(init=False)
    several: TopImages = field(init=False)
    undecodable: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = {name: np.zeros(self.schema.num_classes, np.int64) for name in CLASS_COUNTS}
        self.seen = np.zeros(self.schema.num_classes, np.bool_)
        self.suspicious, self.several = TopImages(top=self.settings.top), TopImages(top=self.settings.top)

    def add(self, audited: GroupAudit, group: LabelGroup) -> None:
        """Count a group's images, and list its undecodable rows."""
        self.images += len(audited.rows)
        self.undecodable += [
            {"group": group.name, "row": bad.row, "key": bad.key, "reason": bad.reason}
            for bad in group.commit.undecodable
        ]
        self._count_classes(audited)
        self._compare_labels(audited)

    def add_damaged(self, name: str, fault: StoreFault) -> None:
        """List a group that could not be read and is not counted."""
        self.damaged.append({"group": name, "problem": str(fault)})

    def _count_classes(self, audited: GroupAudit) -> None:
        figures, num_classes = audited.figures, self.schema.num_classes
        self.counts["on_top"] += np.bincount(figures.top, minlength=num_classes)
        self.counts["present"] += np.bincount(figures.present, minlength=num_classes)
        self.seen |= figures.seen
        self.entropies.append(figures.entropy)
        self.not_positive += float(figures.not_positive.sum())
        held = np.minimum(figures.classes, COUNTED_CLASSES - 1)
        self.images_with_classes += np.bincount(held, minlength=COUNTED_CLASSES)
        rows = np.flatnonzero(figures.classes > 1)
        self.several.add(audited, self.schema, rows, -figures.classes[rows], -figures.entropy[rows])

    def _compare_labels(self, audited: GroupAudit) -> None:
        figures, labels, num_classes = audited.figures, audited.labels, self.schema.num_classes
        known = is_class(labels, num_classes)
        self.without_label += int((labels < 0).sum())
        self.unknown_label += int((labels >= num_classes).sum())
        self.label_top1_in_a_cell += int((known & figures.label_top1).sum())
        agree = known & (labels == figures.top)
        self.counts["labelled"] += np.bincount(labels[known], minlength=num_classes)
        self.counts["agree"] += np.bincount(labels[agree], minlength=num_classes)
        is_label = figures.present == labels[figures.present_rows]
        present = np.bincount(figures.present_rows[is_label], minlength=len(labels)) > 0
        self.label_present += int((present & ~agree).sum())
        pairs, times = np.unique(np.stack([labels, figures.top], axis=1)[known & ~agree], axis=0, return_counts=True)
        self.confusions.update(dict(zip(map(tuple, pairs.tolist()), times.tolist(), strict=True)))
        # By the best cell: a label that is right for a small part of the image has a high probability there.
        rows = np.flatnonzero(known & ~agree)
        self.suspicious.add(audited, self.schema, rows, figures.label_best[rows], figures.label_whole[rows])

    def to_json(self) -> dict[str, Any]:
        """The whole audit as plain values; docs/audit.md names the fields."""
        labelled, agree = int(self.counts["labelled"].sum()), int(self.counts["agree"].sum())
        return {
            "images": self.images,
            "temperature": self.settings.temperature,
            "notices": list(self._notices()),
            "present": {"probability": self.settings.threshold, "cells": present_cells(self.schema.map_size)},
            "with_label": labelled,
            "without_label": self.without_label,
            "unknown_label": self.unknown_label,
            "label_on_top": agree,
            "label_present": self.label_present,
            "label_contradicted": labelled - agree - self.label_present,
            "images_with_classes": self.images_with_classes.tolist(),
            "statistics": self._statistics(),
            "suspicious": self.suspicious.to_json(),
            "several_classes": self.several.to_json(),
            "confusions": self._confusions(),
            "classes": self._classes(),
            "quarantined": self.undecodable,
            "damaged": self.damaged,
        }

    def _notices(self) -> Iterator[str]:
        """What speaks against training with these maps."""
        entropy = sum(float(part.sum()) for part in self.entropies) / self.images if self.images else None
        yield from score_notice(self.not_positive / max(self.images, 1))
        yield from target_notices(
            entropy_bits=entropy,
            most_bits=math.log2(self.schema.num_classes),
            with_label=int(self.counts["labelled"].sum()),
            label_top1=self.label_top1_in_a_cell,
        )

    def _statistics(self) -> dict[str, Any]:
        """Classes seen, labels that are top-1 in at least one cell, entropy of the whole images' targets."""
        present = self.counts["present"]
        most = np.argsort(-present, kind="stable")[: self.settings.top].tolist()
        name = self.schema.class_name
        return {
            "classes_seen": int(self.seen.sum()),
            "classes_never_seen": np.flatnonzero(~self.seen).tolist(),
            "label_top1_in_a_cell": self.label_top1_in_a_cell,
            "entropy_bits": _spread(self.entropies),
            "max_entropy_bits": float(np.log2(self.schema.num_classes)),  # of a uniform target
            "most_seen": [{"class": c, "name": name(c), "images": int(present[c])} for c in most if present[c]],
        }

    def _confusions(self) -> list[dict[str, Any]]:
        """Pairs of a label and another top-1 class, the most frequent first."""
        ordered = sorted(self.confusions.items(), key=lambda item: (-item[1], item[0]))
        name = self.schema.class_name
        return [
            {"label": label, "label_name": name(label), "top": top, "top_name": name(top), "images": times}
            for (label, top), times in ordered
        ]

    def _classes(self) -> list[dict[str, Any]]:
        return [
            {"class": c, "name": self.schema.class_name(c)} | {name: int(n[c]) for name, n in self.counts.items()}
            for c in range(self.schema.num_classes)
        ]


def _spread(parts: list[NDArray[np.float32]]) -> dict[str, float] | None:
    """Mean and percentiles of values; None where there are none."""
    values = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(values):
        return None
    return {"mean": float(values.mean()), **{f"p{q}": float(np.percentile(values, q)) for q in (5, 50, 95)}}
