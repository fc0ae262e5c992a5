"""Writing a store: create its root, then add label groups, each whole or not at all.

A group is built in `<store>.partial/`, synced to disk and renamed into the store, so that a killed writer leaves
nothing a reader could take for labels. Its commit record is written last.
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from store.errors import GroupExistsError, LabelMapError, ShardError, StoreMismatchError, StoreWriteError
from store.layout import GROUP_FILE, array_specs, write_array
from store.reader import LabelStore, read_attributes
from store.schema import (
    COMMIT_ATTRIBUTE,
    ROOT_ATTRIBUTE,
    CommitRecord,
    Json,
    ObjectRecord,
    Quarantined,
    StoreSchema,
    TarIdentity,
    parse_schema,
)
from store.shards import GROUP_NAME, hash_file


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupLabels:
    """All rows of one label group. N rows, K ranks, H W cells (y, x).

    Raises:
        LabelMapError: shapes, dtypes or scores that the format cannot hold.
    """

    classes: NDArray[np.uint16]  # (N, K, H, W), rank 0 the highest score
    scores: NDArray[np.float16]  # (N, K, H, W) logits, descending along K
    tail: NDArray[np.float16] | None  # (N, H, W) log-sum-exp of the logits outside the top K
    keys: tuple[str, ...]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of the image in its tar
    digests: NDArray[np.uint64]  # (N,) BLAKE2b-64 of the image bytes, little-endian
    targets: NDArray[np.int32]  # (N,) original labels, -1 where there is none
    quarantined: tuple[Quarantined, ...] = ()

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        n, k, h, w = self.classes.shape
        expected = {"scores": (n, k, h, w), "offsets": (n, 2), "digests": (n,), "targets": (n,)}
        if self.tail is not None:
            expected["tail"] = (n, h, w)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise LabelMapError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.keys) != n or len(set(self.keys)) != n:
            raise LabelMapError(f"{n} rows need as many different keys, found {len(set(self.keys))}")
        kept = np.ones(n, bool)
        kept[[bad.row for bad in self.quarantined]] = False
        scores = self.scores[kept]
        if not np.isfinite(scores).all():
            raise LabelMapError("scores that are not finite in float16: logits must lie within +-65,504")
        if (scores[:, :-1] < scores[:, 1:]).any():
            raise LabelMapError("scores must descend along K")


def open_root(path: Path, schema: StoreSchema) -> StoreSchema:
    """Create the store if it is absent, else check that this schema may write to it.

    Returns:
        The store's own schema.

    Raises:
        StoreMismatchError: the store belongs to another teacher, view or size, or has other class names.
        StoreWriteError: the path cannot be written.
    """
    with _disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        root_file = path / GROUP_FILE
        if not root_file.exists():
            if any(path.iterdir()) and not root_file.exists():
                raise StoreMismatchError(f"{path}: a folder that is not a label store; choose an empty or new one")
            _create_root_file(root_file, schema)
    found = read_schema(path)
    differences = found.differences(schema)
    if schema.class_names is not None and schema.class_names != found.class_names:
        differences.append("class_names")
    if differences:
        raise StoreMismatchError(
            f"{path}: written with another teacher or view ({'; '.join(differences)}); "
            "choose another --labels, or --overwrite with all of its shards"
        )
    return found


def set_aside_other(path: Path, schema: StoreSchema, replaces: Set[str]) -> Path | None:
    """Make room for a store of this schema where one of another teacher or view lies; nothing is deleted.

    Args:
        path: the store.
        schema: of the groups to come.
        replaces: their names; a store with other groups stays where it is.

    Returns:
        Where the old store lies now, None if it stayed.

    Raises:
        StoreWriteError: it cannot be renamed.
    """
    if not (path / GROUP_FILE).is_file() or not read_schema(path).differences(schema):
        return None
    if not set(LabelStore.open(path).names()) <= replaces:
        return None
    path = path.resolve()
    aside = path.with_name(f"{path.name}.replaced-{secrets.token_hex(4)}")
    with _disk_errors(path):
        path.rename(aside)
        _sync_folder(path.parent)
    return aside


def read_schema(path: Path) -> StoreSchema:
    """The schema of the store at a path.

    Raises:
        DamagedStoreError, FormatVersionError: it cannot be read.
    """
    file = path / GROUP_FILE
    return parse_schema(read_attributes(file).get(ROOT_ATTRIBUTE), str(file))


def write_group(
    path: Path,
    name: str,
    labels: GroupLabels,
    *,
    schema: StoreSchema,
    tar: TarIdentity,
    provenance: dict[str, str],
    overwrite: bool = False,
) -> CommitRecord:
    """Commit one label group under the name of its image shard.

    Raises:
        GroupExistsError: the group is there already; nothing was changed.
        LabelMapError: the maps do not fit the store's schema.
        StoreWriteError: the disk refused; nothing is visible in the store.
    """
    _check_fit(name, labels, schema)
    with _disk_errors(path):
        attempt = _start_attempt(path, name)
        try:
            for spec in array_specs(schema, len(labels.keys), with_tail=labels.tail is not None):
                write_array(attempt, spec, _values(labels, spec.name))
            record = CommitRecord(
                rows=len(labels.keys),
                tar=tar,
                teacher_digest=schema.teacher.digest,
                prefix="",
                objects=_sync_objects(attempt),
                quarantined=labels.quarantined,
                provenance=provenance,
            )
            write_synced(attempt / GROUP_FILE, _group_json({COMMIT_ATTRIBUTE: record.to_attributes(schema)}))
            _sync_folder(attempt)
            _move_into_place(attempt, path / name, overwrite=overwrite)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
            _remove_if_empty(attempt.parent)
    return record


def write_synced(file: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    with file.open("xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _check_fit(name: str, labels: GroupLabels, schema: StoreSchema) -> None:
    if not GROUP_NAME.fullmatch(name) or name == GROUP_FILE:
        raise ShardError(f"group name {name!r} must match {GROUP_NAME.pattern}")
    if labels.classes.shape[1:] != (schema.top_k, *schema.map_size):
        raise LabelMapError(
            f"{name}: maps of shape {labels.classes.shape[1:]}, the store holds {(schema.top_k, *schema.map_size)}"
        )
    kept = np.ones(len(labels.keys), bool)
    kept[[bad.row for bad in labels.quarantined]] = False
    if kept.any() and labels.classes[kept].max() >= schema.num_classes:
        raise LabelMapError(f"{name}: class id {labels.classes[kept].max()} of {schema.num_classes} classes")


def _values(labels: GroupLabels, name: str) -> NDArray[Any]:
    # numpy's object arrays are how zarr takes strings of any length.
    return np.array(labels.keys, dtype=object) if name == "keys" else getattr(labels, name)


def _start_attempt(path: Path, name: str) -> Path:
    """A new folder to build in, beside the store itself and not beside a link to it: renames stay on one disk."""
    real = path.resolve()
    attempt = real.with_name(real.name + ".partial") / f"{name}.{secrets.token_hex(8)}"
    while True:
        attempt.parent.mkdir(exist_ok=True)
        try:
            attempt.mkdir()
        except FileNotFoundError:  # another writer has just removed the empty parent
            continue
        return attempt


def _create_root_file(root_file: Path, schema: StoreSchema) -> None:
    """Write the root aside and link it into place, which fails if another writer came first."""
    attempt = _start_attempt(root_file.parent, "root")
    try:
        write_synced(attempt / GROUP_FILE, _group_json({ROOT_ATTRIBUTE: schema.to_attributes()}))
        with suppress(FileExistsError):  # the other's identity is compared like any store's
            os.link(attempt / GROUP_FILE, root_file)
        _sync_folder(root_file.parent)
    finally:
        shutil.rmtree(attempt, ignore_errors=True)
        _remove_if_empty(attempt.parent)


def _group_json(attributes: Json) -> bytes:
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, allow_nan=False)
    return text.encode()


def _sync_objects(attempt: Path) -> dict[str, ObjectRecord]:
    """Size and sha256 of every file below the attempt, each synced to disk with its folders."""
    objects: dict[str, ObjectRecord] = {}
    for folder, _, files in os.walk(attempt, topdown=False):
        for file in (Path(folder) / file for file in files):
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
            record = ObjectRecord(size=file.stat().st_size, sha256=hash_file(file))
            objects[file.relative_to(attempt).as_posix()] = record
        _sync_folder(Path(folder))
    return dict(sorted(objects.items()))


def _move_into_place(attempt: Path, group: Path, *, overwrite: bool) -> None:
    """Rename the attempt to its group; a group that another writer put there first stays.

    A folder without a commit record, such as an interrupted copy leaves, is no group and makes way.
    """
    if group.exists() and (overwrite or not _is_committed(group)):
        old = attempt.with_name(attempt.name + ".replaced")
        group.rename(old)
        try:
            attempt.rename(group)
        except OSError:
            old.rename(group)
            raise
        _sync_folder(group.parent)
        shutil.rmtree(old, ignore_errors=True)
        return
    try:
        attempt.rename(group)
    except OSError as error:
        if group.exists():
            raise GroupExistsError(f"{group}: already there; use --overwrite to replace it") from error
        raise
    _sync_folder(group.parent)


def _is_committed(group: Path) -> bool:
    file = group / GROUP_FILE
    return file.is_file() and COMMIT_ATTRIBUTE in read_attributes(file)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # another writer is at work in it, or it is gone


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except GroupExistsError:
        raise
    except OSError as error:
        where = error.filename or path
        raise StoreWriteError(
            f"{where}: cannot be written: {error.strerror or error}; nothing was committed"
        ) from error
