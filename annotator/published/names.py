"""Sample keys as names of published maps, and an index of many maps by hashes of their names.

A map is `<class folder>/<name>.pt`. Keys and names are hostile input. The index takes about 70 bytes of memory a map.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from store.errors import LabelMapError

SUFFIX = ".pt"
MAX_PART_BYTES = 255  # what file systems take for one name
MAX_KEY = 1000  # characters, so that messages stay readable
WNID_NAME = re.compile(r"(n[0-9]{8})_.+")


def split_key(key: str) -> tuple[str, str]:
    """The last folder of a key ('' where it has none) and its name, both safe as file names.

    >>> split_key("train/n01440764/n01440764_10026")
    ('n01440764', 'n01440764_10026')

    Raises:
        LabelMapError: the key could lead out of a folder, steer a terminal, or is too long for a file name.
    """
    parts = key.split("/")
    if not key.isprintable():
        raise LabelMapError(f"{key[:60]!r}: a key with control characters cannot name a file")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\\" in key:
        raise LabelMapError(f"{key[:60]!r}: a key that could lead out of its folder cannot name a file")
    if max(len(part.encode()) for part in parts) > MAX_PART_BYTES - len(SUFFIX) or len(key) > MAX_KEY:
        raise LabelMapError(f"{key[:60] + '...'!r}: a key of {len(key)} characters is too long for a file name")
    return (parts[-2] if len(parts) > 1 else ""), parts[-1]


def wnid_of(name: str) -> str | None:
    """The WordNet id at the start of ImageNet's own file names, None for other names.

    >>> wnid_of("n01440764_10026")
    'n01440764'
    """
    match = WNID_NAME.fullmatch(name)
    return match[1] if match else None


@dataclass(frozen=True, slots=True)
class MapFile:
    """One published map that was found for a sample."""

    row: int  # of this map among those of its source
    name: str  # of the file without `.pt`; from the sample's key, hence safe
    location: int  # in its source: the number of its folder, or its offset in the tar
    size: int  # bytes, as the source said when it was indexed


class NameIndex:
    """Finds maps by 64-bit hashes of `<class folder>/<name>` and of the name alone.

    Names that share a hash count as one name given twice, which is an error at look-up, so a collision never gives a
    wrong map.

    Args:
        entries: class folder, name, location and size of each map.
        where: the source, for messages.
    """

    def __init__(self, entries: Iterable[tuple[str, str, int, int]], where: Path) -> None:
        self.where = where
        pairs, names, locations, sizes = array("Q"), array("Q"), array("q"), array("q")
        for folder, name, location, size in entries:
            pairs.append(_hash(f"{folder}/{name}"))
            names.append(_hash(name))
            locations.append(location)
            sizes.append(size)
        self._by_pair, self._by_name = _RowsByHash(pairs), _RowsByHash(names)
        self._locations, self._sizes = np.asarray(locations), np.asarray(sizes)

    def __len__(self) -> int:
        return len(self._locations)

    def find(self, key: str) -> MapFile | None:
        """By the key's own class folder, by ImageNet's in its name, or by its name where the key has no folder.

        Raises:
            LabelMapError: the key is not fit for a file name, or several maps match it.
        """
        folder, name = split_key(key)
        rows = self._by_pair.rows(_hash(f"{folder}/{name}")) if folder else self._by_pair.none
        if not len(rows) and (wnid := wnid_of(name)) is not None:
            rows = self._by_pair.rows(_hash(f"{wnid}/{name}"))
        if not len(rows) and not folder:
            rows = self._by_name.rows(_hash(name))
        if len(rows) > 1:
            raise LabelMapError(
                f"{self.where}: {len(rows)} maps match the sample {key!r}; "
                "keep one of them, or give the samples' keys their class folder"
            )
        return self._file(int(rows[0]), name) if len(rows) else None

    def _file(self, row: int, name: str) -> MapFile:
        return MapFile(row, name, int(self._locations[row]), int(self._sizes[row]))


class _RowsByHash:
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
