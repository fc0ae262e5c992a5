"""The files of an audit: the index by which `relabel-store browse` sorts images, and the CSV.

The index is a `.npz` without pickles, outside the store. Shape letters: G audited groups, N decodable rows of theirs,
in the order of groups and rows, P pairs of a row and a class that is present in it.

| array        | type          | holds                                                                             |
|--------------|---------------|-----------------------------------------------------------------------------------|
| group        | text (G,)     | names of the groups                                                               |
| rows         | int32 (G,)    | number of rows of each group                                                      |
| row          | int32 (N,)    | row in the group                                                                  |
| disagreement | float32 (N,)  | 1 - probability of the label, pooled over the whole image; NaN: no label          |
| entropy      | float32 (N,)  | bits, of the target pooled over the whole image                                   |
| classes      | int16 (N,)    | number of classes present                                                         |
| present      | uint16 (P,)   | these classes: first those of row 0, rising, then those of row 1, and so on       |
| label        | int32 (N,)    | the dataset's label, -1 where there is none                                       |
| threshold    | float64 ()    | least probability of a class that counts as present                               |
| left_out     | text (any,)   | names of damaged groups, whose rows are not in the index                          |
| store_digest | text ()       | sha256 of the store's identity and its groups' commit records                     |
| version      | int64 ()      | of this table                                                                     |
| digest       | text ()       | sha256 of all other arrays                                                        |
"""

import csv
import hashlib
import io
import math
from dataclasses import dataclass, field, fields
from errno import ENOENT
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from store.audit.figures import GroupAudit, present_cells
from store.errors import AuditIndexError, DamagedStoreError, StoreReadError
from store.format.schema import CommitRecord, StoreSchema, seal
from store.reader import LabelStore
from store.text import first_line, printable

INDEX_VERSION = 2
ROOM_GROUP, ROOM_ROW, ROOM_HEADERS = 2048, 20, 1 << 16  # bytes, an upper bound of an index's size, without `present`
COLUMNS = ("group", "row", "key", "label", "label_name", "label_whole", "label_best_cell", "top", "top_name",
           "top_probability", "entropy_bits", "classes")  # fmt: skip
# Characters that begin a formula in a spreadsheet; tabs and line ends are escaped before.
FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001  (the full-width ones count too)

Commits = dict[str, CommitRecord | None]  # by the groups' names; None for a damaged one


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AuditIndex:
    """The index; the module's table describes each array."""

    group: NDArray[np.str_]  # (G,)
    rows: NDArray[np.int32]  # (G,)
    row: NDArray[np.int32]  # (N,)
    disagreement: NDArray[np.float32]  # (N,) NaN where there is no label
    entropy: NDArray[np.float32]  # (N,)
    classes: NDArray[np.int16]  # (N,)
    present: NDArray[np.uint16]  # (P,)
    label: NDArray[np.int32]  # (N,)
    threshold: float
    left_out: NDArray[np.str_]  # names of groups
    store_digest: str

    def write(self, file: BinaryIO) -> None:
        """Write the file, with its version and digest."""
        arrays = {name: np.asarray(getattr(self, name)) for name in FIELDS}
        np.savez(file, allow_pickle=False, **arrays, version=np.array(INDEX_VERSION), digest=np.array(_digest(arrays)))


FIELDS = tuple(field.name for field in fields(AuditIndex))


@dataclass(kw_only=True, slots=True)
class IndexParts:
    """The index while the groups are audited one by one."""

    names: list[str] = field(default_factory=list)
    parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)

    def add(self, group: GroupAudit) -> None:
        """Add a group's rows."""
        figures = group.figures
        self.names.append(group.name)
        self.parts.append(
            (group.rows, 1 - figures.label_whole, figures.entropy, figures.classes, figures.present, group.labels)
        )

    def write(self, file: BinaryIO, *, digest: str, left_out: list[str], threshold: float) -> None:
        """Write the index.

        Args:
            file: open for writing.
            digest: the store's `store_digest` from before the first group was read.
            left_out: names of groups that could not be read.
            threshold: of the audit.
        """
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)] or [np.zeros(0)] * 6
        row, disagreement, entropy, classes, present, label = columns
        AuditIndex(
            group=np.array(self.names, np.str_),
            rows=np.array([len(part[0]) for part in self.parts], np.int32),
            row=row.astype(np.int32),
            disagreement=disagreement.astype(np.float32),
            entropy=entropy.astype(np.float32),
            classes=classes.astype(np.int16),
            present=present.astype(np.uint16),
            label=label.astype(np.int32),
            threshold=threshold,
            left_out=np.array(left_out, np.str_),
            store_digest=digest,
        ).write(file)


def store_digest(store: LabelStore) -> str:
    """Hex sha256 over the store's root attributes and its groups' commit records; no arrays are read.

    Raises:
        StoreReadError: the store cannot be listed.
    """
    return _store_digest(store, _commits(store))


