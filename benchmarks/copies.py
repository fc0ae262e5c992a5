"""Shards and their labels again and again under other names, for benchmarks that need more of them than there are."""

import shutil
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from store.format.schema import CommitRecord, ObjectRecord, TarIdentity
from store.reader import LabelStore
from store.shards.index import shard_name
from store.writer import GroupLabels, StoreWriter

TAR = TarIdentity(size=1 << 40, mtime_ns=0, sha256="0" * 64)  # of groups whose image shard is not there


def copy_shards(shards: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """The shards in turn, as `copy-000.tar` and so on."""
    folder.mkdir()
    return [Path(shutil.copy(shards[i % len(shards)], folder / f"copy-{i:03}.tar")) for i in range(count)]


def copy_labels(shards: Sequence[Path], labels: LabelStore, path: Path, count: int) -> LabelStore:
    """A store of the labels of `copy_shards`' copies."""
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


def publish_objects(writer: StoreWriter, name: str, objects: Mapping[str, bytes], *, rows: int) -> None:
    """Commit a group whose arrays are encoded already, of a tar that does not exist."""
    records = {path: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for path, data in objects.items()}
    record = CommitRecord(
        rows=rows,
        tar=TAR,
        teacher_digest=writer.schema.teacher.digest,
        prefix="",
        objects=records,
        undecodable=(),
        provenance={},
    )
    writer.publish(name, objects, record)
