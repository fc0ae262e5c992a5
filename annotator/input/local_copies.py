"""Keep local copies of remote shards while their rows are annotated.

Copies are in the system's temporary folder (TMPDIR), about four at a time: of the shard being committed, of those whose
rows are being annotated, and of the one being indexed. A local shard is read where it is.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from store.shards.errors import shard_errors
from store.shards.index import ShardIndex, hash_file, index_shard
from store.shards.remote import RemoteShard, Shard
from store.system.scratch import temporary_scratch


class LocalCopies:
    """A context with a temporary folder for copies of remote shards, which is removed at its end.

    Raises:
        SettingsError: TMPDIR is not a writable folder; Python would silently use another one.
    """

    def __init__(self) -> None:
        self._folder = temporary_scratch()

    def __enter__(self) -> "LocalCopies":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.remove()

    def index(self, shard: Shard) -> ShardIndex:
        """Index and hash a shard; a remote one is downloaded first, and its copy is kept until `release`.

        Raises:
            ShardError: missing, unreadable or damaged; the message says which.
        """
        if isinstance(shard, Path):
            return index_shard(shard, hashed=True)
        copy = self._path(shard)
        try:
            with shard_errors(shard):
                found = shard.download(copy)
            return replace(index_shard(copy, hashed=True, source=shard), mtime_ns=found.st_mtime_ns)
        except BaseException:
            self._remove(shard)
            raise

    def hash(self, shard: Shard) -> str:
        """Hex sha256 of a shard's bytes; raises OSError if they cannot be read."""
        if isinstance(shard, Path):
            return hash_file(shard)
        try:
            shard.download(self._path(shard))
            return hash_file(self._path(shard))
        finally:
            self._remove(shard)

    def release(self, index: ShardIndex) -> None:
        """Remove the copy of a shard whose rows are no longer needed."""
        if isinstance(index.source, RemoteShard):
            self._remove(index.source)

    def _path(self, shard: RemoteShard) -> Path:
        return self._folder.path / shard.name

    def _remove(self, shard: RemoteShard) -> None:
        with suppress(OSError):
            self._path(shard).unlink()
