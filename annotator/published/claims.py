"""Which published maps belong to rows of the store, so that none is given to another; 4 bytes of memory a map."""

from array import array
from collections.abc import Iterable
from contextlib import suppress

from annotator.published.index import MapFile
from annotator.published.source import MapSource
from store.errors import LabelMapError


class Claims:
    """The maps of a source, each with the group that holds it."""

    def __init__(self, source: MapSource) -> None:
        self.source = source
        self._groups: list[str] = []
        self._holders = array("i", bytes(4 * len(source)))  # by row of the source, from 1; 0 where no group has the map

    def hold(self, keys: Iterable[str], group: str) -> None:
        """Keep the maps of a group's samples from those of other groups."""
        self._groups.append(group)
        for key in keys:
            with suppress(LabelMapError):  # a key that names no map here got its map from another source
                file = self.source.find(key)
                if file is not None:
                    self._holders[file.row] = len(self._groups)

    def find(self, key: str) -> MapFile | None:
        """The map of a sample, None if there is none.

        Raises:
            LabelMapError: a group has it already, or as `MapSource.find`.
        """
        file = self.source.find(key)
        if file is not None and (holder := self._holders[file.row]):
            raise LabelMapError(
                f"{self.source.where(file)}: the map of two samples, {key!r} and one of the group "
                f"{self._groups[holder - 1]!r}"
            )
        return file
