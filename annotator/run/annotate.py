"""A run of the annotator: rows stream through the teacher, and finished groups are committed meanwhile.

The store is the only checkpoint: an interrupted run is continued by running it again.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from annotator.input.decode import DecodedBatch, decode_batches
from annotator.input.leases import Leases
from annotator.input.local_copies import LocalCopies
from annotator.input.plan import Plan
from annotator.report import Summary
from annotator.run.commit import Collector, Committer
from annotator.settings import Job, RunSettings
from annotator.teacher.build import make_current_folder_importable, user_code_errors
from annotator.teacher.copies import AsyncMaps, Maps
from annotator.teacher.selftest import SelfTest, check_teacher
from annotator.teacher.teacher import Teacher
from store.format.schema import StoreSchema
from store.shards.index import shard_name
from store.shards.remote import Shard
from store.storage.base import StorageBackend
from store.system.processes import keep_freed_memory
from store.text import brief, first_few
from store.writer import StoreWriter, set_aside_other

PAUSE = 1.0  # seconds between two looks at shards that other annotators are working on


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyTeacher:
    """A teacher that has passed its self-test, and the schema of a store of its maps."""

    teacher: Teacher
    selftest: SelfTest
    schema: StoreSchema

    def provenance(self) -> dict[str, str]:
        """Versions, precision, device and head, which are recorded with every group."""
        return {**self.teacher.provenance(), "head": self.selftest.describe()}


def load_in_own_process(job: Job) -> ReadyTeacher:
    """Build and test a job's teacher in a process that serves the run alone: of a command, or of an actor.

    Changes the process: custom models are imported from the current folder too, and on a CPU freed memory is kept.

    Raises:
        TeacherError, SettingsError, LabelMapError: as of `Teacher` and `make_ready`.
    """
    make_current_folder_importable()
    teacher = Teacher(job.teacher)
    if teacher.device.type == "cpu":
        keep_freed_memory()
    return make_ready(teacher, job.settings, job.class_names)


def make_ready(teacher: Teacher, settings: RunSettings, class_names: tuple[str, ...] | None) -> ReadyTeacher:
    """Run the teacher's self-test.

    Raises:
        TeacherError: its cells are not predictions of their part of the image.
        LabelMapError: class names that do not match the class count, or a score step that is no power of two.
    """
    with user_code_errors(f"teacher {teacher.name!r} fails in its self-test"):
        selftest = check_teacher(teacher)
    teacher.expect(selftest.map_size)
    schema = StoreSchema(
        score_kind="centred_logit",
        score_step=settings.score_step,
        teacher=teacher.identity,
        preprocessing=teacher.preprocessing,
        num_classes=teacher.num_classes,
        top_k=min(settings.top_k, teacher.num_classes),
        map_size=selftest.map_size,
        class_names=class_names,
    )
    return ReadyTeacher(teacher=teacher, selftest=selftest, schema=schema)


def open_labels(
    shards: Sequence[Shard],
    labels: Path | str,
    schema: StoreSchema,
    summary: Summary,
    *,
    overwrite: bool,
    precision: str | None = None,
) -> StoreWriter:
    """Create or check the store for these shards' labels, once before `annotate` is called in any number of parts.

    The summary receives a notice of groups that were put back, and of a group there that was made in another precision.

    Args:
        shards: of the run.
        labels: the store.
        schema: of the run's teacher.
        summary: receives the events.
        overwrite: set a store of another teacher aside if the shards are all of its groups.
        precision: of the teacher's features; None to compare none.

    Raises:
        StoreMismatchError: the store was written with another teacher or preprocessing.
        StoreWriteError: the disk refused the write.
    """
    if overwrite and (kept := set_aside_other(labels, schema, {shard_name(shard) for shard in shards})):
        summary.set_aside(kept)
    writer = StoreWriter.open(labels, schema)
    if writer.restored:
        names = first_few(writer.restored)
        summary.notice(f"{writer.store}: put back {names}, whose writer was killed while replacing it")
    first = None if precision is None else writer.store.first_group()
    if first is not None and (before := first.commit.provenance.get("precision", precision)) != precision:
        summary.notice(f"{first}: was made in {brief(before)}, this run computes in {precision}")
    return writer


def annotate(
    shards: Iterable[Shard],
    writer: StoreWriter,
    ready: ReadyTeacher,
    settings: RunSettings,
    summary: Summary,
) -> None:
    """Annotate every shard that has no labels yet.

    Shards that another annotator of the same store is working on are left to it, and looked at again at the end: most
    often they have their labels then.

    Args:
        shards: with unique names, in the order of work.
        writer: of the store, as `open_labels` returns it.
        ready: the teacher.
        settings: of the run.
        summary: receives the events of each shard; in its failures are those that are damaged, or have more
            undecodable images than `max_bad` allows.

    Raises:
        StoreNotFoundError: the store has vanished; it is not created again.
        StoreMismatchError: the store was replaced by another one.
        StoreWriteError: the disk refused the write; finished groups are kept.
        TeacherError: logits that are not finite.
    """
    while busy := _annotate_free(shards, writer, ready, settings, summary):
        summary.waiting_for_others(busy)
        _wait_for_one(busy, writer.store.backend)
        shards = busy


def _annotate_free(
    shards: Iterable[Shard],
    writer: StoreWriter,
    ready: ReadyTeacher,
    settings: RunSettings,
    summary: Summary,
) -> list[Shard]:
    """Annotate the shards that no other annotator is working on, and return the others.

    No lease is held when this returns: annotators that wait for each other with leases in hand would wait for ever.
    """
    teacher, schema, store = ready.teacher, writer.schema, writer.store
    with LocalCopies() as copies, Leases(store.backend) as leases:
        plan = Plan(shards, store, copies, overwrite=settings.overwrite, reporter=summary, leases=leases)
        collector = Collector(plan, schema, settings.max_bad, summary)
        decoding = decode_batches(
            plan,
            schema.preprocessing,
            batch_size=settings.batch_size,
            workers=settings.workers,
            pin_memory=teacher.device.type == "cuda",
        )
        committing = Committer(writer, ready.provenance(), summary, plan, overwrite=settings.overwrite)
        with closing(decoding) as batches, committing as committer:
            for batch, maps in _label_maps(batches, teacher, schema.top_k, summary):
                for group in collector.add(batch, maps):
                    committer.commit(group)
                committer.report()
    return plan.busy


def _wait_for_one(busy: Sequence[Shard], backend: StorageBackend) -> None:
    """Return when one of the shards is free: finished, or left by an annotator that was stopped."""
    while True:
        for shard in busy:
            with backend.lease(shard_name(shard)) as is_free:
                if is_free:
                    return
        time.sleep(PAUSE)


def _label_maps(
    batches: Iterator[DecodedBatch], teacher: Teacher, top_k: int, summary: Summary
) -> Iterator[tuple[DecodedBatch, Maps]]:
    """Each batch with its maps; the next batch is sent to the device before this one is waited for."""
    started: deque[tuple[DecodedBatch, AsyncMaps]] = deque()
    for batch in _waited_for(batches, summary):
        with summary.computing.running():
            started.append((batch, teacher.start(batch.pixels_B3hw, top_k)))
        if len(started) > 1:
            yield _finished(*started.popleft(), summary)
    for batch, maps in started:
        yield _finished(batch, maps, summary)


def _finished(batch: DecodedBatch, maps: AsyncMaps, summary: Summary) -> tuple[DecodedBatch, Maps]:
    with summary.computing.running():
        return batch, maps.wait()


def _waited_for(batches: Iterator[DecodedBatch], summary: Summary) -> Iterator[DecodedBatch]:
    while True:
        with summary.waiting.running():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
