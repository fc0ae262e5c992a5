"""Reading a store: `LabelStore.open(path)`, its groups, their rows.

Opening reads JSON only. Arrays are opened through Zarr on first use, so a store opened before a fork is safe to
read after it. Sizes are checked when a group's arrays are first needed, and small arrays against their sha256.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore

from store.errors import DamagedStoreError, LabelNotFoundError, StoreNotFoundError
from store.layout import BIG_ARRAYS, GROUP_FILE
from store.schema import (
    COMMIT_ATTRIBUTE,
    ROOT_ATTRIBUTE,
    CommitRecord,
    Json,
    ObjectRecord,
    StoreSchema,
    parse_commit,
    parse_schema,
)
from store.shards import GROUP_NAME, hash_file


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelRows:
    """Label maps of some rows of a group. N rows, K ranks, H W cells (y, x)."""

    classes: NDArray[np.uint16]  # (N, K, H, W)
    scores: NDArray[np.float16]  # (N, K, H, W)
    tail: NDArray[np.float16] | None  # (N, H, W)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelRow:
    """One sample's label map and what the group knows of the sample. K ranks, H W cells (y, x)."""

    key: str
    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W)
    tail: NDArray[np.float16] | None  # (H, W)
    target: int  # the original label, -1 where there is none
    offset: int  # of the image in its tar, bytes
    length: int  # of the image, bytes
    quarantined: str | None  # why the image could not be decoded


