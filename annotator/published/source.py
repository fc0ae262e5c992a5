"""A folder or a tar of published maps, looked up by sample."""

import hashlib
import os
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from annotator.published.files import MAX_FILE_BYTES, PublishedMap, load_map
from store.errors import LabelMapError, ShardError
from store.shards.index import tar_members

# Where each of many published maps lies, by hashes of names: about 70 bytes of memory for each of 1.28 million.


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


class MapSource(ABC):
    """Published maps, looked up by sample; `len` says how many there are."""

    _index: NameIndex

    def __len__(self) -> int:
        return len(self._index)

    def find(self, key: str) -> MapFile | None:
        """The map of a sample, None if there is none.

        Raises:
            LabelMapError: the key is not fit for a file name, or several maps could be meant.
        """
        return self._index.find(key)

    @abstractmethod
    def where(self, file: MapFile) -> str:
        """Its place, for messages."""

    @abstractmethod
    def read(self, file: MapFile) -> bytes:
        """Its bytes.

        Raises:
            LabelMapError: larger than a map can be, or unreadable.
        """


def open_source(path: Path) -> MapSource:
    """Index the published maps at a path: `<path>/<class folder>/<name>.pt`, or the same inside an uncompressed tar.

    Raises:
        ShardError: nothing there, neither a folder nor a file, a damaged or compressed tar, or no `.pt` in it.
    """
    if not path.exists():
        raise ShardError(f"{path}: no such folder or tar of published maps")
    if not (path.is_dir() or path.is_file()):  # opening a pipe would wait for its writer
        raise ShardError(f"{path}: neither a folder nor a tar of published maps")
    source = FolderSource(path) if path.is_dir() else TarSource(path)
    if not len(source):
        raise ShardError(f"{path}: holds no maps; expected <class folder>/<name>{SUFFIX}")
    return source


def read_map(source: MapSource, key: str, *, num_classes: int) -> PublishedMap | None:
    """The map of a sample, checked; None if the source has none.

    Raises:
        LabelMapError: a key that names no file, several maps that could be meant, or a map that is refused.
    """
    file = source.find(key)
    return None if file is None else load_map(source.read(file), source.where(file), num_classes=num_classes)


class FolderSource(MapSource):
    """Maps in `<root>/<class folder>/<name>.pt`; maps right below the root are found by name alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[str] = []
        self._index = NameIndex(self._entries(), root)

    def where(self, file: MapFile) -> str:
        """See `MapSource`."""
        return str(self._path(file))

    def read(self, file: MapFile) -> bytes:
        """See `MapSource`."""
        path = self._path(file)
        try:
            with path.open("rb", buffering=0) as handle:
                data = handle.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise LabelMapError(f"{path}: cannot be read: {error.strerror}") from error
        return check_size(data, str(path))

    def _path(self, file: MapFile) -> Path:
        return self.root / self.folders[file.place] / (file.name + SUFFIX)

    def _entries(self) -> Iterator[tuple[str, str, int, int]]:
        for folder in ("", *sorted(entry.name for entry in _scan(self.root) if _is(entry.is_dir))):
            self.folders.append(folder)
            for entry in _scan(self.root / folder):
                if entry.name.endswith(SUFFIX) and _is(entry.is_file):
                    yield folder, entry.name.removesuffix(SUFFIX), len(self.folders) - 1, 0


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise ShardError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _is(kind: Callable[[], bool]) -> bool:
    """The answer of an entry's `is_dir` or `is_file`; no for a link that leads in a circle."""
    try:
        return kind()
    except OSError:
        return False


class TarSource(MapSource):
    """Maps in a tar, read by their offsets without unpacking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = NameIndex(self._entries(), path)

    def where(self, file: MapFile) -> str:
        """See `MapSource`."""
        return f"{self.path}: {file.name}{SUFFIX} at byte {file.place}"

    def read(self, file: MapFile) -> bytes:
        """See `MapSource`."""
        try:
            with self.path.open("rb", buffering=0) as handle:
                handle.seek(file.place)
                data = handle.read(min(file.size, MAX_FILE_BYTES + 1))
        except OSError as error:
            raise LabelMapError(f"{self.where(file)}: cannot be read: {error.strerror}") from error
        check_size(data, self.where(file))
        if len(data) != file.size:
            raise LabelMapError(f"{self.where(file)}: ends after {len(data)} of {file.size} bytes")
        return data

    def _entries(self) -> Iterator[tuple[str, str, int, int]]:
        for member in tar_members(self.path):
            folder, _, base = member.name.rpartition("/")
            if base.endswith(SUFFIX):
                yield folder.rpartition("/")[2], base.removesuffix(SUFFIX), member.offset, member.size


def check_size(data: bytes, where: str) -> bytes:
    """The data, unless they are more than a published map can hold."""
    if len(data) > MAX_FILE_BYTES:
        raise LabelMapError(f"{where}: larger than {MAX_FILE_BYTES:,} bytes, so not a published map")
    return data


# Sample keys as names of published maps, `<class folder>/<name>.pt`. Every key is hostile input.


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
    """The WordNet id that ImageNet's own file names begin with.

    >>> wnid_of("n01440764_10026")
    'n01440764'
    """
    match = WNID_NAME.fullmatch(name)
    return match[1] if match else None


# Which published maps belong to rows of the store, so that none is given to another; 4 bytes of memory a map.


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
