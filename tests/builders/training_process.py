"""A training run as a separate process, which tests stop, kill and run on several ranks.

Run as `python -m tests.builders.training_process FOLDER OUT [key=value ...]`; FOLDER is a `make_dataset`'s.
"""

import os
import sys
import time
from hashlib import sha1
from pathlib import Path

import torch
from torch import Tensor

from store.errors import PeerError, RelabelError
from tests.builders.training import Recorder, small_settings
from trainer.batch import Batch
from trainer.evaluation import evaluate
from trainer.run.loop import train
from trainer.settings import with_overrides
from trainer.student.student import Student

PACE = float(
    os.environ.get("PACE", "0")
)  # seconds for a step or a batch of evaluation, so that signals arrive during them
SEEN = os.environ.get("SEEN")  # a folder for files with the digests of all crops trained on, one for each process


def slow_down() -> None:
    """Make every step and batch of evaluation slow; print a line for each batch of evaluation."""
    update, predict = Student.update, evaluate.predict

    def slow_update(self: Student, batch: Batch, done: int) -> Tensor:
        time.sleep(PACE)
        return update(self, batch, done)

    def slow_predict(*arguments: object, **options: object) -> object:
        for prediction in predict(*arguments, **options):  # type: ignore[arg-type]
            print("evaluating", flush=True)
            time.sleep(PACE)
            yield prediction

    Student.update = slow_update  # type: ignore[method-assign, assignment]
    evaluate.predict = slow_predict  # type: ignore[assignment]


def note_crops(folder: Path) -> None:
    """Record the crops of every update; they depend only on row and epoch."""
    update = Student.update

    def noting_update(self: Student, batch: Batch, done: int) -> Tensor:
        crops = zip(batch.images, batch.boxes, strict=True) if batch.images.any() else ()  # none of the rehearsal's
        names = [sha1(image.numpy().tobytes() + box.numpy().tobytes()).hexdigest() for image, box in crops]
        with (folder / str(os.getpid())).open("a") as file:
            file.writelines(f"{done} {name}\n" for name in names)
        return update(self, batch, done)

    Student.update = noting_update  # type: ignore[method-assign, assignment]


class Speaker(Recorder):
    """Prints a line for each report, so that tests can send signals during steps."""

    def step(self, report: object) -> None:
        print("step", flush=True)


def main() -> None:
    folder, out, *settings = sys.argv[1:]
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if PACE:
        slow_down()
    if SEEN:
        note_crops(Path(SEEN))
    try:
        result = train(
            with_overrides(small_settings(epochs=3, ema_decay=0.9, log_interval=1), settings),
            shards=sorted(Path(folder).glob("train-*.tar")),
            labels=Path(folder) / "labels",
            val_shards=[Path(folder) / "val.tar"],
            out=Path(out),
            resume=True,
            reporter=Speaker(),
        )
    except PeerError:
        sys.exit(1)
    except RelabelError as error:
        sys.exit(f"error: {error}")
    if os.environ.get("RANK", "0") == "0":
        print(f"done {result.epochs} {result.steps} {result.finished}", flush=True)


if __name__ == "__main__":
    main()
