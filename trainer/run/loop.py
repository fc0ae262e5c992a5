"""The training loop: from shards and labels to checkpoints and metrics, in one process or several."""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor

from store.errors import ImageError, TrainingError
from store.shards.index import ShardIndex
from store.shards.remote import Shard
from store.system.processes import start_server
from trainer.batch import Batch
from trainer.data.batches import SampleStream, load_batches
from trainer.data.checks import ignore, score_notices
from trainer.data.loading import worker_deaths
from trainer.distributed import Ranks, joined_ranks, peer_deaths
from trainer.evaluation.evaluate import evaluate
from trainer.run.folder import locked_folder, run_start
from trainer.run.prepare import Prepared, open_folder, prepare
from trainer.run.records import EpochReport, Records, Reporter, StepReport
from trainer.settings import TrainSettings
from trainer.student.checkpoint import TrainState
from trainer.student.device import resolve_device
from trainer.student.student import Student
from trainer.targets.custom import CustomTargets

LEFT_OUT_PART, LEAST_LEFT_OUT = 1000, 10  # one image in a thousand may be undecodable, and always ten
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)  # end a run with a checkpoint


class StopSignal:
    """A context that records the first SIGTERM, SIGHUP or Ctrl-C; a second one has its usual effect.

    SIGHUP stays ignored where it is, as under nohup. Nothing is recorded outside the main thread, where Python cannot
    handle signals.
    """

    def __init__(self) -> None:
        self._received = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Whether a signal was received."""
        return self._received

    def __enter__(self) -> "StopSignal":
        if current_thread() is main_thread():
            is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            heard = [number for number in SIGNALS if not (is_nohup and number is signal.SIGHUP)]
            self._before = {number: signal.signal(number, self._record) for number in heard}
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _record(self, _: int, __: FrameType | None) -> None:
        self._received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """The progress of a run that finished or was stopped by a signal."""

    epochs: int  # finished
    steps: int  # of the unfinished epoch
    finished: bool
    stopped: bool  # this process received a signal, possibly after the last step
    top1: float | None  # of the last finished epoch, 0 to 1; None without validation shards
    best_top1: float | None  # of all epochs


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Run:
    """The parts of a running training."""

    settings: TrainSettings
    student: Student
    steps: int  # in an epoch
    val: tuple[ShardIndex, ...]
    ranks: Ranks
    records: Records
    stop: StopSignal
    train_state: TrainState
    max_left_out: int  # undecodable images of this rank in an epoch
    left_out: list[str] = field(default_factory=list)  # errors of these images, of this epoch and process

    @property
    def updates(self) -> int:
        """Updates since the run's start."""
        return self.train_state.epoch * self.steps + self.train_state.step


@worker_deaths()
@peer_deaths()
def train(
    settings: TrainSettings,
    *,
    shards: Sequence[Shard],
    labels: Path | str,
    val_shards: Sequence[Path],
    out: Path,
    resume: bool,
    reporter: Reporter,
    custom_targets: CustomTargets | None = None,
) -> TrainResult:
    """Train a student; write `settings.json`, `metrics.jsonl`, checkpoints and TensorBoard's files to a run folder.

    Under torchrun, call it on every rank with the same arguments. SIGTERM, SIGHUP or Ctrl-C on any rank ends the run on
    all of them with a checkpoint, after the current step or batch of evaluation. Seeds torch's global generator.

    Args:
        settings: of the run.
        shards: image shards, each with a label group in the store.
        labels: the label store.
        val_shards: evaluated after every epoch; may be empty, and then there is no `best.pt`.
        out: the run folder, empty or new unless `resume`; the same on every rank.
        resume: continue from the last checkpoint in `out`, or start if there is none; implied if torchrun restarts
            this run.
        reporter: shows progress, on rank 0.
        custom_targets: in place of the settings' kind of target.

    Raises:
        RelabelError: shards, labels, settings or folder that cannot be used, all found before the first step.
        PeerError: the same, on the other ranks.
        TrainingError: the loss is no longer finite, a loader process or a rank died, or the device's memory is full;
            the last checkpoint stays.
    """
    settings = resolve_device(settings)
    if settings.workers:
        start_server([load_batches.__module__, evaluate.__module__])  # takes seconds, in parallel with the preparation
    with joined_ranks(settings.device) as ranks, ExitStack() as stack:
        note = reporter.note if ranks.rank == 0 else ignore
        prepared = prepare(
            settings,
            shards=shards,
            labels=labels,
            val_shards=val_shards,
            ranks=ranks,
            custom_targets=custom_targets,
            start=ranks.first(lambda: run_start(out)),
            note=note,
        )
        ranks.together(lambda: stack.enter_context(locked_folder(out)) if ranks.rank == 0 else None)
        train_state = open_folder(out, prepared, ranks, resume=resume, note=note)
        if ranks.rank == 0 and settings.target != "original":
            for text in score_notices(prepared.joined):
                note(f"warning: {text}")
        run = _open_run(stack, settings, out, prepared, train_state, ranks, reporter)
        stream = SampleStream(
            prepared.joined,
            prepared.table,
            prepared.order,
            settings,
            start_step=run.updates,
            rank=ranks.rank,
            world=ranks.world,
        )
        with closing(load_batches(stream, run.student.device)) as batches:
            while train_state.epoch < settings.epochs and _epoch(run, batches):
                pass
    return TrainResult(
        epochs=train_state.epoch,
        steps=train_state.step,
        finished=train_state.epoch == settings.epochs,
        stopped=run.stop(),
        top1=train_state.top1,
        best_top1=train_state.best_top1,
    )


