"""The command `relabel-train evaluate`: accuracies of a checkpoint on labelled image shards."""

import json
from pathlib import Path
from typing import Any, get_args

import click

from pipelines.options import class_names_option, parse_arguments, parse_channels
from store.command import refuse_nan
from trainer.kinds import Interpolation

# click keeps the lines of a paragraph that starts with \b as they are.
EXAMPLE = """\b
Examples:
  relabel-train evaluate --checkpoint runs/resnet18/best.pt --val 'val-{00..49}.tar'
  relabel-train evaluate --checkpoint relabel_resnet50.pth --model resnet50 \\
      --crop-pct 0.875 --interpolation bilinear --val 'val-{00..49}.tar' --real real.json
"""


@click.command(epilog=EXAMPLE)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="A checkpoint of relabel-train; with --model, safetensors or a PyTorch state dict from elsewhere.",
)
@click.option(
    "--val",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="Labelled image shards: a path, a glob or braces, such as 'val-{00..49}.tar'. Repeatable.",
)
@click.option("--model", metavar="NAME", help="The timm model that weights from elsewhere are for, such as resnet50.")
@click.option(
    "--model-arg",
    "model_args",
    metavar="KEY=VALUE",
    multiple=True,
    callback=parse_arguments,
    help="With --model: an argument for timm.create_model, such as pad_type=same. Repeatable.",
)
@click.option("--num-classes", type=click.IntRange(1, 65_535), help="With --model: classes of its head, if not timm's.")
@click.option("--image-size", "val_size", type=click.IntRange(1, 65_535), help="Side of an image, pixels.")
@click.option(
    "--crop-pct",
    "val_crop_pct",
    type=click.FloatRange(0.01, 1),
    callback=refuse_nan,
    help="The share of the resized image's shorter side that is kept.",
)
@click.option("--mean", callback=parse_channels, metavar="M", help="Pixel mean in [0, 1]: one number or R,G,B.")
@click.option("--std", callback=parse_channels, metavar="S", help="Pixel standard deviation: one number or R,G,B.")
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)), help="How images are resized.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    help="Images at once in each process.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=4,
    show_default=True,
    help="Processes that read and decode for each process that evaluates.",
)
@click.option(
    "--real",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The published real.json: accuracy by ReaL labels too, on ImageNet's validation images.",
)
@class_names_option
@click.option("--per-class", is_flag=True, help="Print each class's samples and hits.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def evaluate(
    checkpoint: Path,
    patterns: tuple[str, ...],
    model: str | None,
    model_args: dict[str, Any],
    num_classes: int | None,
    batch_size: int,
    workers: int,
    real: Path | None,
    class_names: Path | None,
    per_class: bool,
    as_json: bool,
    **view: Any,  # noqa: ANN401  (settings by their names, None where not given; click has checked them)
) -> None:
    """Evaluate a checkpoint on labelled image shards.

    How images are prepared is what the student was trained with, or what timm knows of --model, unless given. torchrun
    shares the images out: torchrun --nproc-per-node 8 --no-python relabel-train evaluate ...
    """
    if model is None and (model_args or num_classes):
        raise click.UsageError("--model-arg and --num-classes are for a network that --model names")
    # Imported here: torch takes seconds, and help should not.
    from pipelines.candidate import Named
    from pipelines.evaluate_checkpoint import EvaluateJob, evaluate_checkpoint
    from pipelines.evaluate_result import class_table, summary, to_json

    found = evaluate_checkpoint(
        EvaluateJob(
            checkpoint=checkpoint,
            patterns=patterns,
            named=None if model is None else Named(model=model, model_args=model_args, num_classes=num_classes),
            chosen={name: value for name, value in view.items() if value is not None} | {"workers": workers},
            batch_size=batch_size,
            real=real,
            class_names=class_names,
        )
    )
    if found is None:
        return
    if as_json:
        click.echo(json.dumps(to_json(found)))
        return
    if per_class:
        click.echo(class_table(found) + "\n")
    click.echo(summary(found))
