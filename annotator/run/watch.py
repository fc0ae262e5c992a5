"""The annotator as a service: shards are annotated as they appear, once they are complete.

Objects in a bucket appear complete. A local file may be a copy that is still growing, so it must pass the strict index
and stay unchanged for one pause; and it is checked once more before its group is committed.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from store.errors import RelabelError, ShardError
from store.shards.index import index_shard
from store.shards.remote import RemoteShard, Shard

PAUSE = 5.0  # seconds between two scans
RETRY = 600.0  # seconds until a shard that failed is tried again

Stamp = tuple[int, int]  # size and time


class Watch:
    """The shards that have appeared, and which of them were given out.

    Args:
        find: lists the shards that exist, and problems that keep others from being listed.
        tell: receives a line about a shard that has to wait.
    """

    def __init__(self, find: Callable[[], tuple[Sequence[Shard], Sequence[str]]], tell: Callable[[str], None]) -> None:
        self.find, self.tell = find, tell
        self._seen: dict[Shard, Stamp] = {}
        self._taken: dict[Shard, Stamp] = {}  # given out or found incomplete, with their stamps then
        self._problems: set[str] = set()  # of the last scan
        self._again: dict[Shard, float] = {}  # failed shards: the time to try them again even if unchanged

    def scan(self) -> list[Shard]:
        """The shards that are complete, unchanged since the last scan, and not yet given out in this state."""
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
        """Try these again later: the network or the disk may have been the reason."""
        self._again |= dict.fromkeys(shards, time.monotonic() + RETRY)

    def _find(self) -> Sequence[Shard]:
        """List the shards; a stray file or an unreachable server is printed and does not end the service."""
        try:
            shards, problems = self.find()
        except RelabelError as error:
            shards, problems = [], [str(error)]
        for problem in dict.fromkeys(problems):
            if problem not in self._problems:
                self.tell(f"waiting until this is repaired: {problem}")
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
    """Annotate complete shards, scan after scan, until an exception ends it.

    Args:
        watch: finds shards.
        annotate: annotates shards and returns those that failed.
        idle: called each time that no shard is left to annotate.
    """
    worked = True
    while True:
        if ready := watch.scan():
            watch.failed(annotate(ready))
            worked = True
            continue
        if worked:
            idle()
            worked = False
        time.sleep(PAUSE)


def _stamp(shard: Shard) -> Stamp | None:
    """Size and time of a local shard, None if it is gone; a constant for objects, which always are complete."""
    if isinstance(shard, RemoteShard):
        return 0, 0
    try:
        now = shard.stat()
    except OSError:
        return None
    return now.st_size, now.st_mtime_ns
