"""Makes many shards and label groups from few, by copying them under other names."""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from store.format.arrays import array_specs, encode_array
from store.format.schema import CommitRecord, ObjectRecord, StoreSchema, TarIdentity
from store.group import LabelGroup
from store.maps.types import LabelRows
from store.reader import LabelStore
from store.shards.index import shard_name
from store.writer import GroupLabels, StoreWriter

TAR = TarIdentity(size=1 << 40, mtime_ns=0, sha256="0" * 64)  # of groups whose image shard does not exist


def copy_shards(shards: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Copy shards in turn to `copy-000.tar` and so on."""
    folder.mkdir()
    return [Path(shutil.copy(shards[i % len(shards)], folder / f"copy-{i:03}.tar")) for i in range(count)]


def copy_labels(shards: Sequence[Path], labels: LabelStore, path: Path, count: int) -> LabelStore:
    """Write the store that belongs to the copies of `copy_shards`."""
    writer = StoreWriter.open(path, labels.schema)
    for i in range(count):
        group = labels.group(shard_name(shards[i % len(shards)]))
        maps = group.read()
        copied = GroupLabels(
            classes=maps.classes,
            scores=maps.scores,
            tail_logsumexp=maps.tail_logsumexp,
            keys=tuple(group.keys),
            offsets=group.offsets,
            digests=group.digests,
            labels=group.labels,
            undecodable=group.commit.undecodable,
        )
        writer.write(f"copy-{i:03}", copied, tar=group.commit.tar, provenance={})
    return writer.store


class BlankGroup(LabelGroup):
    """A label group that returns blank label maps and never reads the store."""

    @classmethod
    def of(cls, group: LabelGroup) -> "BlankGroup":
        """The blank group of the same name and rows."""
        return cls(group.backend, group.name, group.schema, group.commit, group.record)

    def fresh(self) -> "BlankGroup":
        """The group itself, which holds nothing."""
        return self

    def read(self, start: int = 0, stop: int | None = None, *, with_tail: bool = True) -> LabelRows:
        """Zeros for the rows start to stop, without a tail."""
        shape = ((len(self) if stop is None else stop) - start, self.schema.top_k, *self.schema.map_size)
        return LabelRows(classes=np.zeros(shape, np.uint16), scores=np.zeros(shape, np.float16), tail_logsumexp=None)


def make_big_store(
    path: Path,
    schema: StoreSchema,
    labels: GroupLabels,
    names_and_keys: Iterable[tuple[str, Sequence[str]]],
    *,
    linked: bool = False,
) -> None:
    """Write groups that differ in their names and keys only, since encoding each group's maps would take too long.

    Args:
        path: of the new store.
        schema: of the store.
        labels: of every group, apart from the keys.
        names_and_keys: of each group.
        linked: whether the other objects are hard links to the first group's, to save disk space.
    """
    writer = StoreWriter.open(path, schema)
    rows, first = len(labels.keys), ""
    shared: dict[str, bytes] = {}
    keys_spec = next(spec for spec in array_specs(schema, rows, with_tail=False) if spec.name == "keys")
    for name, keys in names_and_keys:
        if not shared:
            record = writer.write(name, replace(labels, keys=tuple(keys)), tar=TAR, provenance={})
            shared, first = {file: (path / name / file).read_bytes() for file in record.objects}, name
            continue
        objects = shared | encode_array(keys_spec, np.array(keys, dtype=object))
        writer.publish(name, objects, _record(objects, rows, writer.schema))
        for file in objects if linked else ():
            if not file.startswith("keys/"):
                (path / name / file).unlink()
                os.link(path / first / file, path / name / file)


def _record(objects: Mapping[str, bytes], rows: int, schema: StoreSchema) -> CommitRecord:
    records = {path: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for path, data in objects.items()}
    return CommitRecord(
        rows=rows,
        tar=TAR,
        teacher_digest=schema.teacher.digest,
        prefix="",
        objects=records,
        undecodable=(),
        provenance={},
    )
