"""The stages of the demo: draw scenes, annotate them, train a student; each keeps outputs that are finished already."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.train.recipes import RECIPES
from store.text import printable

if TYPE_CHECKING:
    from annotator.settings import TeacherSettings

TRAIN_SCENES, TRAIN_SHARDS = 4000, 4
VAL_SCENES, VAL_SHARDS = 1000, 1
SEED = 0
ARMS = {"original": "the dataset's labels", "relabel": "ReLabel"}  # setting `target` of a student: its name in tables


def make_shards(out: Path) -> tuple[list[Path], list[Path]]:
    """Write the training and validation shards that are missing in `out/shards`; gives the paths of both."""
    from pipelines.digits.shards import write_shards
    from store.files import make_folder

    folder = out / "shards"
    is_new = not folder.exists()
    make_folder(folder)
    if is_new:
        shown = printable(str(folder))
        click.echo(f"drawing {TRAIN_SCENES} digit scenes to train on, {VAL_SCENES} to validate: {shown}", err=True)
    return (
        write_shards(folder, "train", TRAIN_SCENES, TRAIN_SHARDS, SEED),
        write_shards(folder, "val", VAL_SCENES, VAL_SHARDS, SEED),
    )


def annotate_scenes(out: Path) -> None:
    """Annotate the training shards into `out/labels.zarr`; finished shards are skipped."""
    training, _ = make_shards(out)
    annotate_digits(training, out / "labels.zarr")


def annotate_digits(shards: list[Path], labels: Path) -> None:
    """Annotate shards of scenes with the demo's teacher; raises RelabelError as `annotate_shards`."""
    from annotator.settings import Job, RunSettings
    from pipelines.annotate.run import annotate_shards
    from pipelines.digits.scenes import CLASS_NAMES

    settings = RunSettings(batch_size=64)
    annotate_shards(shards, Job(labels=labels, teacher=demo_teacher(), settings=settings, class_names=CLASS_NAMES))


def demo_teacher(device: str = "auto") -> "TeacherSettings":
    """Settings of the shipped teacher of digits."""
    from annotator.settings import TeacherSettings
    from pipelines.digits import teacher as digits
    from pipelines.digits.scenes import CLASS_NAMES

    return TeacherSettings(
        name=digits.TEACHER_NAME,
        args=dict(digits.TEACHER_ARGS),
        checkpoint=digits.TEACHER_WEIGHTS,
        num_classes=len(CLASS_NAMES),
        input_size=(digits.INPUT_SIZE, digits.INPUT_SIZE),
        mean=digits.MEAN,
        std=digits.STD,
        device=device,
    )


def train_student(out: Path, target: str) -> None:
    """Train a student with the recipe `demo` and one kind of target in `out/<target>`, or resume its training."""
    from pipelines.digits.student import train_to_end
    from pipelines.train.progress import TrainProgress
    from trainer.run.records import finished_epochs
    from trainer.settings import with_overrides

    training, val = make_shards(out)
    settings = with_overrides(RECIPES["demo"](), [f"target={target}"])
    if finished_epochs(out / target) == settings.epochs:
        click.echo(f"trained before, {settings.epochs} epochs: {printable(str(out / target))}", err=True)
    with TrainProgress() as progress:
        train_to_end(
            settings,
            shards=training,
            labels=out / "labels.zarr",
            val_shards=val,
            out=out / target,
            reporter=progress,
        )
