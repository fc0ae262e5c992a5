"""Groups of label maps: filled row by row from batches, and committed in a thread while the teacher continues.

Shape letters: B batch, N rows, K kept classes, H W cells (y, x).
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from annotator.input.decode import DecodedBatch
from annotator.input.plan import Plan
from annotator.report import Reporter
from annotator.run.rounding import Arrays, Rounding
from annotator.settings import BadLimit
from annotator.teacher.copies import Maps
from store.errors import GroupExistsError, ShardError
from store.format.arrays import NO_CLASS
from store.format.schema import StoreSchema, Undecodable
from store.shards.index import ShardIndex, check_unchanged
from store.text import counted
from store.writer import GroupLabels, StoreWriter


class OpenGroup:
    """The rows of one shard that have been annotated so far; finished when `missing` is 0."""

    def __init__(self, index: ShardIndex, schema: StoreSchema) -> None:
        rows, maps = len(index.samples), (schema.top_k, *schema.map_size)
        self.index = index
        self.classes = np.full((rows, *maps), NO_CLASS, np.uint16)
        self.scores = np.full((rows, *maps), np.nan, np.float16)
        self.tail_logsumexp = np.full((rows, *schema.map_size), np.nan, np.float16)
        self.digests = np.zeros(rows, np.uint64)
        self.undecodable: list[Undecodable] = []
        self.missing = rows
        self.lost: str | None = None  # the reason why the shard could not be read completely

    def labels(self) -> GroupLabels:
        """The finished group."""
        return GroupLabels.of_shard(
            self.index,
            classes=self.classes,
            scores=self.scores,
            tail_logsumexp=self.tail_logsumexp,
            digests=self.digests,
            undecodable=self.undecodable,
        )


class Collector:
    """Distributes the rows of batches, which may span shards, to groups.

    A shard with more undecodable images than allowed fails at once, so that the teacher does not see the rest of it.
    """

    def __init__(self, plan: Plan, schema: StoreSchema, max_bad: BadLimit, reporter: Reporter) -> None:
        self.plan, self.schema, self.max_bad, self.reporter = plan, schema, max_bad, reporter
        self._open: dict[Path, OpenGroup] = {}
        self._round = None if schema.score_step is None else Rounding(schema, schema.score_step, reporter)
        self._sizes: dict[Path, int] = {}  # bytes of the shards, also of those that have failed

    def add(self, batch: DecodedBatch, maps: Maps) -> Iterator[OpenGroup]:
        """Add a batch's rows to their groups and yield the groups that are finished."""
        classes, scores, tail_logsumexp = self._stored(batch, maps)
        for i, ref in enumerate(batch.rows):
            group = self._group(ref.path)
            if group is None:  # its shard has failed, with rows still on their way
                continue
            group.digests[ref.row] = batch.digests[i]
            if i in batch.lost:
                group.lost = group.lost or batch.lost[i]
            elif i in batch.bad:
                key = group.index.samples[ref.row].key
                group.undecodable.append(Undecodable(row=ref.row, key=key, reason=batch.bad[i]))
                self.reporter.undecodable(group.index.source, key, batch.bad[i])
            else:
                group.classes[ref.row], group.scores[ref.row] = classes[i], scores[i]
                group.tail_logsumexp[ref.row] = tail_logsumexp[i]
            group.missing -= 1
            if (problem := self._problem(group)) is not None:
                self._fail(self._open.pop(ref.path), problem)
            elif not group.missing:
                yield self._open.pop(ref.path)
        part = (ref.sample.offset + ref.sample.length) / self._sizes[ref.path]
        self.reporter.annotated(len(batch.rows), ref.source, part)

    def _stored(self, batch: DecodedBatch, maps: Maps) -> Arrays:
        """A batch's classes, scores and tails as they are stored."""
        classes, scores, tail_logsumexp = (part.numpy() for part in maps)
        if self._round is None:
            return classes, scores, tail_logsumexp
        left_out = batch.lost.keys() | batch.bad.keys()
        usable = np.array([i not in left_out for i in range(len(batch.rows))])
        return self._round((classes, scores, tail_logsumexp), usable)

    def _group(self, path: Path) -> OpenGroup | None:
        """The group of a shard; None if the shard has failed."""
        if path not in self._sizes:
            group = self._open[path] = OpenGroup(self.plan.indexes.pop(path), self.schema)
            self._sizes[path] = group.index.size
        return self._open.get(path)

    def _problem(self, group: OpenGroup) -> str | None:
        """Why a shard has too many undecodable images; None if it has not."""
        bad, images = len(group.undecodable), len(group.index.samples)
        if bad == images:
            problem = f"none of its {counted(images, 'image')} can be decoded"
        elif not self.max_bad.allows(bad, images):
            problem = f"already {bad} of its {images} images are undecodable, --max-bad allows {self.max_bad}"
        else:
            return None
        return f"{problem}; the last: {group.undecodable[-1].key}: {group.undecodable[-1].reason}"

    def _fail(self, group: OpenGroup, problem: str) -> None:
        self.plan.drop(group.index)
        self.reporter.failed(group.index.source, f"{group.index.source}: {problem}")


class Committer:
    """Writes finished groups in a thread, one at a time, so that the teacher need not wait; to be used as a context."""

    def __init__(
        self,
        writer: StoreWriter,
        provenance: dict[str, str],
        reporter: Reporter,
        plan: Plan,
        *,
        overwrite: bool,
    ) -> None:
        self.writer, self.provenance = writer, provenance
        self.reporter, self.plan, self.overwrite = reporter, plan, overwrite
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending: tuple[OpenGroup, Future[None]] | None = None

    def __enter__(self) -> "Committer":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._settle()
        finally:
            self._thread.shutdown()

    def report(self) -> None:
        """Report a group whose write has finished since."""
        if self._pending is not None and self._pending[1].done():
            self._settle()

    def commit(self, group: OpenGroup) -> None:
        """Start to write a group, after the previous one is written."""
        self._settle()
        self._pending = group, self._thread.submit(self._write, group)

    def _settle(self) -> None:
        """Wait for the group being written and report its outcome."""
        if self._pending is None:
            return
        (group, future), self._pending = self._pending, None
        shard = group.index.source
        try:
            future.result()
            self.reporter.committed(shard, len(group.index.samples) - len(group.undecodable))
        except GroupExistsError:  # another annotator was faster
            self.reporter.skipped(shard)
        except ShardError as error:
            self.reporter.failed(shard, str(error))
        finally:
            self.plan.release(group.index)

    def _write(self, group: OpenGroup) -> None:
        index = group.index
        if group.lost is not None:
            raise ShardError(group.lost)
        check_unchanged(index)
        self.writer.write(
            index.name,
            group.labels(),
            tar=index.identity(),
            provenance=self.provenance,
            overwrite=self.overwrite,
        )
