"""The index of an audit: a small file outside the store by which `relabel-store browse` sorts images.

A `.npz` without pickles, one entry for every row that is not quarantined, in the order of groups and rows:

| array        | type        | holds                                                                             |
|--------------|-------------|-----------------------------------------------------------------------------------|
| group        | text        | name of the group                                                                 |
| row          | int32       | row in the group                                                                  |
| key          | text        | the sample's key, cut to 256 characters                                           |
| disagreement | float32     | 1 - probability of the original label, pooled over the whole image; NaN: no label |
| entropy      | float32     | bits, of the target pooled over the whole image                                   |
| classes      | int16       | number of classes present                                                         |
| left_out     | text        | names of damaged groups, whose rows are not in the index                          |
| store_digest | text, 0-dim | of the store's identity and its groups' commit records                            |
"""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from store.audit_group import GroupAudit
from store.errors import AuditIndexError, DamagedStoreError, StoreReadError
from store.reader import LabelStore
from store.schema import listed, seal
from store.text import first_line

MAX_KEY = 256  # characters: numpy gives every key of the file the room of the longest
KINDS = {"group": "<U", "row": "<i4", "key": "<U", "disagreement": "<f4", "entropy": "<f4", "classes": "<i2"}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditIndex:
    """What the file holds; N rows that are not quarantined."""

    group: NDArray[np.str_]  # (N,)
    row: NDArray[np.int32]  # (N,)
    key: NDArray[np.str_]  # (N,)
    disagreement: NDArray[np.float32]  # (N,) NaN where there is no original label
    entropy: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int16]  # (N,)
    left_out: NDArray[np.str_]  # names of groups

    def __len__(self) -> int:
        return len(self.row)


@dataclass(kw_only=True, slots=True)
class IndexParts:
    """The index while it grows, group by group."""

    groups: list[tuple[str, int]] = field(default_factory=list)  # name, rows
    keys: list[list[str]] = field(default_factory=list)
    numbers: dict[str, list[NDArray[Any]]] = field(
        default_factory=lambda: {name: [] for name, kind in KINDS.items() if kind != "<U"}
    )

    def add(self, group: GroupAudit) -> None:
        """Keep what the index needs of a group."""
        self.groups.append((group.name, len(group.rows)))
        self.keys.append([key[:MAX_KEY] for key in group.keys])
        figures = group.figures
        values: tuple[NDArray[Any], ...] = (group.rows, 1 - figures.label_whole, figures.entropy, figures.classes)
        for parts, column in zip(self.numbers.values(), values, strict=True):
            parts.append(column)

    def write(self, handle: BinaryIO, *, digest: str, left_out: list[str]) -> None:
        """Write the file.

        Args:
            handle: open for writing.
            digest: the store's `store_digest` from before the first group was read.
            left_out: names of groups that could not be read.
        """
        rows = sum(count for _, count in self.groups)
        key_width = max((len(key) for keys in self.keys for key in keys), default=1)
        name_width = max((len(name) for name, _ in self.groups), default=1)
        with zipfile.ZipFile(handle, "w") as archive:
            # In parts: a text array of a million keys would take the memory once more.
            names = (np.full(count, name, f"<U{name_width}") for name, count in self.groups)
            _write(archive, "group", (rows,), f"<U{name_width}", names)
            keys = (np.array(part, f"<U{max(key_width, 1)}") for part in self.keys)
            _write(archive, "key", (rows,), f"<U{max(key_width, 1)}", keys)
            for name, parts in self.numbers.items():
                _write(archive, name, (rows,), KINDS[name], parts)
            _write(archive, "left_out", (len(left_out),), *_text(np.array(left_out, np.str_)))
            _write(archive, "store_digest", (), *_text(np.array(digest)))


def _text(values: NDArray[np.str_]) -> tuple[str, list[NDArray[np.str_]]]:
    return values.dtype.str, [values]


def _write(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: str, parts: Iterable[NDArray[Any]]
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        npy.write_array_header_1_0(member, {"descr": dtype, "fortran_order": False, "shape": shape})
        for part in parts:
            member.write(part.astype(dtype).tobytes())


def store_digest(store: LabelStore) -> str:
    """Hex sha256 over the store's root attributes and its groups' commit records; no arrays are read.

    Raises:
        StoreReadError: the store cannot be listed.
    """
    state = hashlib.sha256(seal({}, store.root).encode())
    for name, record in _records(store):
        state.update(f"\n{name} {record}".encode())
    return state.hexdigest()


def _records(store: LabelStore) -> Iterator[tuple[str, str]]:
    for name in store.names():
        try:
            yield name, seal(listed(asdict(store.unchecked_group(name).commit)), store.root)
        except (DamagedStoreError, StoreReadError):
            yield name, "damaged"


def read_index(path: Path | str, store: LabelStore) -> AuditIndex:
    """Read the index of a store as it is now.

    Args:
        path: of the file that `relabel-store audit --index` wrote.
        store: which it must belong to.

    Raises:
        AuditIndexError: there is no such file, it is damaged, or the store is another one or has changed since.
    """
    arrays = _load(Path(path))
    found = arrays.pop("store_digest")
    if found.ndim or found.dtype.kind != "U" or str(found) != store_digest(store):
        raise AuditIndexError(
            f"{path}: made from another store than {store} is now; run `relabel-store audit {store} --index {path}`"
        )
    for name, kind in KINDS.items():
        array = arrays[name]
        if array.ndim != 1 or not array.dtype.str.startswith(kind) or len(array) != len(arrays["row"]):
            raise _damaged(path, f"array {name!r} is {array.dtype} {array.shape}")
    return AuditIndex(**arrays)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in (*KINDS, "left_out", "store_digest")}
    except OSError as error:
        problem = error.strerror or first_line(error)
        raise AuditIndexError(f"{path}: cannot be read: {problem}; `relabel-store audit --index` makes one") from error
    except Exception as error:  # whatever hostile bytes make of zipfile and numpy
        raise _damaged(path, first_line(error)) from error


def _damaged(path: Path | str, problem: str) -> AuditIndexError:
    return AuditIndexError(f"{path}: not an index of `relabel-store audit --index` ({problem}); make it again")
