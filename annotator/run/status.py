"""How far a run has come, shard by shard, from the store alone."""

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
    """What a run would find of one shard."""

    shard: str  # path or URL
    # missing: not annotated; changed: the shard is another now; unreadable: the shard; damaged: its labels
    state: Literal["done", "missing", "changed", "unreadable", "damaged"]
    rows: int = 0
    undecodable: int = 0
    problem: str = ""


def shard_status(store: LabelStore, shard: Shard, copies: LocalCopies) -> ShardStatus:
    """Look a shard up; it is hashed only if its time is another than when it was annotated."""
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
