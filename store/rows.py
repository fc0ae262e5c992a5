"""The arrays of one label group, decoded from its objects.

Letters: N rows, K kept classes, H W cells (y, x).
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import DamagedStoreError, StoreReadError
from store.format.arrays import CHUNK_ROWS, ArraySpec, array_specs
from store.format.chunks import (
    DamagedArrayError,
    check_layout,
    decode_array,
    decode_chunk,
    decode_index,
    find_key,
    index_bytes,
    key_texts,
    keys_named,
    size_limits,
)
from store.format.schema import CommitRecord, StoreSchema
from store.objects import GroupObjects, RecordVersion
from store.storage.base import StorageBackend
from store.text import first_few

READS = 16  # arrays that are read at the same time
MAX_METADATA = 1 << 20  # bytes of an array's zarr.json; ours has about 1,000
TAIL, KEYS = "tail/zarr.json", "keys/c/0"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OpenArray:
    """An array whose metadata are those that the format prescribes."""

    spec: ArraySpec
    index: NDArray[np.int64] | None  # (chunks, 2) first byte and byte after the last of each inner chunk; None without


class GroupArrays(GroupObjects):
    """The arrays of a group, by the names that the format gives them."""

    def __init__(
        self, backend: StorageBackend, name: str, schema: StoreSchema, commit: CommitRecord, record: RecordVersion
    ) -> None:
        super().__init__(backend, name, commit, record)
        self.schema = schema
        if foreign := commit.objects.keys() - {path for spec in self.specs() for path in spec.paths}:
            raise DamagedStoreError(
                f"{self}: the commit record names objects that no array has: {first_few(sorted(foreign))}"
            )
        self._opened: dict[str, OpenArray] = {}

    @property
    def has_tail(self) -> bool:
        """Whether the group stores the log-sum-exp of the logits outside the top K."""
        return TAIL in self.commit.objects

    def specs(self) -> list[ArraySpec]:
        """What the format prescribes for the group's arrays."""
        return array_specs(self.schema, self.commit.rows, with_tail=self.has_tail)

    def read_array(self, name: str) -> NDArray[Any]:
        """All values of an array, as stored; keys are Python texts."""
        return self.read_rows((name,), slice(None))[0]

    def read_rows(self, names: Sequence[str], rows: slice) -> list[NDArray[Any]]:
        """The same rows of several arrays, read at the same time.

        Raises:
            DamagedStoreError: a chunk is missing, fails its checksum or is not laid out as the format prescribes.
            StoreReadError: the disk or network failed, or the group was replaced.
        """
        reads = [_threads(os.getpid()).submit(self._read, name, rows) for name in names]
        problems = [read.exception() for read in reads]
        if self.backend.asks_are_cheap:
            self.check_not_replaced()
        for name, problem in zip(names, problems, strict=True):
            if isinstance(problem, MemoryError):
                where = self.backend.at(self.object_path(name))
                raise StoreReadError(f"{where}: needs more memory than there is") from problem
            if problem is not None:
                raise problem
        return [read.result() for read in reads]

    def find(self, key: str) -> int | None:
        """The row of a key, None if the group does not have it.

        Raises:
            DamagedStoreError: the keys are damaged.
        """
        texts = self.key_texts()
        with self._damage(KEYS):
            return find_key(texts, key, self.commit.rows)

    def keys_named(self, name: str) -> list[str]:
        """The keys whose last part, after any folders, is this name; raises as `find` does."""
        texts = self.key_texts()
        with self._damage(KEYS):
            return keys_named(texts, name, self.commit.rows)

    def key_texts(self) -> bytes:
        """The bytes of all keys, to be searched, as `store.format.chunks.key_texts`; raises as `find`."""
        self._check_record(self._spec("keys"))
        chunk = self.read_object(KEYS)
        with self._damage(KEYS):
            return key_texts(chunk, self.commit.rows)

    def _read(self, name: str, rows: slice) -> NDArray[Any]:
        opened = self._open(name)
        spec, path = opened.spec, opened.spec.chunk_path
        if opened.index is None:
            chunk = self.read_object(path)
            with self._damage(path):
                return decode_array(spec, chunk)[rows]
        start, stop, _ = rows.indices(self.commit.rows)
        first = start // CHUNK_ROWS
        spans = opened.index[first : -(-stop // CHUNK_ROWS)]
        values = np.empty((len(spans), CHUNK_ROWS, *spec.shape[1:]), spec.dtype)
        begin, end = (int(spans[:, 0].min()), int(spans[:, 1].max())) if len(spans) else (0, 0)
        data = self.read_part(path, begin, end)
        with self._damage(path):
            for out, (at, to) in zip(values, spans.tolist(), strict=True):
                decode_chunk(spec, data[at - begin : to - begin], out)
        skipped = first * CHUNK_ROWS
        return values.reshape(-1, *spec.shape[1:])[start - skipped : stop - skipped]

    def check_array(self, name: str, *, deep: bool) -> None:
        """Compare one array with the commit record and the format.

        Args:
            name: the array's name.
            deep: read every byte and compare sha256, instead of sizes.

        Raises:
            DamagedStoreError: an object is missing or has other bytes.
            StoreReadError: the disk or network failed.
        """
        spec = self._spec(name)
        self._check_record(spec)
        for path in spec.paths:
            self.read_object(path) if deep else self.check_size(path)

    def _open(self, name: str) -> OpenArray:
        """The array's layout; metadata and the index of big arrays are read once."""
        if name not in self._opened:
            spec = self._spec(name)
            self._check_record(spec)
            metadata = self.read_object(spec.metadata_path)
            with self._damage(spec.metadata_path):
                check_layout(spec, metadata)
            index = self._read_index(spec) if spec.sharded else None
            self.check_not_replaced()
            self._opened[name] = OpenArray(spec=spec, index=index)
        return self._opened[name]

    def _read_index(self, spec: ArraySpec) -> NDArray[np.int64]:
        size = self.commit.objects[spec.chunk_path].size
        data = self.read_part(spec.chunk_path, size - index_bytes(spec), size)
        with self._damage(spec.chunk_path):
            return decode_index(spec, data, size)

    def _spec(self, name: str) -> ArraySpec:
        return next(spec for spec in self.specs() if spec.name == name)

    def _check_record(self, spec: ArraySpec) -> None:
        """Check that the commit record has the objects of an array, and none larger or smaller than it can be."""
        records = {path: record for path, record in self.commit.objects.items() if path.startswith(f"{spec.name}/")}
        if records.keys() != set(spec.paths):
            raise DamagedStoreError(f"{self}: the commit record lacks array {spec.name!r} or a part of it")
        low, high = size_limits(spec)
        if not low <= (size := records[spec.chunk_path].size) <= high:
            problem = f"{size:,} bytes; an array of {self.commit.rows:,} rows takes {low:,} to {high:,}"
            raise self.damaged(spec.chunk_path, problem)
        if (size := records[spec.metadata_path].size) > MAX_METADATA:
            raise self.damaged(spec.metadata_path, f"{size:,} bytes; none of ours is larger than {MAX_METADATA:,}")

    @contextmanager
    def _damage(self, path: str) -> Iterator[None]:
        """Name the object whose bytes the format does not allow."""
        try:
            yield
        except DamagedArrayError as error:
            raise self.damaged(path, str(error)) from error


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads that read arrays in this process; threads do not survive a fork."""
    del process
    return ThreadPoolExecutor(READS, thread_name_prefix="read")
