"""The state of each shard, found from the store alone."""

from dataclasses import dataclass
from typing import Literal

from annotator.input.local_copies import LocalCopies
from annotator.input.plan import is_done
from store.errors import ChangedShardError, DamagedStoreError, ShardError, StoreReadError
from store.reader import LabelStore
from store.shards.index import shard_name
from store.shards.remote import Shard


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardStatus:
    """The state of one shard and its labels."""

    shard: str  # path or URL
    # missing: not annotated; changed: not the shard that was annotated; unreadable: the shard; damaged: its labels
    state: Literal["done", "missing", "changed", "unreadable", "damaged"]
    rows: int = 0
    undecodable: int = 0
    problem: str = ""


def shard_status(store: LabelStore, shard: Shard, copies: LocalCopies) -> ShardStatus:
    """Look a shard up; it is hashed only if its time has changed since it was annotated."""
    try:
        if not is_done(store, shard, copies):
            return ShardStatus(shard=str(shard), state="missing")
        group = store.group(shard_name(shard))
    except ChangedShardError as error:
        return ShardStatus(shard=str(shard), state="changed", problem=str(error))
    except ShardError as error:
        return ShardStatus(shard=str(shard), state="unreadable", problem=str(error))
    except (DamagedStoreError, StoreReadError) as error:
        return ShardStatus(shard=str(shard), state="damaged", problem=str(error))
    return ShardStatus(shard=str(shard), state="done", rows=len(group), undecodable=len(group.undecodable))
