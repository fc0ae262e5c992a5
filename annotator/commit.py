"""Committing finished groups while the teacher goes on."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from annotator.collect import OpenGroup
from annotator.input.plan import Spool
from annotator.report import Reporter
from store.errors import GroupExistsError, ShardError
from store.schema import StoreSchema, TarIdentity
from store.shards import check_unchanged
from store.writer import write_group


class Committer:
    """Writes finished groups in a thread of its own, one at a time, so that the teacher need not wait."""

    def __init__(
        self,
        labels: Path | str,
        schema: StoreSchema,
        provenance: dict[str, str],
        reporter: Reporter,
        spool: Spool,
        *,
        overwrite: bool,
    ) -> None:
        self.labels, self.schema, self.provenance = labels, schema, provenance
        self.reporter, self.spool, self.overwrite = reporter, spool, overwrite
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
        """Tell of a group that has reached the disk since."""
        if self._pending is not None and self._pending[1].done():
            self._settle()

    def commit(self, group: OpenGroup) -> None:
        """Start to write a group, after the one before it is on the disk."""
        self._settle()
        self._pending = group, self._thread.submit(self._write, group)

    def _settle(self) -> None:
        """Wait for the group being written and report what became of it."""
        if self._pending is None:
            return
        (group, future), self._pending = self._pending, None
        shard = group.index.source
        try:
            future.result()
            self.reporter.committed(shard, len(group.index.samples) - len(group.quarantined))
        except GroupExistsError:  # another annotator was quicker
            self.reporter.skipped(shard)
        except ShardError as error:
            self.reporter.failed(shard, str(error))
        finally:
            self.spool.release(group.index)

    def _write(self, group: OpenGroup) -> None:
        index = group.index
        if group.lost is not None:
            raise ShardError(f"{index.source}: cannot be read: {group.lost}")
        check_unchanged(index)
        write_group(
            self.labels,
            index.name,
            group.labels(),
            schema=self.schema,
            tar=TarIdentity(size=index.size, mtime_ns=index.mtime_ns, sha256=index.sha256 or ""),
            provenance=self.provenance,
            overwrite=self.overwrite,
        )
