"""Joins image shards to their label groups."""

from collections.abc import Sequence
from dataclasses import dataclass

from store.errors import JoinError
from store.group import LabelGroup
from store.reader import LabelStore
from store.shards.index import shard_name
from store.shards.remote import Shard
from store.text import first_few


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinedShard:
    """An image shard and its labels; row i of the group is the shard's i-th sample."""

    shard: Shard
    group: LabelGroup
    start: int  # number of the shard's first row among the rows of all shards


def join_shards(shards: Sequence[Shard], store: LabelStore) -> tuple[JoinedShard, ...]:
    """Find the label group of every shard, in the order given.

    Raises:
        JoinError: shards without labels; the message counts them and names the first.
        DamagedStoreError: a commit record that is damaged or does not match its group.
    """
    if not shards:
        raise JoinError("no shards to train on")
    has_labels = store.backend.map(lambda shard: shard_name(shard) in store, shards)
    missing = [str(shard) for shard, is_labelled in zip(shards, has_labels, strict=True) if not is_labelled]
    if missing:
        raise JoinError(
            f"{store}: no labels for {len(missing)} of {len(shards)} shards: {first_few(missing)}; "
            "annotate them first (relabel-annotate run)"
        )
    joined: list[JoinedShard] = []
    start = 0
    groups = store.backend.map(lambda shard: store.group(shard_name(shard)), shards)
    for shard, group in zip(shards, groups, strict=True):
        joined.append(JoinedShard(shard=shard, group=group, start=start))
        start += len(group)
    return tuple(joined)


def undecodable_rows(joined: Sequence[JoinedShard]) -> tuple[int, ...]:
    """Row numbers, through all shards, of the images that could not be decoded."""
    return tuple(shard.start + row for shard in joined for row in sorted(shard.group.undecodable))
