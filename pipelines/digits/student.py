"""Trains one of the demo's small students to its last epoch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from trainer.run.loop import train
from trainer.run.records import Reporter
from trainer.settings import TrainSettings
from trainer.targets.custom import CustomTargets


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one torch thread; for so small a network more threads only slow the loader down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def train_to_end(
    settings: TrainSettings,
    *,
    shards: Sequence[Path],
    labels: Path,
    val_shards: Sequence[Path],
    out: Path,
    reporter: Reporter,
    custom_targets: CustomTargets | None = None,
) -> None:
    """Train a student, or resume its training; takes the arguments of `trainer.run.loop.train`.

    Raises:
        KeyboardInterrupt: a signal stopped the training, so that the caller stops too.
        RelabelError: as `trainer.run.loop.train`.
    """
    with one_thread():
        result = train(
            settings,
            shards=shards,
            labels=labels,
            val_shards=val_shards,
            out=out,
            resume=True,
            reporter=reporter,
            custom_targets=custom_targets,
        )
    if result.stopped:
        raise KeyboardInterrupt
