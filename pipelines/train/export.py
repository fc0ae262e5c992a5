"""The command `relabel-train export`: writes a student's weights as safetensors."""

from pathlib import Path
from typing import Literal

import click

from store.cli.base import examples
from store.cli.options import LocalPath
from store.text import counted, printable


@click.command(
    epilog=examples("relabel-train export --checkpoint runs/resnet18/best.pt \\\n    --out student.safetensors")
)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=LocalPath(),
    required=True,
    help="A checkpoint of relabel-train.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=LocalPath(),
    required=True,
    help="The file to write, which must not exist yet; its name ends in .safetensors.",
)
@click.option(
    "--weights",
    type=click.Choice(["model", "ema"]),
    help="The trained weights (model) or their moving average (ema). Default: the average if there is one.",
)
def export(checkpoint: Path, out: Path, weights: Literal["model", "ema"] | None) -> None:
    """Write a student's weights for timm and torchvision.

    The file is safetensors. Its metadata has the architecture, the preprocessing of images and the accuracy.
    """
    # Imported here: torch takes seconds, and help should not.
    from pipelines.train.evaluate import WEIGHTS
    from trainer.student.trained import export_student

    student = export_student(checkpoint, out, weights)
    top1 = "" if student.top1 is None else f", top-1 {student.top1:.2%}"
    click.echo(
        printable(
            f"{out}: {student.settings.model} with {student.num_classes:,} classes, "
            f"{WEIGHTS[student.weights]} after {counted(student.epoch, 'epoch')}{top1}"
        )
    )
