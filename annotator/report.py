"""Events of a run of the annotator, their reporters, and their totals."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from store.shards.remote import Shard


class Reporter:
    """Receives the events of a run and ignores them; called from the main thread only."""

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """A batch came out of the teacher; `part` is the fraction of this shard that is done, from 0 to 1."""

    def set_aside(self, kept: str) -> None:
        """The store of another teacher was renamed to make room."""

    def notice(self, text: str) -> None:
        """Something about the store that its user should know."""

    def committed(self, shard: Shard, maps: int) -> None:
        """A shard's labels are in the store; `maps` does not count undecodable rows."""

    def skipped(self, shard: Shard) -> None:
        """A shard has labels already."""

    def failed(self, shard: Shard, reason: str) -> None:
        """A shard was left out; the run goes on without it."""

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """An image could not be decoded; its row holds fill values."""

    def rounded(self, changes: NDArray[np.float32]) -> None:
        """Scores were rounded: the largest change of a probability in the target of each of some whole images."""

    def waiting_for_others(self, shards: Sequence[Shard]) -> None:
        """All other shards are done; other annotators of the same store are working on these."""


@dataclass(frozen=True, slots=True)
class Committed:
    """The event `Reporter.committed`."""

    shard: Shard
    maps: int

    def send(self, reporter: Reporter) -> None:
        """Report the event."""
        reporter.committed(self.shard, self.maps)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The event `Reporter.skipped`."""

    shard: Shard

    def send(self, reporter: Reporter) -> None:
        """Report the event."""
        reporter.skipped(self.shard)


@dataclass(frozen=True, slots=True)
class Failed:
    """The event `Reporter.failed`."""

    shard: Shard
    reason: str

    def send(self, reporter: Reporter) -> None:
        """Report the event."""
        reporter.failed(self.shard, self.reason)


@dataclass(frozen=True, slots=True)
class UndecodableImage:
    """The event `Reporter.undecodable`."""

    shard: Shard
    key: str
    reason: str

    def send(self, reporter: Reporter) -> None:
        """Report the event."""
        reporter.undecodable(self.shard, self.key, self.reason)


ShardEvent = Committed | Skipped | Failed | UndecodableImage


class Recorder(Reporter):
    """Keeps the events of shards, to be sent to a reporter in another process."""

    def __init__(self) -> None:
        self.events: list[ShardEvent] = []

    def committed(self, shard: Shard, maps: int) -> None:
        """Record the event."""
        self.events.append(Committed(shard, maps))

    def skipped(self, shard: Shard) -> None:
        """Record the event."""
        self.events.append(Skipped(shard))

    def failed(self, shard: Shard, reason: str) -> None:
        """Record the event."""
        self.events.append(Failed(shard, reason))

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Record the event."""
        self.events.append(UndecodableImage(shard, key, reason))


@dataclass(slots=True)
class Clock:
    """Adds up the time spent in a piece of code."""

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
    """Totals of a run; passes every event on to a reporter."""

    reporter: Reporter = field(default_factory=Reporter)
    images: int = 0
    committed_shards: int = 0
    last_committed: Shard | None = None
    skipped_shards: int = 0
    failures: dict[Shard, str] = field(default_factory=dict)  # shard -> the reason why it was left out
    bad_images: list[tuple[Shard, str, str]] = field(default_factory=list)  # shard, key, reason
    waiting: Clock = field(default_factory=Clock)  # for data
    computing: Clock = field(default_factory=Clock)  # in the teacher
    changes: list[NDArray[np.float32]] = field(default_factory=list)  # of the events `rounded`

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """Count images."""
        self.images += images
        self.reporter.annotated(images, shard, part)

    def set_aside(self, kept: str) -> None:
        """Pass the event on."""
        self.reporter.set_aside(kept)

    def notice(self, text: str) -> None:
        """Pass the event on."""
        self.reporter.notice(text)

    def committed(self, shard: Shard, maps: int) -> None:
        """Count a finished shard and forget an earlier failure of it."""
        self.committed_shards += 1
        self.last_committed = shard
        self.failures.pop(shard, None)
        self.reporter.committed(shard, maps)

    def skipped(self, shard: Shard) -> None:
        """Count a shard that was done before, perhaps by another process, and forget an earlier failure of it."""
        self.failures.pop(shard, None)
        self.skipped_shards += 1
        self.reporter.skipped(shard)

    def failed(self, shard: Shard, reason: str) -> None:
        """Record a shard that was left out."""
        self.failures[shard] = reason
        self.reporter.failed(shard, reason)

    def undecodable(self, shard: Shard, key: str, reason: str) -> None:
        """Record an image that could not be decoded."""
        self.bad_images.append((shard, key, reason))
        self.reporter.undecodable(shard, key, reason)

    def rounded(self, changes: NDArray[np.float32]) -> None:
        """Keep the changes."""
        self.changes.append(changes)

    def waiting_for_others(self, shards: Sequence[Shard]) -> None:
        """Pass the event on."""
        self.reporter.waiting_for_others(shards)