def read_index(path: Path, store: LabelStore) -> AuditIndex:
    """Read a file that was made from this store as it is now.

    Raises:
        AuditIndexError: it cannot be read, is not an index or was changed, or the store is another one or has changed.
    """
    again = f"run `relabel-store audit {store} --index {path}`"
    commits = _commits(store)
    try:
        index = _load(path, commits, store.schema)
    except OSError as error:
        raise AuditIndexError(f"{path}: cannot be read: {error.strerror or first_line(error)}; {again}") from error
    except Exception as error:  # zipfile and numpy raise errors of many types for hostile bytes
        raise AuditIndexError(f"{path}: not an index of this release ({first_line(error)}); {again}") from error
    if index.store_digest != _store_digest(store, commits):
        raise AuditIndexError(f"{path}: made from another store than {store} is now; {again}")
    return index


def _load(path: Path, commits: Commits, schema: StoreSchema) -> AuditIndex:
    """The index in a file, which may not unpack to more bytes than an index of this store; ValueError if unfit."""
    if not path.is_file():
        raise FileNotFoundError(ENOENT, "No such file" if not path.exists() else "not a regular file")
    rows = sum(commit.rows for commit in commits.values() if commit is not None)
    most_present = math.prod(schema.map_size) // present_cells(schema.map_size)
    room = ROOM_HEADERS + ROOM_GROUP * len(commits) + (ROOM_ROW + 2 * most_present) * rows
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        if sum(entry.file_size for entry in archive.zip.infolist()) > room:
            raise ValueError("too large for this store")
        if "version" not in archive or (version := int(archive["version"])) != INDEX_VERSION:
            raise ValueError(f"version {version if 'version' in archive else 0}, expected {INDEX_VERSION}")
        arrays: dict[str, Any] = {name: archive[name] for name in FIELDS}
        if str(archive["digest"]) != _digest(arrays):
            raise ValueError("changed since it was written")
    scalars = {"store_digest": str(arrays["store_digest"]), "threshold": float(arrays["threshold"])}
    index = AuditIndex(**(arrays | scalars))
    of_rows = (index.disagreement, index.entropy, index.classes, index.label)
    if {len(array) for array in of_rows} | {int(index.rows.sum())} != {len(index.row)}:
        raise ValueError("arrays of unequal lengths")
    if len(index.present) != int(index.classes.astype(np.int64).sum()):
        raise ValueError("arrays of unequal lengths")
    return index


def _digest(arrays: dict[str, Any]) -> str:
    """Hex sha256 over the arrays' names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name, array in arrays.items():
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return state.hexdigest()


def _commits(store: LabelStore) -> Commits:
    found: Commits = {}
    for name in store.names():
        try:
            found[name] = store.unchecked_group(name).commit
        except (DamagedStoreError, StoreReadError):
            found[name] = None
    return found


def _store_digest(store: LabelStore, commits: Commits) -> str:
    state = hashlib.sha256(seal({}, store.root).encode())
    for name, commit in commits.items():
        record = "damaged" if commit is None else seal(commit.body(), store.root)
        state.update(f"\n{name} {record}".encode())
    return state.hexdigest()


class CsvAudit:
    """A CSV in UTF-8 with a line for every decodable image, in the order of groups and rows."""

    def __init__(self, handle: BinaryIO, schema: StoreSchema) -> None:
        self._text = io.TextIOWrapper(handle, encoding="utf-8", newline="", write_through=True)
        self._lines = csv.writer(self._text, lineterminator="\n")
        self._lines.writerow(COLUMNS)
        self._names = [safe_cell(schema.class_name(c)) for c in range(schema.num_classes)]

    def add(self, group: GroupAudit) -> None:
        """Write a line for each of a group's images."""
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
        for row, key, label, whole, best, top, probability, entropy, classes in columns:
            label_cells = ("", "") if label < 0 else (label, names[label] if label < len(names) else "")
            self._lines.writerow((
                name, row, safe_cell(key), *label_cells, _number(whole), _number(best), top, names[top],
                _number(probability), _number(entropy), classes,
            ))  # fmt: skip

    def close(self) -> None:
        """Stop writing; the file stays open."""
        self._text.detach()


def safe_cell(text: str) -> str:
    r"""Text that is safe in a terminal and in a spreadsheet.

    Control characters are escaped, and an apostrophe is put before text that a spreadsheet would read as a formula.

    >>> safe_cell("=1+2"), safe_cell("\t=1"), safe_cell("n01_7")
    ("'=1+2", '\\t=1', 'n01_7')
    """
    shown = text if text.isprintable() else printable(text, limit=len(text))
    return f"'{shown}" if shown.lstrip(" ").startswith(FORMULA_STARTS) else shown


def _number(value: float) -> str:
    """Six digits; empty for NaN."""
    return "" if math.isnan(value) else f"{value:.6g}"
