"""Putting annotated rows into their groups; a group is finished when its last row has come.

Shape letters: B batch, N rows, K ranks, H W cells (y, x).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from annotator.input.decode import DecodedBatch
from annotator.input.plan import Plan
from annotator.pending import Maps
from annotator.report import Reporter
from store.labels import GroupLabels
from store.layout import NO_CLASS
from store.schema import Quarantined, StoreSchema
from store.shards import ShardIndex


class OpenGroup:
    """The rows of one shard that have come so far."""

    def __init__(self, index: ShardIndex, schema: StoreSchema) -> None:
        rows, maps = len(index.samples), (schema.top_k, *schema.map_size)
        self.index = index
        self.classes = np.full((rows, *maps), NO_CLASS, np.uint16)
        self.scores = np.full((rows, *maps), np.nan, np.float16)
        self.tail = np.full((rows, *schema.map_size), np.nan, np.float16)
        self.digests = np.zeros(rows, np.uint64)
        self.quarantined: list[Quarantined] = []
        self.missing = rows
        self.lost: str | None = None  # why the shard could not be read to its end

    def labels(self) -> GroupLabels:
        """The finished group."""
        samples = self.index.samples
        return GroupLabels(
            classes=self.classes,
            scores=self.scores,
            tail=self.tail,
            keys=tuple(sample.key for sample in samples),
            offsets=np.array([(sample.offset, sample.length) for sample in samples], np.uint64),
            digests=self.digests,
            targets=np.array([sample.label for sample in samples], np.int32),
            quarantined=tuple(self.quarantined),
        )


class Collector:
    """Sorts batches that span shards into groups."""

    def __init__(self, plan: Plan, schema: StoreSchema, reporter: Reporter) -> None:
        self.plan, self.schema, self.reporter = plan, schema, reporter
        self._open: dict[Path, OpenGroup] = {}

    def add(self, batch: DecodedBatch, maps: Maps) -> Iterator[OpenGroup]:
        """Put a batch's rows into their groups and give out those that are finished."""
        classes, scores, tail = (part.numpy() for part in maps)
        for i, ref in enumerate(batch.rows):
            group = self._group(ref.path)
            group.digests[ref.row] = batch.digests[i]
            if i in batch.lost:
                group.lost = group.lost or batch.lost[i]
            elif i in batch.bad:
                key = group.index.samples[ref.row].key
                group.quarantined.append(Quarantined(row=ref.row, key=key, reason=batch.bad[i]))
                self.reporter.quarantined(group.index.source, key, batch.bad[i])
            else:
                group.classes[ref.row], group.scores[ref.row] = classes[i], scores[i]
                group.tail[ref.row] = tail[i]
            group.missing -= 1
            if not group.missing:
                yield self._open.pop(ref.path)
        self.reporter.annotated(len(batch.rows), group.index.source, (ref.offset + ref.length) / group.index.size)

    def _group(self, path: Path) -> OpenGroup:
        if path not in self._open:
            self._open[path] = OpenGroup(self.plan.indexes.pop(path), self.schema)
        return self._open[path]
