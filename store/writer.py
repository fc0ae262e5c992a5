"""Writing a store: create its root, then add label groups, each whole or not at all.

A group is encoded in memory and handed to the storage backend, whose commit protocol makes it exist.

Letters: N rows, K ranks, H W cells (y, x).
"""

import json
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from store.errors import (
    LabelMapError,
    RelabelError,
    ShardError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreWriteError,
)
from store.format.arrays import array_specs, encode_array
from store.format.checks import check_maps, check_samples, check_topk_order
from store.format.schema import (
    COMMIT_ATTRIBUTE,
    GROUP_FILE,
    GROUP_NAME,
    MAX_CLASSES,
    ROOT_ATTRIBUTE,
    CommitRecord,
    Json,
    ObjectRecord,
    StoreSchema,
    TarIdentity,
    Undecodable,
    is_group_name,
)
from store.reader import LabelStore
from store.storage.base import StorageBackend
from store.storage.open import open_backend

# The rows of one label group before they are written.
#
# Letters: N rows, K ranks, H W cells (y, x).


FIELDS = {"tail": "tail_logsumexp", "targets": "labels"}  # arrays of the format that have another name here


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupLabels:
    """All rows of one label group.

    Raises:
        LabelMapError: shapes, dtypes, keys or scores that the format cannot hold.
    """

    classes: NDArray[np.uint16]  # (N, K, H, W), rank 0 the highest score
    scores: NDArray[np.float16]  # (N, K, H, W) logits, descending along K
    tail_logsumexp: NDArray[np.float16] | None  # (N, H, W) log-sum-exp of the logits outside the top K
    keys: tuple[str, ...]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of the image in its tar
    digests: NDArray[np.uint64]  # (N,) BLAKE2b-64 of the image bytes, little-endian
    labels: NDArray[np.int32]  # (N,) original labels, -1 where there is none
    undecodable: tuple[Undecodable, ...] = ()

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        n, k, h, w = self.classes.shape
        expected = {"scores": (n, k, h, w), "offsets": (n, 2), "digests": (n,), "labels": (n,)}
        if self.tail_logsumexp is not None:
            expected["tail_logsumexp"] = (n, h, w)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise LabelMapError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.keys) != n or len(set(self.keys)) != n:
            raise LabelMapError(f"{n} rows need as many different keys, found {len(set(self.keys))}")
        maps = self.classes, self.scores, self.tail_logsumexp, self.usable
        # Tails of -inf are for the store to judge, which knows the class count.
        problem = check_maps(*maps[:2], None, self.usable, num_classes=MAX_CLASSES) or check_topk_order(*maps)
        if problem is not None:
            raise LabelMapError(f"{problem[0]}: {problem[1]}; float16 holds logits within +-65,504")

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) bool: which rows are not quarantined."""
        mask = np.ones(len(self.keys), bool)
        mask[[bad.row for bad in self.undecodable]] = False
        return mask


def open_root(location: Path | str, schema: StoreSchema) -> StoreSchema:
    """Create the store if it is absent, else check that this schema may write to it.

    Returns:
        The store's own schema.

    Raises:
        StoreMismatchError: the store belongs to another teacher, view or size, or has other class names.
        StoreWriteError: the place cannot be written.
    """
    backend = open_backend(location)
    with write_errors(backend):
        found = _find_root(backend) or _create_root(backend, schema)
    differences = found.differences(schema, "in the store", "in this run")
    if schema.class_names is not None and schema.class_names != found.class_names:
        differences.append("class_names")
    if differences:
        raise StoreMismatchError(
            f"{backend}: written with another teacher or view ({'; '.join(differences)}); "
            "choose another --labels, or --overwrite with all of its shards"
        )
    return found


def set_aside_other(location: Path | str, schema: StoreSchema, replaces: Set[str]) -> str | None:
    """Make room for a store of this schema where one of another teacher or view lies; nothing is deleted.

    Args:
        location: of the store.
        schema: of the groups to come.
        replaces: their names; a store with other groups stays where it is, and so does one in an object store.

    Returns:
        Where the old store lies now, None if it stayed.

    Raises:
        StoreWriteError: it cannot be renamed.
    """
    backend = open_backend(location)
    found = _find_root(backend)
    if found is None or not found.differences(schema) or not set(LabelStore.open(location).names()) <= replaces:
        return None
    with write_errors(backend):
        return backend.set_aside()


def write_group(
    location: Path | str,
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
        StoreWriteError: the disk or network refused; nothing is visible in the store.
    """
    _check_fit(name, labels, schema, tar)
    objects: dict[str, bytes] = {}
    for spec in array_specs(schema, len(labels.keys), with_tail=labels.tail_logsumexp is not None):
        objects |= encode_array(spec, _values(labels, spec.name))
    record = CommitRecord(
        rows=len(labels.keys),
        tar=tar,
        teacher_digest=schema.teacher.digest,
        prefix="",
        objects={path: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for path, data in objects.items()},
        undecodable=labels.undecodable,
        provenance=provenance,
    )
    return publish(open_backend(location), name, objects, record, overwrite=overwrite)


