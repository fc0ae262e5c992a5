"""A folder or a tar of published maps: looked up and read by sample, each map given to one sample only."""

import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from annotator.published.files import MAX_FILE_BYTES, PublishedMap, load_map
from annotator.published.names import SUFFIX, MapFile, NameIndex
from store.errors import LabelMapError, ShardError
from store.shards.index import tar_members


class MapSource(ABC):
    """Published maps, looked up by sample; `len` gives their number."""

    _index: NameIndex

    def __len__(self) -> int:
        return len(self._index)

    def find(self, key: str) -> MapFile | None:
        """The map of a sample, None if there is none.

        Raises:
            LabelMapError: the key is not fit for a file name, or several maps match it.
        """
        return self._index.find(key)

    @abstractmethod
    def where(self, file: MapFile) -> str:
        """The file's path or position, for messages."""

    @abstractmethod
    def read(self, file: MapFile) -> bytes:
        """The file's bytes.

        Raises:
            LabelMapError: larger than a map can be, or unreadable.
        """


def open_source(path: Path) -> MapSource:
    """Index the published maps at a path: `<path>/<class folder>/<name>.pt`, or the same inside an uncompressed tar.

    Raises:
        ShardError: neither a folder nor a file, a damaged or compressed tar, or no `.pt` in it.
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
        LabelMapError: a key that names no file, several maps that match it, or a map that is refused.
    """
    file = source.find(key)
    return None if file is None else load_map(source.read(file), source.where(file), num_classes=num_classes)


class FolderSource(MapSource):
    """Maps in `<root>/<class folder>/<name>.pt`; maps directly in the root are found by name alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folders: list[str] = []
        self._index = NameIndex(self._entries(), root)

    def where(self, file: MapFile) -> str:
        """The file's path."""
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
        return self.root / self.folders[file.location] / (file.name + SUFFIX)

    def _entries(self) -> Iterator[tuple[str, str, int, int]]:
        for folder in ("", *sorted(entry.name for entry in _scan(self.root) if _is(entry.is_dir))):
            self.folders.append(folder)
            for entry in _scan(self.root / folder):
                if entry.name.endswith(SUFFIX) and _is(entry.is_file):
                    yield folder, entry.name.removesuffix(SUFFIX), len(self.folders) - 1, 0


class TarSource(MapSource):
    """Maps in a tar, read by their offsets without unpacking it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index = NameIndex(self._entries(), path)

    def where(self, file: MapFile) -> str:
        """The tar's path and the file's offset in it."""
        return f"{self.path}: {file.name}{SUFFIX} at byte {file.location}"

    def read(self, file: MapFile) -> bytes:
        """See `MapSource`."""
        try:
            with self.path.open("rb", buffering=0) as handle:
                handle.seek(file.location)
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


class MapOwners:
    """Which group of the store holds each map of a source, so that no map is used twice; 4 bytes of memory a map."""

    def __init__(self, source: MapSource) -> None:
        self.source = source
        self._groups: list[str] = []
        self._owners = array("i", bytes(4 * len(source)))  # by row of the source, from 1; 0: no group has the map

    def add(self, keys: Iterable[str], group: str) -> None:
        """Record that the maps of these samples belong to a group."""
        self._groups.append(group)
        for key in keys:
            with suppress(LabelMapError):  # a key that names no map here got its map from another source
                file = self.source.find(key)
                if file is not None:
                    self._owners[file.row] = len(self._groups)

    def find(self, key: str) -> MapFile | None:
        """The map of a sample, None if there is none.

        Raises:
            LabelMapError: a group has it already, or as of `MapSource.find`.
        """
        file = self.source.find(key)
        if file is not None and (owner := self._owners[file.row]):
            raise LabelMapError(
                f"{self.source.where(file)}: the map of two samples, {key!r} and one of the group "
                f"{self._groups[owner - 1]!r}"
            )
        return file


def check_size(data: bytes, where: str) -> bytes:
    """Return the data; raise LabelMapError if they are more than a published map can hold."""
    if len(data) > MAX_FILE_BYTES:
        raise LabelMapError(f"{where}: larger than {MAX_FILE_BYTES:,} bytes, so not a published map")
    return data


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise ShardError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _is(question: Callable[[], bool]) -> bool:
    """The answer of an entry's `is_dir` or `is_file`; False for a link that points to itself."""
    try:
        return question()
    except OSError:
        return False
