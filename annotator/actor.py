"""A process on a Ray cluster that holds one teacher and annotates the shards it is handed."""

from collections.abc import Sequence
from functools import cached_property

from annotator.annotate import ReadyTeacher, annotate, make_ready
from annotator.report import Reporter, Summary
from annotator.selftest import SelfTest
from annotator.settings import Job
from annotator.teacher import Teacher
from store.remote import Shard
from store.schema import StoreSchema

Event = tuple[str, Shard, tuple[int | str, ...]]  # a reporter's method, its shard, its other arguments


class Events(Reporter):
    """Keeps what it is told about shards, to be told elsewhere."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def committed(self, shard: Shard, rows: int) -> None:
        """Keep it."""
        self.events.append(("committed", shard, (rows,)))

    def skipped(self, shard: Shard) -> None:
        """Keep it."""
        self.events.append(("skipped", shard, ()))

    def failed(self, shard: Shard, reason: str) -> None:
        """Keep it."""
        self.events.append(("failed", shard, (reason,)))

    def quarantined(self, shard: Shard, key: str, reason: str) -> None:
        """Keep it."""
        self.events.append(("quarantined", shard, (key, reason)))


class Actor:
    """Lives on a node; started again on another one when that is lost, with nothing to remember."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def prepare(self) -> tuple[StoreSchema, SelfTest]:
        """Build and test the teacher; what a store of its maps holds, and what the test found."""
        return self._ready.schema, self._ready.selftest

    def annotate(self, shards: Sequence[Shard]) -> tuple[Summary, list[Event]]:
        """Annotate shards that have no labels yet; the sum of it, and what became of each.

        Raises:
            RelabelError: as of `annotator.annotate.annotate`.
        """
        events = Events()
        summary = Summary(events)
        annotate(shards, self.job.labels, self._ready, self.job.settings, summary)
        return summary, events.events

    def pulse(self) -> None:
        """Answers as long as the actor lives, also while it is at work."""

    @cached_property
    def _ready(self) -> ReadyTeacher:
        return make_ready(Teacher(self.job.teacher), self.job.settings.top_k, self.job.class_names)
