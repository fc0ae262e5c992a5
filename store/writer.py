"""Writing of a store: `StoreWriter` creates it or checks its schema, and commits label groups.

A group is encoded in memory and committed by the storage backend, completely or not at all.

Letters: N rows, K kept classes, H W cells (y, x).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Set
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
from store.format.checks import check_centred, check_maps, check_samples, check_topk_order
from store.format.chunks import check_encoding
from store.format.parse import parse_attributes, sealed_root
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
from store.shards.index import ShardIndex
from store.storage.base import NewGroup, StorageBackend
from store.storage.open import open_backend

FIELDS = {"tail": "tail_logsumexp", "targets": "labels"}  # stored arrays that have another name in the code


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupLabels:
    """All rows of one label group, before they are written.

    Raises:
        LabelMapError: shapes, dtypes, keys or scores that the format cannot hold.
    """

    classes: NDArray[np.uint16]  # (N, K, H, W), k = 0 the highest score
    scores: NDArray[np.float16]  # (N, K, H, W) logits, descending along K
    tail_logsumexp: NDArray[np.float16] | None  # (N, H, W) log-sum-exp of the logits outside the top K
    keys: tuple[str, ...]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of the image in its tar
    digests: NDArray[np.uint64]  # (N,) BLAKE2b-64 of the image bytes, little-endian
    labels: NDArray[np.int32]  # (N,) the dataset's labels, -1 where there is none
    undecodable: tuple[Undecodable, ...] = ()

    def __post_init__(self) -> None:
        """Check shapes, keys, and what can be checked without the class count."""
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
        # Tails may be -inf where K = C, which only the store's schema tells.
        problem = check_maps(*maps[:2], None, self.usable, num_classes=MAX_CLASSES) or check_topk_order(*maps)
        if problem is not None:
            raise LabelMapError(f"{problem[0]}: {problem[1]}; float16 holds logits within +-65,504")

    @classmethod
    def of_shard(
        cls,
        index: ShardIndex,
        *,
        classes: NDArray[np.uint16],
        scores: NDArray[np.float16],
        tail_logsumexp: NDArray[np.float16] | None,
        digests: NDArray[np.uint64],
        undecodable: Iterable[Undecodable],
    ) -> "GroupLabels":
        """The label maps of a shard's samples, in their order, with keys, places and labels from its index."""
        return cls(
            classes=classes,
            scores=scores,
            tail_logsumexp=tail_logsumexp,
            keys=tuple(sample.key for sample in index.samples),
            offsets=np.array([(sample.offset, sample.length) for sample in index.samples], np.uint64),
            digests=digests,
            labels=np.array([sample.label for sample in index.samples], np.int32),
            undecodable=tuple(undecodable),
        )

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) bool: whether each row's image could be decoded."""
        mask = np.ones(len(self.keys), bool)
        mask[[bad.row for bad in self.undecodable]] = False
        return mask


class StoreWriter:
    """A store opened for writing, to which groups of one schema are added.

    Raises:
        StoreMismatchError: the store belongs to another teacher, preprocessing or size, or has other class names.
        CodecError: Zarr cannot encode arrays as it is installed and configured here.
    """

    def __init__(self, store: LabelStore, schema: StoreSchema) -> None:
        check_encoding(schema)
        self.store = store
        self.restored: list[str] = []  # groups put back whose writer was killed while replacing them
        differences = store.schema.differences(schema, "in the store", "in this run")
        if schema.class_names is not None and schema.class_names != store.schema.class_names:
            differences.append("class_names")
        if differences:
            raise StoreMismatchError(
                f"{store}: written with another teacher or preprocessing ({'; '.join(differences)}); "
                "choose another --labels, or --overwrite with all of its shards"
            )

    @classmethod
    def open(cls, location: Path | str, schema: StoreSchema) -> "StoreWriter":
        """Open the store at a path or an object store's URL; create it if it is absent.

        A group that is missing because its writer was killed while replacing it is put back, and named in `restored`.

        Raises:
            StoreMismatchError: as for the class, or files there that are no store.
            StoreWriteError: the disk or network refused.
        """
        backend = open_backend(location)
        with write_errors(backend):
            writer = cls(_find_store(backend) or _create_store(backend, schema), schema)
            for leftover in backend.interrupted():
                backend.clean(leftover)
                writer.restored.append(str(leftover.only_copy_of))
        return writer

    @property
    def schema(self) -> StoreSchema:
        """The store's own schema, which may have class names where the run's has none."""
        return self.store.schema

    def write(
        self,
        name: str,
        labels: GroupLabels,
        *,
        tar: TarIdentity,
        provenance: dict[str, str],
        overwrite: bool = False,
    ) -> CommitRecord:
        """Commit one label group.

        Args:
            name: of the image shard, and of the group.
            labels: the group's rows.
            tar: the image shard.
            provenance: versions, precision and device, by name.
            overwrite: replace a group of this name.

        Raises:
            GroupExistsError: the group is there already; nothing was changed.
            LabelMapError: the maps do not fit the store's schema.
            ShardError: the name cannot be a group's.
            StoreMismatchError: the store was replaced or changed since it was opened.
            StoreNotFoundError: it is gone.
            StoreWriteError: the disk or network refused; nothing is visible in the store.
        """
        _check_fit(name, labels, self.schema, tar)
        objects: dict[str, bytes] = {}
        for spec in array_specs(self.schema, len(labels.keys), with_tail=labels.tail_logsumexp is not None):
            objects |= encode_array(spec, _values(labels, spec.name))
        record = CommitRecord(
            rows=len(labels.keys),
            tar=tar,
            teacher_digest=self.schema.teacher.digest,
            prefix="",
            objects={
                path: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for path, data in objects.items()
            },
            undecodable=labels.undecodable,
            provenance=provenance,
        )
        return self.publish(name, objects, record, overwrite=overwrite)

    def publish(
        self, name: str, objects: Mapping[str, bytes], record: CommitRecord, *, overwrite: bool = False
    ) -> CommitRecord:
        """Commit a group of encoded objects; returns the record with the prefix under which they are stored.

        Raises:
            GroupExistsError, StoreWriteError: as `write`.
            StoreMismatchError: the store's root was replaced since it was opened; nothing was written.
            StoreNotFoundError: the store was removed since it was opened.
        """
        sealed: list[CommitRecord] = []

        def group_file(prefix: str) -> bytes:
            sealed.append(msgspec.structs.replace(record, prefix=prefix, group=name))
            return _group_json({COMMIT_ATTRIBUTE: sealed[-1].to_attributes(self.store.root)})

        with write_errors(self.store.backend):
            LabelStore.of(self.store.backend)  # else the folder of a store that is gone would be made anew
            group = NewGroup(objects=objects, record=group_file, check_root=self._check_root)
            self.store.backend.publish(name, group, overwrite=overwrite)
        return sealed[-1]

    def _check_root(self, data: bytes) -> None:
        """Raise StoreMismatchError for another root than this writer's, to which its groups would not belong."""
        where = self.store.backend.at(GROUP_FILE)
        if sealed_root(parse_attributes(data, where).get(ROOT_ATTRIBUTE, {}), where) != self.store.root:
            raise StoreMismatchError(f"{self.store}: was replaced or changed while it was open; run again")


