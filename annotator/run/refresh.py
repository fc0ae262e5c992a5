"""Takes over what has changed in annotated shards besides their images: labels (`.cls`), keys, packing, time.

The label maps belong to the images, and stay. No teacher is needed.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import msgspec
import numpy as np

from annotator.input.local_copies import LocalCopies
from store.errors import DamagedStoreError, LabelMapError, LabelNotFoundError, ShardError, StoreReadError
from store.format.arrays import array_specs, encode_array
from store.format.checks import check_samples
from store.format.schema import ObjectRecord, Undecodable
from store.group import LabelGroup
from store.shards.compare import advice, looks_unchanged, other_images
from store.shards.errors import shard_errors
from store.shards.index import ShardIndex, check_unchanged, shard_name
from store.shards.remote import Shard
from store.text import first_few
from store.writer import StoreWriter, write_errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """The outcome for one shard."""

    shard: Shard
    # unchanged: size and time are as recorded; missing: not annotated yet; refused: other images, or unreadable
    outcome: Literal["unchanged", "refreshed", "missing", "refused"]
    labels: int = 0  # that differ
    problem: str = ""


def refresh_shard(writer: StoreWriter, shard: Shard, copies: LocalCopies) -> Refreshed:
    """Write a shard's group anew with the shard's present labels, if the shard has changed and its images have not.

    Raises:
        StoreMismatchError, StoreNotFoundError: the store was replaced or removed meanwhile.
        StoreWriteError: the disk or network refused; the group is as it was.
    """
    try:
        name = shard_name(shard)
        with write_errors(writer.store.backend), writer.store.backend.lease(name) as is_free:
            if not is_free:
                raise ShardError(f"{shard}: is being annotated by another process; run again when it is done")
            group = writer.store.group(name)
            with shard_errors(shard):
                if looks_unchanged(shard.stat(), group.commit.tar):
                    return Refreshed(shard=shard, outcome="unchanged")
            index = copies.index(shard)
            try:
                return _refresh(writer, group, index)
            finally:
                copies.release(index)
    except LabelNotFoundError:
        return Refreshed(shard=shard, outcome="missing")
    except (ShardError, DamagedStoreError, StoreReadError) as error:
        return Refreshed(shard=shard, outcome="refused", problem=str(error))


def _refresh(writer: StoreWriter, group: LabelGroup, index: ShardIndex) -> Refreshed:
    if index.sha256 != group.commit.tar.sha256 and (rows := other_images(index, group)):
        keys = first_few([index.samples[row].key for row in rows if row < len(index.samples)])
        raise ShardError(
            f"{index.source}: {len(rows)} images are not those that were annotated ({keys or 'it holds fewer'}); "
            + advice(index, store=str(writer.store), same_images=False)
        )
    found = np.array([sample.label for sample in index.samples], np.int32)
    objects = _objects(writer, group, index)
    record = msgspec.structs.replace(
        group.commit,
        tar=index.identity(),
        objects={path: ObjectRecord(size=len(data), sha256=sha256(data).hexdigest()) for path, data in objects.items()},
        undecodable=tuple(
            Undecodable(row=bad.row, key=index.samples[bad.row].key, reason=bad.reason)
            for bad in group.commit.undecodable
        ),
    )
    labels = int((found != group.labels).sum())
    check_unchanged(index)
    writer.publish(group.name, objects, record, overwrite=True)
    return Refreshed(shard=index.source, outcome="refreshed", labels=labels)


def _objects(writer: StoreWriter, group: LabelGroup, index: ShardIndex) -> dict[str, bytes]:
    """The group's objects: label maps and digests byte by byte as they are, the shard's own rows encoded anew."""
    rows = {
        "keys": np.array([sample.key for sample in index.samples], dtype=object),
        "offsets": np.array([(sample.offset, sample.length) for sample in index.samples], np.uint64),
        "targets": np.array([sample.label for sample in index.samples], np.int32),
    }
    bad = {bad.row: index.samples[bad.row].key for bad in group.commit.undecodable}
    if problem := check_samples(rows["keys"].tolist(), rows["offsets"], rows["targets"], bad, tar_size=index.size):
        raise LabelMapError(f"{index.source}: {problem[0]}: {problem[1]}")
    kept = [path for path in group.commit.objects if path.partition("/")[0] not in rows]
    objects = {path: group.read_object(path) for path in kept}
    for spec in array_specs(writer.schema, len(group), with_tail=group.has_tail):
        if spec.name in rows:
            objects |= encode_array(spec, rows[spec.name])
    return objects
