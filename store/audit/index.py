"""The index of an audit: a small file outside the store by which `relabel-store browse` sorts images.

A `.npz` without pickles. Letters: G audited groups, N rows of theirs that are not quarantined, in the order of groups
and rows.

| array        | type          | holds                                                                             |
|--------------|---------------|-----------------------------------------------------------------------------------|
| group        | text (G,)     | names of the groups                                                               |
| rows         | int32 (G,)    | how many of the N rows each has                                                   |
| row          | int32 (N,)    | row in the group                                                                  |
| disagreement | float32 (N,)  | 1 - probability of the original label, pooled over the whole image; NaN: no label |
| entropy      | float32 (N,)  | bits, of the target pooled over the whole image                                   |
| classes      | int16 (N,)    | number of classes present                                                         |
| left_out     | text (any,)   | names of damaged groups, whose rows are not in the index                          |
| store_digest | text ()       | of the store's identity and its groups' commit records                            |
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from store.audit.group import GroupAudit
from store.errors import AuditIndexError, DamagedStoreError, StoreReadError
from store.reader import LabelStore
from store.schema import listed, seal
from store.text import first_line

KINDS = {"group": "<U", "rows": "<i4", "row": "<i4", "disagreement": "<f4", "entropy": "<f4", "classes": "<i2",
         "left_out": "<U"}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditIndex:
    """What the file holds; the module's table says what each array is."""

    group: NDArray[np.str_]  # (G,)
    rows: NDArray[np.int32]  # (G,)
    row: NDArray[np.int32]  # (N,)
    disagreement: NDArray[np.float32]  # (N,) NaN where there is no original label
    entropy: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int16]  # (N,)
    left_out: NDArray[np.str_]  # names of groups


@dataclass(kw_only=True, slots=True)
class IndexParts:
    """The index while it grows, group by group."""

    names: list[str] = field(default_factory=list)
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def add(self, group: GroupAudit) -> None:
        """Keep what the index needs of a group."""
        figures = group.figures
        self.names.append(group.name)
        self.parts.append((group.rows, 1 - figures.label_whole, figures.entropy, figures.classes))

    def write(self, handle: BinaryIO, *, digest: str, left_out: list[str]) -> None:
        """Write the file.

        Args:
            handle: open for writing.
            digest: the store's `store_digest` from before the first group was read.
            left_out: names of groups that could not be read.
        """
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)] or [np.zeros(0)] * 4
        row, disagreement, entropy, classes = columns
        arrays = {
            "group": np.array(self.names, np.str_),
            "rows": np.array([len(part[0]) for part in self.parts]),
            "row": row,
            "disagreement": disagreement,
            "entropy": entropy,
            "classes": classes,
            "left_out": np.array(left_out, np.str_),
        }
        typed = {name: array.astype(KINDS[name]) for name, array in arrays.items()}
        np.savez(handle, allow_pickle=False, **typed, store_digest=np.array(digest))


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


def read_index(path: Path, store: LabelStore) -> AuditIndex:
    """Read the index of a store as it is now.

    Args:
        path: of the file that `relabel-store audit --index` wrote.
        store: which it must belong to.

    Raises:
        AuditIndexError: there is no such file, it is damaged, or the store is another one or has changed since.
    """
    again = f"run `relabel-store audit {store} --index {path}`"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            digest, arrays = archive["store_digest"], {name: archive[name] for name in KINDS}
    except OSError as error:
        raise AuditIndexError(f"{path}: cannot be read: {error.strerror or first_line(error)}; {again}") from error
    except Exception as error:  # whatever hostile bytes make of zipfile and numpy
        raise AuditIndexError(f"{path}: not an audit's index ({first_line(error)}); {again}") from error
    if problem := _problem(arrays):
        raise AuditIndexError(f"{path}: not an audit's index ({problem}); {again}")
    if digest.shape != () or str(digest) != store_digest(store):
        raise AuditIndexError(f"{path}: made from another store than {store} is now; {again}")
    return AuditIndex(**arrays)


def _problem(arrays: dict[str, NDArray[Any]]) -> str | None:
    """What is wrong with an index's arrays."""
    for name, kind in KINDS.items():
        if arrays[name].ndim != 1 or not arrays[name].dtype.str.startswith(kind):
            return f"array {name!r} is {arrays[name].dtype} {arrays[name].shape}"
    counts = arrays["rows"]
    lengths = {len(arrays[name]) for name in ("row", "disagreement", "entropy", "classes")}
    if len(counts) != len(arrays["group"]) or (counts < 0).any() or lengths != {int(counts.sum(dtype=np.int64))}:
        return f"{len(counts)} groups with {int(counts.sum(dtype=np.int64))} rows, columns of {sorted(lengths)}"
    return None
