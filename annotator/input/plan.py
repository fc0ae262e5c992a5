"""Plan which rows to annotate: skip finished shards, report damaged ones, index the rest one ahead of the teacher."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from annotator.input.local_copies import LocalCopies, reading
from annotator.report import Reporter
from store.errors import (
    ChangedShardError,
    DamagedStoreError,
    LabelNotFoundError,
    RelabelError,
    ShardError,
    StoreReadError,
)
from store.reader import LabelStore
from store.shards.index import Sample, ShardIndex, shard_name
from store.shards.remote import Shard

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowRef:
    """One row to annotate, small enough to be sent to a worker process."""

    source: Shard  # as the user named it
    path: Path  # of a local file with its bytes
    row: int
    sample: Sample


class Plan:
    """The shards of one run, indexed one ahead of whoever works on them.

    `unfinished` gives the shards in order, iterating their rows. `indexes` holds the shards whose rows were given out,
    by the path of their local file; whoever has finished a shard takes it out and releases it from the spool.
    """

    def __init__(
        self, shards: Iterable[Shard], store: LabelStore, copies: LocalCopies, *, overwrite: bool, reporter: Reporter
    ) -> None:
        self.shards, self.store, self.copies, self.overwrite, self.reporter = shards, store, copies, overwrite, reporter
        self.indexes: dict[Path, ShardIndex] = {}

    def __iter__(self) -> Iterator[RowRef]:
        for index in self.unfinished():
            self.indexes[index.path] = index
            for row, sample in enumerate(index.samples):
                yield RowRef(index.source, index.path, row, sample)

    def unfinished(self) -> Iterator[ShardIndex]:
        """The shards that have no labels yet; the others, and those that cannot be read, go to the reporter."""
        for shard, outcome in _ahead(self._index, self.shards):
            if isinstance(outcome, ShardIndex):
                yield outcome
            elif outcome is None:
                self.reporter.skipped(shard)
            else:
                self.reporter.failed(shard, str(outcome))

    def _index(self, shard: Shard) -> ShardIndex | RelabelError | None:
        """The shard's index, what is wrong with it, or None when its labels are there already."""
        try:
            if not self.overwrite and is_done(self.store, shard, self.copies):
                return None
            return self.copies.index(shard)
        except (ShardError, DamagedStoreError, StoreReadError) as error:
            return error


def is_done(store: LabelStore, shard: Shard, copies: LocalCopies) -> bool:
    """Whether the store has a shard's labels, made from this very file: the same size and time, or the same bytes.

    Raises:
        ChangedShardError: the labels were made from another file of that name.
        ShardError: this one cannot be read.
        DamagedStoreError, StoreReadError: the labels cannot be read.
    """
    try:
        tar = store.group(shard_name(shard)).commit.tar
    except LabelNotFoundError:
        return False
    with reading(shard):
        now = shard.stat()
        unchanged = now.st_mtime_ns != 0 and (now.st_size, now.st_mtime_ns) == (tar.size, tar.mtime_ns)
        if unchanged or (now.st_size == tar.size and copies.hash(shard) == tar.sha256):
            return True
    raise ChangedShardError(
        f"{shard}: not the shard its labels were made from; to annotate it again, --overwrite with only this shard"
    )


def _ahead(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterator[tuple[Shard, T]]:
    """Each shard with what the function makes of it, begun while the shard before it is at work.

    Fetching and hashing a shard takes the time of the network or the disk, not the consumer's.
    """
    pending: tuple[Shard, Future[T]] | None = None
    for shard in shards:
        following = shard, _begin(function, shard)
        if pending is not None:
            yield pending[0], pending[1].result()
        pending = following
    if pending is not None:
        yield pending[0], pending[1].result()


def _begin(function: Callable[[Shard], T], shard: Shard) -> Future[T]:
    """In a thread that nobody waits for when the run is stopped."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(shard))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="index", daemon=True).start()
    return future
