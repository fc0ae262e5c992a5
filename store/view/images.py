"""The images of a store's rows, out of their shards, each proven to be the one that was annotated."""

from collections.abc import Sequence
from pathlib import Path

from store.errors import ChangedShardError, ShardError
from store.group import LabelGroup
from store.shards.index import image_digest, shard_name
from store.shards.patterns import expand_shards
from store.text import first_few


class ShardImages:
    """Image shards by name.

    Raises:
        ShardError: a pattern without a match, a missing shard, or a URL, which is not read here.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._shards = {shard_name(path): path for path in expand_shards(patterns)}

    @property
    def files(self) -> list[Path]:
        """The shards."""
        return list(self._shards.values())

    def __contains__(self, group: str) -> bool:
        """Whether the shard of a group was given."""
        return group in self._shards

    def read(self, group: LabelGroup, row: int) -> bytes:
        """The bytes of a row's image.

        Raises:
            ShardError: the group's shard was not given, or cannot be read.
            ChangedShardError: it holds other bytes there than those that were annotated.
        """
        path = self._shards.get(group.name)
        if path is None:
            given = first_few(list(self._shards))
            raise ShardError(f"--shards lacks {group.name}.tar, which holds {group.keys[row]!r}; given: {given}")
        offset, length = group.offsets[row].tolist()
        # The label's record of the length is a number out of a file: never more than the shard is allocated for it.
        data = _read_range(path, offset, length) if offset + length <= _size(path) else b""
        if image_digest(data) != int(group.digests[row]):
            raise ChangedShardError(
                f"{path}: does not hold the image that was annotated as {group.keys[row]!r}; "
                "give the shard of that run, or annotate this one (--overwrite with only this shard)"
            )
        return data


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_range(path: Path, offset: int, length: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise ShardError(f"{path}: cannot be read: {error.strerror or error}") from error
