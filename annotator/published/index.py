"""Where each of many published maps lies, by hashes of names: about 70 bytes of memory for each of 1.28 million."""

import hashlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.published.names import split_key, wnid_of
from store.errors import LabelMapError


@dataclass(frozen=True, slots=True)
class MapFile:
    """One published map that was found for a sample."""

    row: int  # of this map among its source's
    name: str  # of the file without `.pt`; from the sample's key, hence safe
    place: int  # where its source keeps it
    size: int  # bytes, as its source said when it was indexed


class NameIndex:
    """Where each map lies, by 64-bit hashes of `<class folder>/<name>` and of the name alone.

    Names that share a hash count as one name given twice, which is an error when it is looked up, so a collision is
    never a wrong map.
    """

    def __init__(self, entries: Iterable[tuple[str, str, int, int]], where: Path) -> None:
        self.where = where
        pairs, names, places, sizes = array("Q"), array("Q"), array("q"), array("q")
        for folder, name, place, size in entries:
            pairs.append(_hash(f"{folder}/{name}"))
            names.append(_hash(name))
            places.append(place)
            sizes.append(size)
        self._by_pair, self._by_name = _Sorted(pairs), _Sorted(names)
        self._places, self._sizes = np.asarray(places), np.asarray(sizes)

    def __len__(self) -> int:
        return len(self._places)

    def find(self, key: str) -> MapFile | None:
        """By the key's own class folder, by ImageNet's in its name, or by its name where the key has no folder."""
        folder, name = split_key(key)
        rows = self._by_pair.rows(_hash(f"{folder}/{name}")) if folder else self._by_pair.none
        if not len(rows) and (wnid := wnid_of(name)) is not None:
            rows = self._by_pair.rows(_hash(f"{wnid}/{name}"))
        if not len(rows) and not folder:
            rows = self._by_name.rows(_hash(name))
        if len(rows) > 1:
            raise LabelMapError(
                f"{self.where}: {len(rows)} maps could be meant by the sample {key!r}; "
                "keep one of them, or give the samples' keys their class folder"
            )
        return self._file(int(rows[0]), name) if len(rows) else None

    def _file(self, row: int, name: str) -> MapFile:
        return MapFile(row, name, int(self._places[row]), int(self._sizes[row]))


class _Sorted:
    """Rows by hash."""

    def __init__(self, hashes: "array[int]") -> None:
        values = np.asarray(hashes, np.uint64)
        self._order = np.argsort(values, kind="stable")
        self._sorted: NDArray[np.uint64] = values[self._order]
        self.none = self._order[:0]

    def rows(self, value: int) -> NDArray[np.int64]:
        first, last = (int(np.searchsorted(self._sorted, np.uint64(value), side)) for side in ("left", "right"))
        return self._order[first:last]


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")
