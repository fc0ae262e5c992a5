"""Which rows there are to annotate: finished shards are skipped, damaged ones reported, the rest indexed."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from annotator.report import Reporter
from store.errors import DamagedStoreError, LabelNotFoundError, RelabelError, ShardError, StoreReadError
from store.reader import LabelStore
from store.shards import ShardIndex, hash_file, index_shard, shard_name


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
    by path; whoever has finished a shard takes it out.
    """

    def __init__(self, shards: Sequence[Path], store: LabelStore, *, overwrite: bool, reporter: Reporter) -> None:
        self.shards, self.store, self.overwrite, self.reporter = shards, store, overwrite, reporter
        self.indexes: dict[Path, ShardIndex] = {}

    def __iter__(self) -> Iterator[RowRef]:
        for index in self.unfinished():
            self.indexes[index.path] = index
            for row, sample in enumerate(index.samples):
                yield RowRef(index.path, row, sample.offset, sample.length)

    def unfinished(self) -> Iterator[ShardIndex]:
        """The shards that have no labels yet; the others, and those that cannot be read, go to the reporter."""
        # Hashing a shard takes the disk's time, not the consumer's: the next one is read meanwhile.
        with ThreadPoolExecutor(1, thread_name_prefix="index") as ahead:
            pending = ahead.submit(self._index, self.shards[0])
            for path, following in zip(self.shards, [*self.shards[1:], None], strict=True):
                outcome = pending.result()
                if following is not None:
                    pending = ahead.submit(self._index, following)
                if isinstance(outcome, ShardIndex):
                    yield outcome
                elif outcome is None:
                    self.reporter.skipped(path)
                else:
                    self.reporter.failed(path, str(outcome))

    def _index(self, path: Path) -> ShardIndex | RelabelError | None:
        """The shard's index, what is wrong with it, or None when its labels are there already."""
        try:
            if not self.overwrite and is_done(self.store, path):
                return None
            return index_shard(path, hashed=True)
        except (ShardError, DamagedStoreError, StoreReadError) as error:
            return error


def is_done(store: LabelStore, path: Path) -> bool:
    """Whether the store has a shard's labels, made from this very file: the same size and time, or the same bytes.

    Raises:
        ShardError: the labels were made from another file of that name, or this one cannot be read.
        DamagedStoreError, StoreReadError: the labels cannot be read.
    """
    try:
        tar = store.group(shard_name(path)).commit.tar
    except LabelNotFoundError:
        return False
    try:
        now = path.stat()
        unchanged = (now.st_size, now.st_mtime_ns) == (tar.size, tar.mtime_ns)
        if unchanged or (now.st_size == tar.size and hash_file(path) == tar.sha256):
            return True
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror}") from error
    raise ShardError(
        f"{path}: not the shard its labels were made from; to annotate it again, --overwrite with only this shard"
    )
