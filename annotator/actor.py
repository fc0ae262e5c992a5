"""A process on a Ray cluster that holds one teacher and annotates the shards it is handed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from annotator.annotate import ReadyTeacher, annotate, make_ready
from annotator.report import Clock, Reporter, Summary
from annotator.selftest import SelfTest
from annotator.settings import Job
from annotator.teacher import Teacher
from store.remote import Shard
from store.schema import StoreSchema


@dataclass(slots=True)
class Outcome(Reporter):
    """A reporter that keeps what it is told, to be told elsewhere."""

    images: int = 0
    events: list[tuple[str, Shard, tuple[int | str, ...]]] = field(default_factory=list)  # method, shard, arguments
    waiting: Clock = field(default_factory=Clock)
    computing: Clock = field(default_factory=Clock)

    def annotated(self, images: int, shard: Shard, part: float) -> None:
        """Count images."""
        self.images += images

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

    def annotate(self, shards: Sequence[Shard]) -> Outcome:
        """Annotate shards that have no labels yet.

        Raises:
            RelabelError: as of `annotator.annotate.annotate`.
        """
        outcome = Outcome()
        summary = Summary(outcome)
        annotate(shards, self.job.labels, self._ready, self.job.settings, summary)
        outcome.waiting, outcome.computing = summary.waiting, summary.computing
        return outcome

    def pulse(self) -> None:
        """Answers as long as the actor lives, also while it is at work."""

    @cached_property
    def _ready(self) -> ReadyTeacher:
        return make_ready(Teacher(self.job.teacher), self.job.settings.top_k, self.job.class_names)
