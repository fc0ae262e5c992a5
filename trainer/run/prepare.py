"""Opens and compares data, student and run folder before training; an error on one rank ends all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from store.errors import RunFolderError
from store.format.schema import StoreSchema
from store.reader import LabelStore
from store.shards.index import ShardIndex
from store.shards.remote import Shard
from trainer.data.batches import make_order
from trainer.data.checks import Note, check_join, ignore
from trainer.data.join import JoinedShard, join_shards
from trainer.data.table import RowTable
from trainer.distributed import Ranks
from trainer.evaluation.evaluate import open_val
from trainer.order.sample_order import SampleOrder
from trainer.run.changes import describe_rows, rows_through_all
from trainer.run.folder import RunStart, check_never_saved, open_run_folder, run_identity
from trainer.run.records import trim_metrics
from trainer.settings import TrainSettings
from trainer.student.checkpoint import TrainState, step_checkpoints
from trainer.student.student import Student
from trainer.targets.custom import CustomTargets


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Prepared:
    """The opened data and the built student of a run."""

    schema: StoreSchema
    joined: tuple[JoinedShard, ...]
    table: RowTable
    order: SampleOrder
    val: tuple[ShardIndex, ...]
    student: Student
    custom_targets: CustomTargets | None


def prepare(
    settings: TrainSettings,
    *,
    shards: Sequence[Shard],
    labels: Path | str,
    val_shards: Sequence[Path],
    ranks: Ranks,
    custom_targets: CustomTargets | None,
    start: RunStart | None = None,
    note: Note = ignore,
) -> Prepared:
    """Open the data, build the student, and compare shards with labels.

    Seeds torch's global generator, which draws the student's initial weights. Arguments and errors are those of
    `trainer.run.loop.train`; `start` is that of the run to resume, whose order of samples is kept, and `note` receives
    lines for the user.
    """
    store = ranks.together(lambda: LabelStore.open(labels))
    joined = ranks.together(lambda: join_shards(shards, store))
    order = ranks.together(lambda: _order(joined, settings, ranks, start))
    classes = store.schema.num_classes
    val = ranks.together(lambda: open_val(val_shards, classes) if val_shards else ())
    torch.manual_seed(settings.seed)
    student = ranks.together(
        lambda: Student(
            settings, num_classes=classes, steps_per_epoch=order.steps, ranks=ranks, custom_targets=custom_targets
        )
    )
    student.join()
    table = ranks.together(
        lambda: check_join(joined, settings, num_classes=classes, note=note, rank=ranks.rank, world=ranks.world)
    )
    return Prepared(
        schema=store.schema,
        joined=joined,
        table=table,
        order=order,
        val=val,
        student=student,
        custom_targets=custom_targets,
    )


def _order(joined: Sequence[JoinedShard], settings: TrainSettings, ranks: Ranks, start: RunStart | None) -> SampleOrder:
    """The order of a new run, or of the one to resume as at its start."""
    if start is None:
        return make_order(joined, settings, world=ranks.world)
    rows = None if start.undecodable is None else rows_through_all(joined, start.undecodable)
    return make_order(joined, settings, world=ranks.world, undecodable=rows, version=start.order_version)


def open_folder(out: Path, prepared: Prepared, ranks: Ranks, *, resume: bool, note: Note = ignore) -> TrainState:
    """Start a run in its folder, or restore the student from its last checkpoint.

    Args:
        out: the folder, locked by rank 0.
        prepared: the run; its student is restored.
        ranks: all of them read the checkpoint, only rank 0 writes.
        resume: whether the folder may hold this run already.
        note: receives a line on rows that became undecodable since the run was started.

    Raises:
        RunFolderError: a folder that cannot be used, or that differs between the ranks.
    """
    identity = run_identity(
        prepared.student.settings,
        prepared.schema,
        prepared.joined,
        prepared.val,
        prepared.custom_targets,
        order_version=prepared.order.version,
    )
    ranks.agree(
        identity.to_json(),
        RunFolderError(f"{out}: the ranks were given different settings, shards or labels; give all of them the same"),
    )
    if left_out := ranks.first(lambda: open_run_folder(out, identity, resume=resume)):
        note(describe_rows(left_out))
    train_state = ranks.together(lambda: _restore(out, prepared.student))
    ranks.agree(
        (train_state, prepared.student.digest()),
        RunFolderError(f"{out}: the ranks found different checkpoints there; all of them need the same folder"),
    )
    ranks.first(lambda: _continue(out, train_state))
    return train_state


def _restore(out: Path, student: Student) -> TrainState:
    found = step_checkpoints(out)
    if not found:  # new, or stopped before its first checkpoint
        return TrainState()
    checkpoint = student.restore(found[-1])
    return TrainState(
        epoch=checkpoint.epoch,
        step=checkpoint.samples_seen // student.settings.batch_size,
        loss_sum=checkpoint.loss_sum,
        top1=checkpoint.top1,
        best_top1=checkpoint.best_top1,
    )


def _continue(out: Path, train_state: TrainState) -> None:
    if train_state == TrainState():
        check_never_saved(out)
    trim_metrics(out, train_state.epoch, train_state.step)
