"""One label group of a store: label maps by row, and the samples' keys, labels and byte ranges in their tar.

Letters: N rows, K kept classes, C classes, H W cells (y, x).
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from store.errors import DamagedStoreError, RowNotFoundError, StoreReadError
from store.format.arrays import BIG_ARRAYS, CHUNK_ROWS, array_specs, find_key, keys_named
from store.format.checks import check_maps
from store.format.schema import GROUP_FILE, CommitRecord, StoreSchema
from store.maps.types import LabelRow, LabelRows
from store.objects import GroupObjects
from store.storage.base import StorageBackend
from store.text import first_line

if TYPE_CHECKING:
    from store.view.notebook import NotebookPage

PathPattern = str | os.PathLike[str]
READS = 16  # arrays that are read at the same time


class LabelGroup(GroupObjects):
    """The labels of one image shard; row i belongs to the shard's i-th sample.

    Arrays are opened and read on first use, in each process anew, so a group can be read after a fork.
    """

    def __init__(
        self, backend: StorageBackend, name: str, schema: StoreSchema, commit: CommitRecord, identity: object
    ) -> None:
        super().__init__(backend, name, commit, identity)
        self.schema = schema
        self._arrays: dict[tuple[int, str], Any] = {}  # by process and name

    def __len__(self) -> int:
        return self.commit.rows

    def __repr__(self) -> str:
        undecodable = f", {len(self.undecodable):,} undecodable" if self.undecodable else ""
        return f"LabelGroup({self.name!r}, {len(self):,} rows{undecodable})"

    @overload
    def __getitem__(self, index: SupportsIndex) -> "GroupRow": ...
    @overload
    def __getitem__(self, index: slice) -> "list[GroupRow]": ...
    def __getitem__(self, index: SupportsIndex | slice) -> "GroupRow | list[GroupRow]":
        """A row, counted from the end where the index is negative, or the list of a slice's rows; raises as `row`."""
        if isinstance(index, slice):
            return [self.row(i) for i in range(len(self))[index]]
        number = _row_number(index)
        if not -len(self) <= number < len(self):
            raise RowNotFoundError(f"{self}: row {number}; the group has {len(self)} rows")
        return self.row(number % len(self))

    def __iter__(self) -> Iterator["GroupRow"]:
        for start in range(0, len(self), CHUNK_ROWS):
            maps = self.read(start, min(start + CHUNK_ROWS, len(self)))
            for i in range(len(maps.classes)):
                yield self._row(start + i, maps, i)

    def __contains__(self, key: object) -> bool:
        """Whether a row has this key."""
        return isinstance(key, str) and self.find(key) is not None

    def fresh(self) -> "LabelGroup":
        """The same group without cached arrays, for readers that bound their memory by dropping groups."""
        return LabelGroup(self.backend, self.name, self.schema, self.commit, self.identity)

    @cached_property
    def keys(self) -> list[str]:
        """The samples' keys, by row."""
        return [str(key) for key in self.read_array("keys")]

    @cached_property
    def offsets(self) -> NDArray[np.uint64]:
        """(N, 2) uint64: byte offset and length of each image in its tar."""
        return self.read_array("offsets")

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """(N,) uint64: BLAKE2b-64 of each image's bytes."""
        return self.read_array("digests")

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """(N,) int32: the dataset's labels, -1 where the shard has none."""
        return self.read_array("targets")

    @cached_property
    def undecodable(self) -> dict[int, str]:
        """Reasons by row, of the images that could not be decoded."""
        return {bad.row: bad.reason for bad in self.commit.undecodable}

    @property
    def has_tail(self) -> bool:
        """Whether the group stores the log-sum-exp of the logits outside the top K."""
        return "tail/zarr.json" in self.commit.objects

    def usable(self, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """(stop - start,) bool: whether each row's image could be decoded."""
        mask = np.ones(len(self), bool)
        mask[list(self.undecodable)] = False
        return mask[start:stop]

    def read(self, start: int = 0, stop: int | None = None, *, with_tail: bool = True) -> LabelRows:
        """Label maps of rows start to stop, by default all; decoding is by chunks of 64 rows.

        Args:
            start: the first row.
            stop: the row after the last.
            with_tail: whether to read `tail_logsumexp`, where the group has it.

        Returns:
            classes (n, K, H, W) uint16, scores (n, K, H, W) float16, tail_logsumexp (n, H, W) float16 or None.

        Raises:
            DamagedStoreError: a chunk is missing, fails its checksum or holds invalid values.
            StoreReadError: the disk or network failed.
        """
        rows = slice(start, len(self) if stop is None else stop)
        names = BIG_ARRAYS if with_tail and self.has_tail else BIG_ARRAYS[:2]
        found = self._slices(names, rows)
        maps = LabelRows(classes=found[0], scores=found[1], tail_logsumexp=found[2] if len(found) > 2 else None)
        problem = check_maps(
            maps.classes,
            maps.scores,
            maps.tail_logsumexp,
            self.usable(start, stop),
            num_classes=self.schema.num_classes,
        )
        if problem is not None:
            raise DamagedStoreError(f"{self}: array {problem[0]!r} is damaged: {problem[1]}")
        return maps

    def row(self, i: int) -> "GroupRow":
        """One row; negative indices are refused.

        Raises:
            RowNotFoundError: no such row.
            DamagedStoreError: its chunk cannot be read.
            TypeError: not a row number.
        """
        number = _row_number(i)
        if not 0 <= number < len(self):
            raise RowNotFoundError(f"{self}: row {number}; the group has {len(self)} rows")
        return self._row(number, self.read(number, number + 1), 0)

    def _row(self, number: int, maps: LabelRows, i: int) -> "GroupRow":
        """Row `number`, whose label map is the i-th of `maps`."""
        offset, length = (int(value) for value in self.offsets[number])
        return GroupRow(
            key=self.keys[number],
            classes=maps.classes[i],
            scores=maps.scores[i],
            tail_logsumexp=None if maps.tail_logsumexp is None else maps.tail_logsumexp[i],
            label=int(self.labels[number]),
            offset=offset,
            length=length,
            undecodable=self.undecodable.get(number),
            group=self,
            number=number,
        )

    def find(self, key: str) -> int | None:
        """The row of a key, None if the group does not have it; no array is opened.

        Raises:
            DamagedStoreError: the keys are damaged.
        """
        return find_key(self.read_object("keys/c/0"), key, rows=len(self), where=f"{self}: keys")

    def keys_named(self, name: str) -> list[str]:
        """The keys whose last part, after any folders, is this name; raises as `find` does."""
        return keys_named(self.read_object("keys/c/0"), name, rows=len(self), where=f"{self}: keys")

    def read_array(self, name: str) -> NDArray[Any]:
        """All values of an array, as stored."""
        return self._slices((name,), slice(None))[0]

    def _slices(self, names: Sequence[str], rows: slice) -> list[NDArray[Any]]:
        """The same rows of several arrays, read at the same time."""
        arrays = [self._array(name) for name in names]
        reads = [_threads(os.getpid()).submit(array.__getitem__, rows) for array in arrays]
        problems = [read.exception() for read in reads]
        self.check_not_replaced()
        for name, problem in zip(names, problems, strict=True):
            if problem is not None:
                self._raise(name, problem)
        return [np.asarray(read.result()) for read in reads]

    def _raise(self, name: str, problem: BaseException) -> NoReturn:
        """Raise the error for an array that could not be read."""
        try:
            with self.backend.errors(self.object_path(name)):
                raise problem
        except MemoryError as error:
            raise StoreReadError(
                f"{self.backend.at(self.object_path(name))}: needs more memory than there is"
            ) from error
        except OSError as error:
            raise self.unread(name, error) from error
        except Exception as error:  # codecs raise many types on damaged bytes
            raise self.damaged(name, first_line(error)) from error

    def _array(self, name: str) -> Any:  # noqa: ANN401  (zarr's arrays are generic over their metadata)
        """The array, opened once in each process: an array opened before a fork must not be used after it."""
        key = os.getpid(), name
        if key not in self._arrays:
            self._arrays[key] = self._open_array(name)
        return self._arrays[key]

    def _open_array(self, name: str) -> Any:  # noqa: ANN401
        """Open an array; objects of small arrays and metadata are compared by sha256, chunks of big ones by size."""
        for path in self.objects_of(name):
            if name in BIG_ARRAYS and not path.endswith(GROUP_FILE):
                self.check_size(path)
            else:
                self.read_object(path)
        specs = array_specs(self.schema, len(self), with_tail=self.has_tail)
        spec = next(spec for spec in specs if spec.name == name)
        try:
            array = self.backend.array(self.object_path(name))
        except OSError as error:
            raise self.unread(name, error) from error
        except Exception as error:  # zarr raises many types on damaged metadata
            raise self.damaged(name, f"cannot be opened: {first_line(error)}") from error
        # numpy has a type for texts since version 2; before, they came as objects.
        dtype = "string" if array.dtype.kind in "TO" else str(array.dtype)
        found = tuple(array.shape), dtype
        if found != (spec.shape, spec.dtype):
            raise self.damaged(name, f"{found[1]} {found[0]}, expected {spec.dtype} {spec.shape}")
        return array


def _row_number(index: object) -> int:
    """The index as an int; numpy's integers are row numbers too."""
    if not isinstance(index, SupportsIndex):
        raise TypeError(f"rows are numbered: expected an integer, not {index!r}; group.find(key) gives a key's row")
    return int(index.__index__())


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """The threads that read arrays in this process; threads do not survive a fork."""
    del process
    return ThreadPoolExecutor(READS, thread_name_prefix="read")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class GroupRow(LabelRow):
    """A row of a label group: one image's label map, and where it is in the store."""

    group: LabelGroup
    number: int  # of the row in the group

    def __repr__(self) -> str:
        return f"{LabelRow.__repr__(self)[:-1]}, row {self.number} of {self.group.name!r})"

    def _repr_html_(self) -> str:
        """The label map as coloured cells and the whole image's target as bars, for a notebook."""
        from store.view.notebook import row_html  # upwards, when a notebook asks: data before display

        return row_html(self)

    def show(self, shards: PathPattern | Sequence[PathPattern] = ()) -> "NotebookPage":
        """The page of `relabel-store show --html`, to explore cells and crops in a notebook. Needs the extra `web`.

        Args:
            shards: patterns of image shards, as of `--shards`, to show the image; without any, the map alone.

        Raises:
            ShardError: the shard is not among those given, or holds another image.
            LabelMapError: the image was undecodable, so there is no map.
        """
        from store.view.notebook import row_page

        patterns = [shards] if isinstance(shards, str | os.PathLike) else shards
        return row_page(self, [os.fspath(pattern) for pattern in patterns])
