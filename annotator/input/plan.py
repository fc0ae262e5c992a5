"""Which rows there are to annotate: finished shards are skipped, damaged ones reported, the rest indexed."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TypeVar

from annotator.report import Reporter
from store.errors import (
    ChangedShardError,
    DamagedStoreError,
    LabelNotFoundError,
    RelabelError,
    SettingsError,
    ShardError,
    StoreReadError,
)
from store.reader import LabelStore
from store.shards.index import ShardIndex, hash_file, index_shard, shard_name
from store.shards.remote import RemoteShard, Shard

# Local files of the shards being worked on: a local shard itself, or the copy of one that lies behind a URL.
#
# Copies lie in the system's temporary folder (TMPDIR), about four at a time: of the shard being committed, of those
# whose
# rows are under way, and of the one being indexed.


@contextmanager
def reading(shard: Shard) -> Iterator[None]:
    """Turns what a disk or a server refuses into a ShardError that names the shard, and the disk where it is another.

    Raises:
        ShardError: instead of an OSError.
    """
    try:
        yield
    except RelabelError:
        raise
    except OSError as error:
        where = "" if error.filename in (None, str(shard)) else f" ({error.filename})"  # a full TMPDIR
        raise ShardError(f"{shard}: cannot be read: {error.strerror or error}{where}") from error


class LocalCopies:
    """To be used as a context; what it has copied is gone afterwards.

    Raises:
        SettingsError: TMPDIR names no folder that can be written; Python would silently take another.
    """

    def __init__(self) -> None:
        asked = os.environ.get("TMPDIR")
        try:
            # A thread may still be copying when a run is stopped.
            self._folder = tempfile.TemporaryDirectory(prefix="relabel-", dir=asked or None, ignore_cleanup_errors=True)
        except OSError as error:
            raise SettingsError(f"TMPDIR={asked}: {error.strerror}; make that folder writable, or unset it") from error

    def __enter__(self) -> "LocalCopies":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def index(self, shard: Shard) -> ShardIndex:
        """A shard's index, over every byte of a file that lies here.

        Raises:
            ShardError: missing, unreadable or damaged; the message says which.
        """
        if isinstance(shard, Path):
            return index_shard(shard, hashed=True)
        copy = self._path(shard)
        try:
            with reading(shard):
                found = shard.download(copy)
            return replace(index_shard(copy, hashed=True, source=shard), mtime_ns=found.st_mtime_ns)
        except BaseException:
            self._remove(shard)
            raise

    def hash(self, shard: Shard) -> str:
        """Hex sha256 of a shard's bytes; raises OSError where they cannot be read."""
        if isinstance(shard, Path):
            return hash_file(shard)
        try:
            shard.download(self._path(shard))
            return hash_file(self._path(shard))
        finally:
            self._remove(shard)

    def release(self, index: ShardIndex) -> None:
        """The shard's rows are no longer needed."""
        if isinstance(index.source, RemoteShard):
            self._remove(index.source)

    def _path(self, shard: RemoteShard) -> Path:
        return Path(self._folder.name, shard.name)

    def _remove(self, shard: RemoteShard) -> None:
        with suppress(OSError):
            self._path(shard).unlink()


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowRef:
    """One row to annotate, small enough to be sent to a worker process."""

    path: Path
    row: int
    offset: int  # of the image in the tar, bytes
    length: int  # of the image, bytes


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
                yield RowRef(index.path, row, sample.offset, sample.length)

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
