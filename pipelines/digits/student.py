"""Training the demo's students, which are small and are only wanted whole."""

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
    """For a network this small more threads only get in the loader's way."""
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
    """Train a student, or go on with it, as `trainer.run.loop.train` does.

    Raises:
        KeyboardInterrupt: a signal asked for the end: what would follow is not wanted either.
        RelabelError: of `trainer.run.loop.train`.
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
