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

import csv
import hashlib
import io
import math
from dataclasses import dataclass, field
from errno import ENOENT
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import GroupAudit
from store.errors import AuditIndexError, DamagedStoreError, StoreReadError
from store.format.schema import CommitRecord, StoreSchema, seal
from store.reader import LabelStore
from store.text import first_line, printable

ROOM_GROUP, ROOM_ROW, ROOM_HEADERS = 2048, 16, 1 << 16  # bytes that an index takes at most
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
    store_digest: str


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
    return _digest(store, _commits(store))


Commits = dict[str, CommitRecord | None]  # by the groups' names; None for a damaged one


def _commits(store: LabelStore) -> Commits:
    found: Commits = {}
    for name in store.names():
        try:
            found[name] = store.unchecked_group(name).commit
        except (DamagedStoreError, StoreReadError):
            found[name] = None
    return found


def _digest(store: LabelStore, commits: Commits) -> str:
    state = hashlib.sha256(seal({}, store.root).encode())
    for name, commit in commits.items():
        record = "damaged" if commit is None else seal(commit.body(), store.root)
        state.update(f"\n{name} {record}".encode())
    return state.hexdigest()


def read_index(path: Path, store: LabelStore) -> AuditIndex:
    """Read the index of a store as it is now.

    Args:
        path: of the file that `relabel-store audit --index` wrote.
        store: which it must belong to.

    Raises:
        AuditIndexError: there is no such file, it is damaged, or the store is another one or has changed since.
    """
    again = f"run `relabel-store audit {store} --index {path}`"
    commits = _commits(store)
    try:
        arrays = _load(path, commits)
    except OSError as error:
        raise AuditIndexError(f"{path}: cannot be read: {error.strerror or first_line(error)}; {again}") from error
    except Exception as error:  # whatever hostile bytes make of zipfile and numpy
        raise AuditIndexError(f"{path}: not an audit's index ({first_line(error)}); {again}") from error
    digest = str(arrays.pop("store_digest"))
    if digest != _digest(store, commits):
        raise AuditIndexError(f"{path}: made from another store than {store} is now; {again}")
    index = AuditIndex(**arrays, store_digest=digest)
    if problem := _problem(index, commits):
        raise AuditIndexError(f"{path}: not an audit's index ({problem}); {again}")
    return index


def _load(path: Path, commits: Commits) -> dict[str, NDArray[Any]]:
    """The file's arrays, by their names; it may not unpack to more than an index of this store would."""
    if not path.is_file():
        raise FileNotFoundError(ENOENT, "No such file" if not path.exists() else "not a regular file")
    rows = sum(commit.rows for commit in commits.values() if commit is not None)
    room = ROOM_HEADERS + ROOM_GROUP * len(commits) + ROOM_ROW * rows
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if sum(member.file_size for member in archive.zip.infolist()) > room:
            raise ValueError("too large for this store")
        arrays = {name: archive[name] for name in (*KINDS, "store_digest")}
    for name, kind in {**KINDS, "store_digest": "<U"}.items():
        array = arrays[name]
        wanted = 0 if name == "store_digest" else 1
        if not isinstance(array, np.ndarray) or array.ndim != wanted or not array.dtype.str.startswith(kind):
            raise ValueError(f"array {name!r} is of another kind")
    return arrays


def _problem(index: AuditIndex, commits: Commits) -> str | None:
    """What keeps the numbers of an index from being those of the store's rows."""
    lengths = {len(column) for column in (index.row, index.disagreement, index.entropy, index.classes)}
    rows = int(index.rows.sum(dtype=np.int64))
    if len(index.rows) != len(index.group) or lengths != {rows}:
        return f"{len(index.group)} groups with {rows} rows, columns of {sorted(lengths)}"
    if [*index.group, *index.left_out] != [*dict.fromkeys([*index.group, *index.left_out])]:
        return "a group twice"
    if sorted([*index.group, *index.left_out]) != sorted(commits):
        return "other groups"
    ends = np.cumsum(index.rows)
    for name, start, end in zip(index.group.tolist(), ends - index.rows, ends, strict=True):
        commit, found = commits[name], index.row[start:end]
        if commit is None:
            return f"{name}: is damaged"
        usable = np.delete(np.arange(commit.rows), [bad.row for bad in commit.undecodable])
        if not np.array_equal(found, usable):
            return f"{name}: other rows"
    share = index.disagreement[~np.isnan(index.disagreement)]
    if (share < 0).any() or (share > 1).any() or not (index.entropy >= 0).all() or (index.classes < 0).any():
        return "figures that cannot be"
    return None


# The CSV of an audit, with a line for every image that is not quarantined.


COLUMNS = ("group", "row", "key", "label", "label_name", "label_whole", "label_best_cell", "top", "top_name",
           "top_probability", "entropy_bits", "classes")  # fmt: skip
# What makes a spreadsheet take a text for a formula; tabs and line ends are escaped before.
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001  (the full-width ones count too)


class CsvAudit:
    """A CSV in UTF-8 with a line for every image that is not quarantined, in the order of groups and rows."""

    def __init__(self, handle: BinaryIO, schema: StoreSchema) -> None:
        self._text = io.TextIOWrapper(handle, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.writer(self._text, lineterminator="\n")
        self._lines.writerow(COLUMNS)
        self._names = [safe_cell(schema.class_name(c)) for c in range(schema.num_classes)]

    def add(self, group: GroupAudit) -> None:
        """Write a group's images."""
        figures, name, names = group.figures, safe_cell(group.name), self._names
        columns = zip(
            group.rows.tolist(),
            group.keys,
            group.labels.tolist(),
            figures.label_whole.tolist(),
            figures.label_best.tolist(),
            figures.top.tolist(),
            figures.top_probability.tolist(),
            figures.entropy.tolist(),
            figures.classes.tolist(),
            strict=True,
        )
        for row, key, label, whole, best, top, probability, bits, classes in columns:
            label_cells = ("", "") if label < 0 else (label, names[label] if label < len(names) else "")
            self._lines.writerow((
                name, row, safe_cell(key), *label_cells, _number(whole), _number(best), top, names[top],
                _number(probability), _number(bits), classes,
            ))  # fmt: skip

    def close(self) -> None:
        """Hand the file back, still open."""
        self._text.detach()


def safe_cell(text: str) -> str:
    r"""A text that neither a terminal nor a spreadsheet takes for anything else.

    Control characters become escapes; what a spreadsheet would take for a formula gets an apostrophe before it.

    >>> safe_cell("=1+2"), safe_cell("\t=1"), safe_cell("n01_7")
    ("'=1+2", '\\t=1', 'n01_7')
    """
    shown = text if text.isprintable() else printable(text)
    return f"'{shown}" if shown.lstrip(" ").startswith(FORMULA_STARTS) else shown


def _number(value: float) -> str:
    """Six digits, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"
