"""The order that an audit gives the rows of a store: its index file read piece by piece, without the keys.

The file is a `.npz` of one entry a row: `group`, `row`, `disagreement`, `entropy`, `classes`, and `store_digest`.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from store.errors import DamagedStoreError, LabelMapError, StoreReadError
from store.reader import LabelStore
from store.schema import listed, seal
from store.text import first_line
from store.view.groups import Groups, Spot

Sort = Literal["disagreement", "entropy", "classes"]
SORTS: tuple[Sort, ...] = get_args(Sort)
KINDS = {"row": "<i4", "disagreement": "<f4", "entropy": "<f4", "classes": "<i2"}
PIECE = 1 << 16  # rows of `group` at a time: as text they take 100 bytes each


@dataclass(frozen=True, kw_only=True, eq=False)
class Sorting:
    """N rows of a store with the figures of its audit."""

    group: NDArray[np.int32]  # (N,) numbers of groups
    row: NDArray[np.int32]  # (N,)
    figures: dict[Sort, NDArray[Any]]  # each (N,); disagreement is NaN where there is no original label

    def __len__(self) -> int:
        return len(self.row)

    def place(self, by: Sort, rank: int) -> Spot:
        """The row that comes at a rank, the largest figure at 0."""
        i = self._orders(by)[rank]
        return Spot(int(self.group[i]), int(self.row[i]))

    def figure(self, by: Sort, rank: int) -> float:
        """Its figure."""
        return float(self.figures[by][self._orders(by)[rank]])

    def _orders(self, by: Sort) -> NDArray[np.int32]:
        return self._by[by] if by in self._by else self._by.setdefault(by, _descending(self.figures[by]))

    @cached_property
    def _by(self) -> dict[Sort, NDArray[np.int32]]:
        return {}


def read_sorting(path: Path, groups: Groups, digest: str) -> Sorting:
    """Read what `relabel-store audit --index` wrote.

    Args:
        path: of the file.
        groups: of the store it must belong to.
        digest: of that store as it is now.

    Raises:
        LabelMapError: no such file, a damaged one, or one of another store or of an older state.
    """
    again = f"run `relabel-store audit {groups.store} --index {path}`"
    try:
        with zipfile.ZipFile(path) as archive:
            if str(_whole(archive, "store_digest", "<U", ())) != digest:
                raise LabelMapError(f"{path}: made from another store than {groups.store} is now; {again}")
            columns = {name: _whole(archive, name, kind, None) for name, kind in KINDS.items()}
            runs = list(_runs(archive))
    except LabelMapError:
        raise
    except OSError as error:
        raise LabelMapError(f"{path}: cannot be read: {error.strerror or error}; {again}") from error
    except Exception as error:  # whatever hostile bytes make of zipfile and numpy
        raise LabelMapError(f"{path}: not an audit's index ({first_line(error)}); {again}") from error
    number = np.repeat([groups.number(name) for name, _ in runs], [count for _, count in runs]).astype(np.int32)
    lengths = {len(number), *map(len, columns.values())}
    if len(lengths) > 1:
        raise LabelMapError(f"{path}: not an audit's index (arrays of {sorted(lengths)} rows); {again}")
    row = columns.pop("row")
    return Sorting(group=number, row=row, figures={by: columns[by] for by in SORTS})


def store_state(store: LabelStore) -> str:
    """The digest that an audit's index carries: of the root's attributes and all commit records."""
    state = sha256(seal({}, store.root).encode())
    for name in store.names():
        try:
            record = seal(listed(asdict(store.unchecked_group(name).commit)), store.root)
        except (DamagedStoreError, StoreReadError):
            record = "damaged"
        state.update(f"\n{name} {record}".encode())
    return state.hexdigest()


def _descending(values: NDArray[Any]) -> NDArray[np.int32]:
    """Ranks to rows; NaN comes last, equal values in their own order."""
    return np.argsort(-values.astype(np.float32), kind="stable").astype(np.int32)


def _whole(archive: zipfile.ZipFile, name: str, kind: str, shape: tuple[int, ...] | None) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        array = npy.read_array(member, allow_pickle=False)
    if not array.dtype.str.startswith(kind) or array.ndim != (1 if shape is None else len(shape)):
        raise ValueError(f"array {name!r} is {array.dtype} {array.shape}")
    return array


def _runs(archive: zipfile.ZipFile) -> Iterator[tuple[str, int]]:
    """Names of groups and how many rows in a row each has."""
    with archive.open("group.npy") as member:
        version = npy.read_magic(member)
        shape, _, dtype = npy.read_array_header_1_0(member) if version == (1, 0) else npy.read_array_header_2_0(member)
        if dtype.kind != "U" or len(shape) != 1:
            raise ValueError(f"array 'group' is {dtype} {shape}")
        left = shape[0]
        while left:
            count = min(PIECE, left)
            names = np.frombuffer(member.read(count * dtype.itemsize), dtype)
            starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
            for start, end in zip(starts, np.append(starts[1:], count), strict=True):
                yield str(names[start]), int(end - start)
            left -= count
