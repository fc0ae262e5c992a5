"""What the annotator tells of its progress, and the sum of it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from store.shards.remote import Shard


class Reporter:
    """Receives events while a run goes on, and does nothing about them; called from the main thread only."""

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """A batch came out of the teacher; so much of this shard is behind it now, from 0 to 1."""

    def set_aside(self, kept: str) -> None:
        """The store of another teacher was renamed to make room."""

    def committed(self, shard: Shard, maps: int) -> None:
        """A shard's labels are in the store: so many label maps, without quarantined rows."""

    def skipped(self, shard: Shard) -> None:
        """A shard's labels were there already."""

    def failed(self, shard: Shard, reason: str) -> None:
        """A shard was left out; the run goes on without it."""

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """An image could not be decoded; its row holds fill values."""


@dataclass(slots=True)
class Clock:
    """Adds up how long something took."""

    seconds: float = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - start


@dataclass(slots=True)
class Summary(Reporter):
    """What became of a run; itself a reporter that passes every event on."""

    reporter: Reporter = field(default_factory=Reporter)
    images: int = 0
    committed_shards: int = 0
    last_committed: Shard | None = None
    skipped_shards: int = 0
    failures: dict[Shard, str] = field(default_factory=dict)  # shard -> why it was left out
    bad_images: list[tuple[Shard, str, str]] = field(default_factory=list)  # shard, key, reason
    waiting: Clock = field(default_factory=Clock)  # while the teacher had no data
    computing: Clock = field(default_factory=Clock)  # while it had

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """Count images."""
        self.images += images
        self.reporter.annotated(images, shard, part)

    def set_aside(self, kept: str) -> None:
        """Pass it on."""
        self.reporter.set_aside(kept)

    def committed(self, shard: Shard, maps: int) -> None:
        """Count a finished shard; an earlier failure of it is mended."""
        self.committed_shards += 1
        self.last_committed = shard
        self.failures.pop(shard, None)
        self.reporter.committed(shard, maps)

    def skipped(self, shard: Shard) -> None:
        """Count a shard that was done before, perhaps by another process; an earlier failure of it is mended."""
        self.failures.pop(shard, None)
        self.skipped_shards += 1
        self.reporter.skipped(shard)

    def failed(self, shard: Shard, reason: str) -> None:
        """Remember a shard that was left out."""
        self.failures[shard] = reason
        self.reporter.failed(shard, reason)

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Remember an image that could not be decoded."""
        self.bad_images.append((shard, key, reason))
        self.reporter.undecodable(shard, key, reason)