def publish(
    backend: StorageBackend,
    name: str,
    objects: Mapping[str, bytes],
    record: CommitRecord,
    *,
    overwrite: bool = False,
) -> CommitRecord:
    """Make a group of these objects exist, its record sealed with the store's root and the place's prefix.

    Raises:
        GroupExistsError, StoreWriteError: as `write_group`.
    """
    sealed: list[CommitRecord] = []

    def group_file(prefix: str) -> bytes:
        sealed.append(msgspec.structs.replace(record, prefix=prefix))
        return _group_json({COMMIT_ATTRIBUTE: sealed[-1].to_attributes(root)})

    with write_errors(backend):
        root = LabelStore.of(backend).root
        backend.publish(name, objects, group_file, overwrite=overwrite)
    return sealed[-1]


def _check_fit(name: str, labels: GroupLabels, schema: StoreSchema, tar: TarIdentity) -> None:
    if not is_group_name(name):
        raise ShardError(f"group name {name!r} must match {GROUP_NAME.pattern} and not be {GROUP_FILE}")
    if labels.classes.shape[1:] != (schema.top_k, *schema.map_size):
        raise LabelMapError(
            f"{name}: maps of shape {labels.classes.shape[1:]}, the store holds {(schema.top_k, *schema.map_size)}"
        )
    bad = {row.row: row.key for row in labels.undecodable}
    problem = check_maps(
        labels.classes, labels.scores, labels.tail_logsumexp, labels.usable, num_classes=schema.num_classes
    ) or check_samples(labels.keys, labels.offsets, labels.labels, bad, tar_size=tar.size)
    if problem is not None:
        raise LabelMapError(f"{name}: {problem[0]}: {problem[1]}")


def _values(labels: GroupLabels, name: str) -> NDArray[Any]:
    # numpy's object arrays are how zarr takes strings of any length.
    return np.array(labels.keys, dtype=object) if name == "keys" else getattr(labels, FIELDS.get(name, name))


def _find_root(backend: StorageBackend) -> StoreSchema | None:
    try:
        return LabelStore.of(backend).schema
    except StoreNotFoundError:
        return None


def _create_root(backend: StorageBackend, schema: StoreSchema) -> StoreSchema:
    # Asked again, since another writer may have made the store between the two looks.
    if backend.is_occupied() and _find_root(backend) is None:
        raise StoreMismatchError(f"{backend}: not a label store and not empty; choose an empty or new place")
    backend.create_root(_group_json({ROOT_ATTRIBUTE: schema.to_attributes()}))
    return LabelStore.of(backend).schema


def _group_json(attributes: Json) -> bytes:
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, allow_nan=False)
    return text.encode()


@contextmanager
def write_errors(backend: StorageBackend) -> Iterator[None]:
    """Turn what a place raises while it is written into StoreWriteError."""
    try:
        yield
    except RelabelError:
        raise
    except OSError as error:
        where = error.filename or backend
        raise StoreWriteError(
            f"{where}: cannot be written: {error.strerror or error}; nothing was committed"
        ) from error
