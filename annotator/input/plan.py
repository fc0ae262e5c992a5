"""Plan which rows to annotate: skip finished shards, report damaged ones, index the rest one ahead of the teacher."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TypeVar

from annotator.input.leases import Leases
from annotator.input.local_copies import LocalCopies
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
from store.shards.compare import looks_unchanged, refresh_command
from store.shards.errors import shard_errors
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


class Busy:
    """The outcome of a shard that another annotator is working on."""


class Plan:
    """The shards of one run, each indexed while the one before it is annotated.

    Iteration yields the rows of all unfinished shards. `indexes` holds the shards whose rows have been yielded, by the
    path of their local file; the consumer removes a shard when it collects the shard's labels, and releases it when
    they are written. `busy` holds the shards that were left to other annotators; without `leases` there are none.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        store: LabelStore,
        copies: LocalCopies,
        *,
        overwrite: bool,
        reporter: Reporter,
        leases: Leases | None = None,
    ) -> None:
        self.shards, self.store, self.copies, self.leases = shards, store, copies, leases
        self.overwrite, self.reporter = overwrite, reporter
        self.indexes: dict[Path, ShardIndex] = {}
        self.busy: list[Shard] = []
        self._dropped: set[Path] = set()

    def __iter__(self) -> Iterator[RowRef]:
        for index in self.unfinished():
            self.indexes[index.path] = index
            for row, sample in enumerate(index.samples):
                if index.path in self._dropped:
                    break
                yield RowRef(index.source, index.path, row, sample)

    def drop(self, index: ShardIndex) -> None:
        """Yield no more rows of a shard that has failed, and release it."""
        self._dropped.add(index.path)
        self.release(index)

    def release(self, index: ShardIndex) -> None:
        """Remove the local copy of a shard whose rows are no longer needed, and let others have the shard."""
        self.copies.release(index)
        if self.leases is not None:
            self.leases.release(index.name)

    def unfinished(self) -> Iterator[ShardIndex]:
        """The shards that have no labels yet; finished and unreadable shards are reported, busy ones noted."""
        for shard, outcome in _ahead(self._index, self.shards):
            if isinstance(outcome, ShardIndex):
                yield outcome
            elif isinstance(outcome, Busy):
                self.busy.append(shard)
            elif outcome is None:
                self.reporter.skipped(shard)
            else:
                self.reporter.failed(shard, str(outcome))

    def _index(self, shard: Shard) -> ShardIndex | RelabelError | Busy | None:
        """The shard's index, the error that prevents it, or None if the shard has labels already."""
        index: ShardIndex | RelabelError | None
        try:
            if self._is_done(shard):
                return None
            if self.leases is None:
                return self.copies.index(shard)
            if not self.leases.take(shard_name(shard)):
                return Busy()
            index = None if self._is_done(shard) else self.copies.index(shard)  # another may have just finished it
        except (ShardError, DamagedStoreError, StoreReadError) as error:
            index = error
        if self.leases is not None and not isinstance(index, ShardIndex):
            self.leases.release(shard.name.removesuffix(".tar"))
        return index

    def _is_done(self, shard: Shard) -> bool:
        return not self.overwrite and is_done(self.store, shard, self.copies)


def is_done(store: LabelStore, shard: Shard, copies: LocalCopies) -> bool:
    """Whether the store has labels made from this shard: size and time are the same, or the bytes are.

    Raises:
        ChangedShardError: the labels were made from another file of this name.
        ShardError: the shard cannot be read.
        DamagedStoreError, StoreReadError: the labels cannot be read.
    """
    try:
        tar = store.group(shard_name(shard)).commit.tar
    except LabelNotFoundError:
        return False
    with shard_errors(shard):
        now = shard.stat()
        if looks_unchanged(now, tar) or (now.st_size == tar.size and copies.hash(shard) == tar.sha256):
            return True
    raise ChangedShardError(
        f"{shard}: not the shard its labels were made from; to annotate it again, --overwrite with only this shard; "
        f"if its images are the same, {refresh_command(store, shard)}"
    )


def _ahead(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterator[tuple[Shard, T]]:
    """Each shard with the function's result, which is computed while the consumer works on the shard before it.

    Thus the consumer does not wait for the download and the hash of a shard.
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
    """Call the function in a daemon thread, which does not delay the end of a stopped run."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(shard))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=work, name="index", daemon=True).start()
    return future
