"""Training a student from shards and labels: one process, one device."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from store.errors import TrainingError
from store.reader import LabelStore
from store.shards import ShardIndex
from trainer.batch import Batch
from trainer.checkpoint import BEST, LAST, save_checkpoint
from trainer.device import resolve_device
from trainer.evaluate import Accuracy, evaluate, open_val
from trainer.join import check_join, join_shards
from trainer.loading import worker_deaths
from trainer.metrics import append_metrics, trim_metrics
from trainer.report import EpochReport, Reporter, StepReport
from trainer.runfolder import check_never_saved, open_run_folder, run_identity
from trainer.settings import TrainSettings
from trainer.source import SampleStream, load_batches, make_order
from trainer.student import Student


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """A finished run."""

    epochs: int
    top1: float | None  # of the last epoch, 0 to 1; None without validation shards
    best_top1: float | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Run:
    """What the parts of a run share."""

    settings: TrainSettings
    student: Student
    steps: int  # in an epoch
    val: tuple[ShardIndex, ...]
    out: Path
    reporter: Reporter


@worker_deaths()
def train(
    settings: TrainSettings,
    *,
    shards: Sequence[Path],
    labels: Path,
    val_shards: Sequence[Path],
    out: Path,
    resume: bool,
    reporter: Reporter,
) -> TrainResult:
    """Train a student and leave `settings.json`, `metrics.jsonl`, `last.pt` and `best.pt` in the run folder.

    Args:
        settings: of the run.
        shards: image shards, each with a label group in the store.
        labels: the label store.
        val_shards: evaluated after every epoch; may be empty, and then there is no `best.pt`.
        out: the run folder, empty or new unless `resume`.
        resume: go on after the last finished epoch of the run in `out`; start if there is none.
        reporter: told of progress.

    Raises:
        RelabelError: shards, labels, settings or folder that cannot be used, all found before the first step.
        TrainingError: the loss is no longer finite, a loader process was killed or the device's memory is full; the
            checkpoint of the last good epoch stays.
    """
    settings = resolve_device(settings)
    store = LabelStore.open(labels)
    num_classes = store.schema.num_classes
    joined = join_shards(shards, store)
    order = make_order(joined, settings)
    val = open_val(val_shards, num_classes) if val_shards else ()
    student = Student(settings, num_classes=num_classes, steps_per_epoch=order.steps)
    table = check_join(joined, settings, num_classes=num_classes)
    open_run_folder(out, run_identity(settings, store.schema, joined, val), resume=resume)
    run = _Run(settings=settings, student=student, steps=order.steps, val=val, out=out, reporter=reporter)
    done, result = _continue(run) if resume else (0, TrainResult(epochs=0, top1=None, best_top1=None))
    stream = SampleStream(joined, table, order, settings, start_step=done * order.steps)
    with closing(load_batches(stream, student.device)) as batches:
        for epoch in range(done, settings.epochs):
            result = _epoch(run, batches, epoch, result.best_top1)
    return result


def _continue(run: _Run) -> tuple[int, TrainResult]:
    """Epochs done and the result so far, with the student as it was then."""
    file = run.out / LAST
    if not file.exists():  # started, and stopped within its first epoch
        check_never_saved(run.out)
        trim_metrics(run.out, 0)
        return 0, TrainResult(epochs=0, top1=None, best_top1=None)
    checkpoint = run.student.restore(file)
    trim_metrics(run.out, checkpoint.epoch)
    return checkpoint.epoch, TrainResult(epochs=checkpoint.epoch, top1=checkpoint.top1, best_top1=checkpoint.best_top1)


def _epoch(run: _Run, batches: Iterator[Batch], epoch: int, best: float | None) -> TrainResult:
    """Train, evaluate, report and save one epoch, counted from 0."""
    started = time.monotonic()
    loss = _train_epoch(run, batches, epoch)
    accuracy = evaluate(run.student.model, run.val, run.settings) if run.val else None
    top1 = None if accuracy is None else accuracy.top1
    is_best = top1 is not None and (best is None or top1 > best)
    best = top1 if is_best else best
    report = EpochReport(
        epoch=epoch + 1,
        epochs=run.settings.epochs,
        loss=loss,
        seconds=time.monotonic() - started,
        accuracy=accuracy,
        is_best=is_best,
    )
    _check_weights(run, epoch)
    # The checkpoint comes last: whatever was written for an epoch that it does not count is written again.
    append_metrics(run.out, _epoch_record(report))
    checkpoint = run.student.checkpoint(epoch=epoch + 1, top1=top1, best_top1=best)
    if is_best:
        save_checkpoint(run.out / BEST, checkpoint)
    save_checkpoint(run.out / LAST, checkpoint)
    run.reporter.epoch(report)
    return TrainResult(epochs=epoch + 1, top1=top1, best_top1=best)


def _train_epoch(run: _Run, batches: Iterator[Batch], epoch: int) -> float:
    """All steps of an epoch; returns the mean loss."""
    run.student.model.train()
    losses: list[Tensor] = []  # since the last report, on the device: reading one would wait for it
    total, started = 0.0, time.monotonic()
    for step in range(run.steps):
        lr = run.student.lr
        losses.append(run.student.update(next(batches), epoch * run.steps + step))
        if (step + 1) % run.settings.log_interval and step + 1 < run.steps:
            continue
        mean = float(torch.stack(losses).mean())
        _check_finite(mean, run, epoch, step)
        now = time.monotonic()
        report = StepReport(
            epoch=epoch + 1,
            epochs=run.settings.epochs,
            step=step + 1,
            steps=run.steps,
            loss=mean,
            lr=lr,
            images_per_second=len(losses) * run.settings.batch_size / (now - started),
        )
        append_metrics(run.out, {"kind": "step", **asdict(report)})
        run.reporter.step(report)
        total += mean * len(losses)
        losses, started = [], now
    return total / run.steps


def _check_finite(loss: float, run: _Run, epoch: int, step: int) -> None:
    if math.isfinite(loss):
        return
    kept = f"{run.out / LAST} holds epoch {epoch}" if epoch else "nothing was saved yet"
    raise TrainingError(f"epoch {epoch + 1}, step {step + 1}: the loss is {loss}; {kept}. Try a lower lr")


def _check_weights(run: _Run, epoch: int) -> None:
    """The last update comes after the last loss: without this, its damage would be saved as a good epoch."""
    if not all(bool(torch.isfinite(weights).all()) for weights in run.student.model.parameters()):
        _check_finite(math.nan, run, epoch, run.steps - 1)


def _epoch_record(report: EpochReport) -> dict[str, object]:
    accuracy: Accuracy | None = report.accuracy
    counts = {} if accuracy is None else {**asdict(accuracy), "top1": accuracy.top1, "top5": accuracy.top5}
    record = {"kind": "epoch", "epoch": report.epoch, "loss": report.loss, "seconds": report.seconds}
    return {**record, **counts, "is_best": report.is_best}
