"""The images of a store's rows, out of their shards, each proven to be the one that was annotated."""

from collections.abc import Sequence
from pathlib import Path

from store.errors import ShardError
from store.group import LabelGroup
from store.shards.images import ImageMember, read_images
from store.shards.index import shard_name
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
        member = ImageMember.recorded(row, group.keys[row], group.offsets[row], group.digests[row])
        return next(read_images([(path, member)], hashed=True))
