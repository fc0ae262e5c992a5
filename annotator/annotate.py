"""The annotator's run: rows stream through the teacher, finished groups are committed while it goes on.

The store is the only checkpoint: an interrupted run is continued by running it again.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from annotator.collect import Collector, OpenGroup
from annotator.decode import decode_batches
from annotator.plan import Plan
from annotator.report import Reporter, Summary
from annotator.selftest import check_teacher
from annotator.teacher import Teacher
from store.errors import GroupExistsError, SettingsError, ShardError, TooManyBadImagesError
from store.reader import LabelStore
from store.schema import StoreSchema, TarIdentity
from store.shards import check_unchanged, shard_name
from store.writer import open_root, set_aside_other, write_group


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """How a run goes; none of it changes a label beyond rounding."""

    top_k: int = 5  # kept ranks per cell; the store grows with it
    batch_size: int = 32  # images per forward
    workers: int = 2  # decoding processes; 0 decodes in this one
    max_bad: int = 100  # undecodable images in one run before it stops
    overwrite: bool = False  # annotate shards again that have labels

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, low in (("top_k", 1), ("batch_size", 1), ("workers", 0), ("max_bad", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"{name.replace('_', '-')} must be at least {low}, not {getattr(self, name)}")


def make_schema(teacher: Teacher, top_k: int, class_names: tuple[str, ...] | None) -> StoreSchema:
    """Run the teacher's self-test and say what a store of its maps holds.

    Raises:
        TeacherError: its cells mean nothing.
        LabelMapError: class names that do not match the class count.
    """
    return StoreSchema(
        teacher=teacher.identity,
        view=teacher.view,
        num_classes=teacher.num_classes,
        top_k=min(top_k, teacher.num_classes),
        map_size=check_teacher(teacher),
        class_names=class_names,
    )


def annotate(
    shards: Sequence[Path],
    labels: Path | str,
    teacher: Teacher,
    schema: StoreSchema,
    settings: RunSettings,
    reporter: Reporter,
) -> Summary:
    """Annotate every shard that has no labels yet.

    Returns:
        What became of each shard; damaged ones are in its failures.

    Raises:
        StoreMismatchError: the store was written with another teacher or view.
        StoreWriteError: the disk refused; finished groups are kept.
        TooManyBadImagesError: more undecodable images than `max_bad`; finished groups are kept.
        TeacherError: logits that are not finite.
    """
    summary = Summary(reporter)
    if settings.overwrite and (kept := set_aside_other(labels, schema, {shard_name(path) for path in shards})):
        summary.set_aside(kept)
    schema = open_root(labels, schema)
    plan = Plan(shards, LabelStore.open(labels), overwrite=settings.overwrite, reporter=summary)
    collector = Collector(plan, schema, summary)
    batches = decode_batches(
        plan,
        schema.view,
        batch_size=settings.batch_size,
        workers=settings.workers,
        pin_memory=teacher.device.type == "cuda",
    )
    with Committer(labels, schema, teacher.provenance(), summary, overwrite=settings.overwrite) as committer:
        for batch in batches:
            maps = teacher.label_maps(batch.pixels_B3hw, schema.top_k)
            last = batch.rows[-1]
            summary.annotated(len(batch.rows), last.path, last.offset + last.length)
            for group in collector.add(batch, maps):
                committer.commit(group)
            committer.report()
            _check_bad_images(summary, settings.max_bad)
    return summary


class Committer:
    """Writes finished groups in a thread of its own, one at a time, so that the teacher need not wait."""

    def __init__(
        self, labels: Path | str, schema: StoreSchema, provenance: dict[str, str], summary: Summary, *, overwrite: bool
    ) -> None:
        self.labels, self.schema, self.provenance = labels, schema, provenance
        self.summary, self.overwrite = summary, overwrite
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._pending: tuple[OpenGroup, Future[None]] | None = None

    def __enter__(self) -> "Committer":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._settle()
        finally:
            self._thread.shutdown()

    def report(self) -> None:
        """Tell of a group that has reached the disk since."""
        if self._pending is not None and self._pending[1].done():
            self._settle()

    def commit(self, group: OpenGroup) -> None:
        """Start to write a group, after the one before it is on the disk."""
        self._settle()
        self._pending = group, self._thread.submit(self._write, group)

    def _settle(self) -> None:
        """Wait for the group being written and report what became of it."""
        if self._pending is None:
            return
        (group, future), self._pending = self._pending, None
        try:
            future.result()
            self.summary.committed(group.index.path, len(group.index.samples))
        except GroupExistsError:  # another annotator was quicker
            self.summary.skipped(group.index.path)
        except ShardError as error:
            self.summary.failed(group.index.path, str(error))

    def _write(self, group: OpenGroup) -> None:
        index = group.index
        if group.lost is not None:
            raise ShardError(f"{index.path}: cannot be read: {group.lost}")
        check_unchanged(index)
        write_group(
            self.labels,
            index.name,
            group.labels(),
            schema=self.schema,
            tar=TarIdentity(size=index.size, mtime_ns=index.mtime_ns, sha256=index.sha256 or ""),
            provenance=self.provenance,
            overwrite=self.overwrite,
        )


def _check_bad_images(summary: Summary, max_bad: int) -> None:
    if len(summary.bad_images) > max_bad:
        path, key, reason = summary.bad_images[-1]
        raise TooManyBadImagesError(
            f"{path}: {len(summary.bad_images)} undecodable images in this run, --max-bad allows {max_bad}; "
            f"the last: {key}: {reason}"
        )
