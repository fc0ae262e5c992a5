"""A folder or a tar of published maps, looked up by sample."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from annotator.published.files import MAX_FILE_BYTES, PublishedMap, load_map
from annotator.published.index import MapFile, NameIndex
from annotator.published.names import SUFFIX
from store.errors import LabelMapError, ShardError
from store.shards import tar_members


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