class LabelGroup:
    """The labels of one image shard; row i belongs to the shard's i-th sample."""

    def __init__(self, folder: Path, name: str, commit: CommitRecord) -> None:
        self.folder, self.name, self.commit = folder, name, commit

    def __len__(self) -> int:
        return self.commit.rows

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys, by row."""
        return [str(key) for key in self._array("keys")[:]]

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """(N, 2) uint64: byte offset and length of each image in its tar."""
        return np.asarray(self._array("offsets")[:], np.uint64)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """(N,) uint64: BLAKE2b-64 of each image's bytes."""
        return np.asarray(self._array("digests")[:], np.uint64)

    @cached_property
    def targets(self) -> NDArray[np.int32]:
        """(N,) int32: the original labels, -1 where the shard has none."""
        return np.asarray(self._array("targets")[:], np.int32)

    @cached_property
    def quarantined(self) -> dict[int, str]:
        """Row to reason of the images that could not be decoded."""
        return {bad.row: bad.reason for bad in self.commit.quarantined}

    @property
    def has_tail(self) -> bool:
        """Whether the group keeps the probability mass outside the top K."""
        return "tail/zarr.json" in self.commit.objects

    def read(self, start: int = 0, stop: int | None = None) -> LabelRows:
        """Label maps of rows start to stop, by default all; 64-row chunks are the unit of decoding.

        Raises:
            DamagedStoreError: a chunk is missing or fails its checksum.
        """
        rows = slice(start, len(self) if stop is None else stop)
        return LabelRows(
            classes=self._slice("classes", rows),
            scores=self._slice("scores", rows),
            tail=self._slice("tail", rows) if self.has_tail else None,
        )

    def check_sizes(self) -> None:
        """Compare the sizes of the big arrays' files with the commit record.

        Raises:
            DamagedStoreError: one is missing or has another size; or arrays that lie elsewhere, as on object stores.
        """
        if self.commit.prefix:
            raise DamagedStoreError(f"{self.folder}: its arrays lie under {self.commit.prefix!r}, not on a local disk")
        for path, record in self.commit.objects.items():
            if path.partition("/")[0] in BIG_ARRAYS:
                self._check_object(path, record, hashed=False)

    def row(self, i: int) -> LabelRow:
        """One row; negative indices are not taken.

        Raises:
            LabelNotFoundError: no such row.
        """
        if not 0 <= i < len(self):
            raise LabelNotFoundError(f"{self.folder}: row {i}; the group has {len(self)} rows")
        maps = self.read(i, i + 1)
        offset, length = (int(value) for value in self.offsets[i])
        return LabelRow(
            key=self.keys[i],
            classes=maps.classes[0],
            scores=maps.scores[0],
            tail=None if maps.tail is None else maps.tail[0],
            target=int(self.targets[i]),
            offset=offset,
            length=length,
            quarantined=self.quarantined.get(i),
        )

    def _slice(self, name: str, rows: slice) -> NDArray[Any]:
        try:
            return np.asarray(self._array(name)[rows])
        except (ValueError, RuntimeError, OSError) as error:
            raise DamagedStoreError(f"{self.folder}: array {name!r} is damaged: {error}") from error

    def _array(self, name: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        cached = self.__dict__.setdefault("_arrays", {})
        if name not in cached:
            self._check_objects(name)
            try:
                cached[name] = zarr.open_array(LocalStore(self.folder / name, read_only=True), mode="r")
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise DamagedStoreError(f"{self.folder}: array {name!r} cannot be opened: {error}") from error
        return cached[name]

    def _check_objects(self, name: str) -> None:
        """Sizes of a big array's chunks, sha256 of everything that is small."""
        records = {path: record for path, record in self.commit.objects.items() if path.startswith(name + "/")}
        if not records:
            raise DamagedStoreError(f"{self.folder}: the commit record knows no array {name!r}")
        for path, record in records.items():
            cheap = name not in BIG_ARRAYS or path.endswith(GROUP_FILE)
            self._check_object(path, record, hashed=cheap)

    def _check_object(self, path: str, record: ObjectRecord, *, hashed: bool) -> None:
        file = self.folder / path
        try:
            size = file.stat().st_size
            whole = size == record.size and (not hashed or hash_file(file) == record.sha256)
        except OSError as error:
            raise DamagedStoreError(f"{file}: cannot be read: {error.strerror}") from error
        if not whole:
            raise DamagedStoreError(
                f"{file}: damaged ({size} bytes, written with {record.size}); "
                "annotate its shard again (--overwrite with only this shard)"
            )


class LabelStore:
    """A store opened for reading; iterating gives its committed groups by name."""

    def __init__(self, path: Path, root: Json, schema: StoreSchema) -> None:
        self.path, self.schema = path, schema
        self._root = root

    @classmethod
    def open(cls, path: Path | str) -> "LabelStore":
        """Open a store on a local disk.

        Raises:
            StoreNotFoundError: there is none at that path.
            FormatVersionError: a newer release wrote it.
            DamagedStoreError: its root attributes cannot be read.
        """
        path = Path(path)
        if not (path / GROUP_FILE).is_file():
            raise StoreNotFoundError(f"{path}: no label store here; `relabel-annotate run` makes one")
        root = read_attributes(path / GROUP_FILE).get(ROOT_ATTRIBUTE, {})
        schema = parse_schema(root, str(path / GROUP_FILE))
        return cls(path, root, schema)

    def names(self) -> list[str]:
        """Names of the committed groups, sorted."""
        candidates = [entry.name for entry in self.path.iterdir() if GROUP_NAME.fullmatch(entry.name)]
        return sorted(name for name in candidates if self._commit_attributes(name) is not None)

    def __iter__(self) -> Iterator[LabelGroup]:
        return (self.group(name) for name in self.names())

    def __contains__(self, name: str) -> bool:
        return bool(GROUP_NAME.fullmatch(name)) and self._commit_attributes(name) is not None

    def group(self, name: str) -> LabelGroup:
        """One group by its shard's name.

        Raises:
            LabelNotFoundError: the store has no such group.
            DamagedStoreError: its commit record does not hold.
        """
        attributes = self._commit_attributes(name) if GROUP_NAME.fullmatch(name) else None
        if attributes is None:
            raise LabelNotFoundError(f"{self.path}: no labels for the shard {name!r}; annotate it first")
        folder = self.path / name
        group = LabelGroup(folder, name, parse_commit(attributes, self._root, str(folder / GROUP_FILE)))
        group.check_sizes()
        return group

    def find(self, key: str) -> tuple[LabelGroup, int]:
        """The group and row of a sample.

        Raises:
            LabelNotFoundError: no group has that key.
        """
        for group in self:
            with suppress(ValueError):
                return group, group.keys.index(key)
        raise LabelNotFoundError(f"{self.path}: no group and no key {key!r}; `relabel-store show` lists the groups")

    def _commit_attributes(self, name: str) -> object | None:
        file = self.path / name / GROUP_FILE
        return read_attributes(file).get(COMMIT_ATTRIBUTE) if file.is_file() else None


def read_attributes(file: Path) -> Json:
    """The attributes of a Zarr group's `zarr.json`.

    Raises:
        DamagedStoreError: not readable, or not the metadata of a Zarr v3 group.
    """
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedStoreError(f"{file}: cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("zarr_format") != 3 or document.get("node_type") != "group":
        raise DamagedStoreError(f"{file}: not the metadata of a Zarr v3 group")
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedStoreError(f"{file}: attributes should be a JSON object")
    return attributes