def _open_run(
    stack: ExitStack,
    settings: TrainSettings,
    out: Path,
    prepared: Prepared,
    train_state: TrainState,
    ranks: Ranks,
    reporter: Reporter,
) -> _Run:
    """Open the records and record signals until the stack is closed."""
    steps = prepared.order.steps
    done = train_state.epoch * steps + train_state.step
    records = Records(out, reporter, rank=ranks.rank, updates_done=done, keep=settings.keep_checkpoints)
    return _Run(
        settings=settings,
        student=prepared.student,
        steps=steps,
        val=prepared.val,
        ranks=ranks,
        records=stack.enter_context(records),
        stop=stack.enter_context(StopSignal()),
        train_state=train_state,
        max_left_out=max(LEAST_LEFT_OUT, prepared.order.usable // LEFT_OUT_PART // ranks.world),
    )


def _epoch(run: _Run, batches: Iterator[Batch]) -> bool:
    """Train the rest of an epoch, evaluate, report and save; False if a signal has stopped the run."""
    train_state, started, accuracy = run.train_state, time.monotonic(), None
    if not _train_epoch(run, batches):
        return False
    if run.val:
        accuracy = evaluate(run.student.evaluated(), run.val, run.settings, ranks=run.ranks, should_stop=run.stop)
        if accuracy is None:
            run.records.save(run.student.checkpoint(train_state), run.updates)
            return False
    loss = train_state.loss_sum / run.steps
    is_best = train_state.end_epoch(None if accuracy is None else accuracy.top1)
    report = EpochReport(
        epoch=train_state.epoch,
        epochs=run.settings.epochs,
        loss=loss,
        seconds=time.monotonic() - started,
        accuracy=accuracy,
        is_best=is_best,
        left_out=tuple(run.ranks.gathered(run.left_out)),
    )
    run.left_out.clear()
    run.records.epoch(report, run.student.checkpoint(train_state), run.updates)
    return not run.ranks.any(run.stop())


def _train_epoch(run: _Run, batches: Iterator[Batch]) -> bool:
    """Perform the remaining steps of an epoch; False if a signal has stopped the run, after a checkpoint."""
    train_state, settings, since = run.train_state, run.settings, _Since()
    run.student.model.train()
    while train_state.step < run.steps:
        lr, batch = run.student.lr, since.next(batches)
        _leave_out(run, batch)
        since.losses.append(run.student.update(batch, run.updates))
        train_state.step += 1
        stopped = run.ranks.any(run.stop())
        saves = stopped or _divides(settings.checkpoint_interval, train_state.step)
        if saves or _divides(settings.log_interval, train_state.step) or train_state.step == run.steps:
            _report(run, since, lr)
            since = _Since()
        if saves:
            run.records.save(run.student.checkpoint(train_state), run.updates)
        if stopped:
            return False
    return True


def _leave_out(run: _Run, batch: Batch) -> None:
    """Note the undecodable images of a batch, in whose places others stand.

    Raises:
        ImageError: there were too many of them in this epoch.
    """
    run.left_out.extend(batch.left_out)
    if len(run.left_out) > run.max_left_out:
        raise ImageError(
            f"{len(run.left_out)} images cannot be decoded in epoch {run.train_state.epoch + 1}, more than may be left "
            f"out; {run.records.kept()}. The last: {run.left_out[-1]}"
        )


@dataclass(slots=True)
class _Since:
    """Losses and times since the last report."""

    losses: list[Tensor] = field(default_factory=list)  # on the device, since reading one waits for it
    started: float = field(default_factory=time.monotonic)
    waited: float = 0.0  # seconds

    def next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; adds the time it took."""
        start = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - start
        return batch


def _report(run: _Run, since: _Since, lr: float) -> None:
    """Read the losses, check them, and report."""
    train_state, count = run.train_state, len(since.losses)
    loss = float(run.ranks.sum(torch.stack(since.losses).mean().cpu())) / run.ranks.world
    run.ranks.together(lambda: _check_finite(run, loss))
    seconds = time.monotonic() - since.started
    report = StepReport(
        epoch=train_state.epoch + 1,
        epochs=run.settings.epochs,
        step=train_state.step,
        steps=run.steps,
        loss=loss,
        lr=lr,
        images_per_second=count * run.settings.batch_size / seconds,
        waiting=since.waited / seconds,
    )
    run.records.step(report, run.updates)
    train_state.loss_sum += loss * count


def _check_finite(run: _Run, loss: float) -> None:
    """Raise TrainingError unless loss and weights are finite; the loss does not show damage by the last update."""
    if math.isfinite(loss) and run.student.is_finite():
        return
    found = f"the loss is {loss}" if not math.isfinite(loss) else "the weights are not finite"
    train_state = run.train_state
    where = f"epoch {train_state.epoch + 1}, step {train_state.step}"
    raise TrainingError(f"{where}: {found}; {run.records.kept()}. Try a lower lr, or clip_grad")


def _divides(interval: int, step: int) -> bool:
    return interval > 0 and step % interval == 0