def set_aside_other(location: Path | str, schema: StoreSchema, replaces: Set[str]) -> str | None:
    """Rename a store of another teacher or preprocessing, so that a new one can be created; nothing is deleted.

    Args:
        location: path or URL of the store.
        schema: of the groups to come.
        replaces: their names; a store with other groups is not renamed, nor is one in an object store.

    Returns:
        The old store's new path, None if it was not renamed.

    Raises:
        StoreWriteError: it cannot be renamed.
    """
    backend = open_backend(location)
    found = _find_store(backend)
    if found is None or not found.schema.differences(schema) or not set(found.names()) <= replaces:
        return None
    with write_errors(backend):
        return backend.set_aside()


def _check_fit(name: str, labels: GroupLabels, schema: StoreSchema, tar: TarIdentity) -> None:
    if not is_group_name(name):
        raise ShardError(f"group name {name!r} must match {GROUP_NAME.pattern} and not be {GROUP_FILE}")
    if labels.classes.shape[1:] != (schema.top_k, *schema.map_size):
        raise LabelMapError(
            f"{name}: maps of shape {labels.classes.shape[1:]}, the store holds {(schema.top_k, *schema.map_size)}"
        )
    bad = {row.row: row.key for row in labels.undecodable}
    maps = labels.classes, labels.scores, labels.tail_logsumexp, labels.usable
    problem = (
        check_maps(*maps, num_classes=schema.num_classes)
        or check_centred(labels.scores, labels.usable, schema)
        or check_samples(labels.keys, labels.offsets, labels.labels, bad, tar_size=tar.size)
    )
    if problem is not None:
        raise LabelMapError(f"{name}: {problem[0]}: {problem[1]}")


def _values(labels: GroupLabels, name: str) -> NDArray[Any]:
    # zarr takes strings of any length as numpy's object arrays.
    return np.array(labels.keys, dtype=object) if name == "keys" else getattr(labels, FIELDS.get(name, name))


def _find_store(backend: StorageBackend) -> LabelStore | None:
    try:
        return LabelStore.of(backend)
    except StoreNotFoundError:
        return None


def _create_store(backend: StorageBackend, schema: StoreSchema) -> LabelStore:
    # Looked for again, since another writer may have created the store meanwhile.
    if backend.is_occupied() and _find_store(backend) is None:
        raise StoreMismatchError(f"{backend}: not a label store and not empty; choose an empty or new folder")
    backend.create_root(_group_json({ROOT_ATTRIBUTE: schema.to_attributes()}))
    return LabelStore.of(backend)


def _group_json(attributes: Json) -> bytes:
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}, indent=1, allow_nan=False)
    return text.encode()


@contextmanager
def write_errors(backend: StorageBackend) -> Iterator[None]:
    """Turn an OSError of a storage backend into a StoreWriteError."""
    try:
        yield
    except RelabelError:
        raise
    except OSError as error:
        where = error.filename or backend
        raise StoreWriteError(
            f"{where}: cannot be written: {error.strerror or error}; nothing was committed"
        ) from error
