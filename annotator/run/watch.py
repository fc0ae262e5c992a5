"""A service: shards are annotated as they appear, once they are complete.

Objects in a bucket appear whole. A local file may be a copy that is still growing, so it has to pass the strict index
and to stay as it is for one pause; and it is looked at once more before its group is committed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from store.errors import RelabelError, ShardError
from store.shards.index import index_shard
from store.shards.remote import RemoteShard, Shard

PAUSE = 5.0  # seconds between two looks
RETRY = 600.0  # seconds until a shard that failed is tried again

Stamp = tuple[int, int]  # size and time


class Watch:
    """What is known of the shards that have appeared.

    Args:
        find: lists the shards that are there, and what is in the way of others.
        tell: receives a line about a shard that has to wait.
    """

    def __init__(self, find: Callable[[], tuple[Sequence[Shard], Sequence[str]]], tell: Callable[[str], None]) -> None:
        self.find, self.tell = find, tell
        self._seen: dict[Shard, Stamp] = {}
        self._taken: dict[Shard, Stamp] = {}  # handed out, or found incomplete, as they were then
        self._problems: set[str] = set()  # what was in the way at the last look
        self._again: dict[Shard, float] = {}  # failed: when to hand them out again although nothing changed

    def look(self) -> list[Shard]:
        """The shards that are complete, unchanged since the last look, and were not handed out as they are now."""
        now = time.monotonic()
        for shard in [shard for shard, due in self._again.items() if due <= now]:
            del self._again[shard], self._taken[shard]
        found = {shard: stamp for shard in self._find() if (stamp := _stamp(shard)) is not None}
        settled = [shard for shard, stamp in found.items() if self._seen.get(shard) == stamp]
        self._seen = found
        new = [shard for shard in settled if self._taken.get(shard) != found[shard]]
        self._taken |= {shard: found[shard] for shard in new}
        complete = [shard for shard in new if self._is_complete(shard)]
        self.failed(set(new) - set(complete))
        return complete

    def failed(self, shards: Iterable[Shard]) -> None:
        """Try these again later: the reason may have been the network's or the disk's."""
        self._again |= dict.fromkeys(shards, time.monotonic() + RETRY)

    def _find(self) -> Sequence[Shard]:
        """A stray file or a server that is away must not end a service, nor keep other shards waiting."""
        try:
            shards, problems = self.find()
        except RelabelError as error:
            shards, problems = [], [str(error)]
        for problem in dict.fromkeys(problems):
            if problem not in self._problems:
                self.tell(f"waiting until this is mended: {problem}")
        self._problems = set(problems)
        return shards

    def _is_complete(self, shard: Shard) -> bool:
        if isinstance(shard, Path):
            try:
                index_shard(shard)
            except ShardError as error:
                self.tell(f"not complete yet, or damaged: {error}")
                return False
        return True


def annotate_forever(
    watch: Watch, annotate: Callable[[Sequence[Shard]], Iterable[Shard]], idle: Callable[[], None]
) -> None:
    """Hand over what is complete, round by round, until an exception ends it.

    Args:
        watch: finds shards.
        annotate: returns when all that can be is committed, with those that failed.
        idle: is told each time that all is done.
    """
    worked = True
    while True:
        if ready := watch.look():
            watch.failed(annotate(ready))
            worked = True
            continue
        if worked:
            idle()
            worked = False
        time.sleep(PAUSE)


def _stamp(shard: Shard) -> Stamp | None:
    """None if it has vanished since it was listed; the same for every object, which is there whole or not at all."""
    if isinstance(shard, RemoteShard):
        return 0, 0
    try:
        now = shard.stat()
    except OSError:
        return None
    return now.st_size, now.st_mtime_ns
