"""The command `relabel-train evaluate`: the accuracy of a checkpoint on labelled image shards."""

import json
from pathlib import Path
from typing import Any, get_args

import click

from pipelines.options import class_names_option, mean_option, parse_arguments, std_option
from store.cli.base import examples, refuse_nan
from store.cli.options import LocalPath, Location, json_option
from trainer.types import Interpolation


@click.command(
    epilog=examples(
        "relabel-train evaluate --checkpoint runs/resnet18/best.pt \\\n    --val 'val-{00..49}.tar'",
        "relabel-train evaluate --checkpoint relabel_resnet50.pth --model resnet50 \\\n"
        "    --crop-pct 0.875 --interpolation bilinear \\\n"
        "    --val 'val-{00..49}.tar' --real real.json",
    )
)
@click.option(
    "--checkpoint",
    metavar="FILE",
    type=LocalPath(),
    required=True,
    help="A checkpoint of relabel-train; with --model, other weights: safetensors or a PyTorch checkpoint.",
)
@click.option(
    "--val",
    "patterns",
    type=Location(),
    metavar="PATTERN",
    multiple=True,
    required=True,
    help="Labelled image shards: local paths with braces ({00..49}) or globs (*, **), in quotes. Repeatable.",
)
@click.option("--model", metavar="NAME", help="The timm model that the weights are for, such as resnet50.")
@click.option(
    "--model-arg",
    "model_args",
    metavar="KEY=VALUE",
    multiple=True,
    callback=parse_arguments,
    help="With --model: an argument for timm.create_model, such as pad_type=same. Repeatable.",
)
@click.option("--num-classes", type=click.IntRange(1, 65_535), metavar="N",
              help="With --model: number of classes of --checkpoint. Default: that of timm's weights.")  # fmt: skip
@click.option("--image-size", "val_size", type=click.IntRange(1, 65_535), metavar="PIXELS",
              help="Side of the square images that the network takes.")  # fmt: skip
@click.option(
    "--crop-pct",
    "val_crop_pct",
    type=click.FloatRange(0.01, 1),
    callback=refuse_nan,
    metavar="X",
    help="Fraction of the resized image's shorter side that is kept.",
)
@mean_option()
@std_option()
@click.option("--interpolation", type=click.Choice(get_args(Interpolation)), help="How images are resized.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=64,
    show_default=True,
    metavar="N",
    help="Images at once in each process.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    default=4,
    show_default=True,
    metavar="N",
    help="Processes that read and decode images, for each process that evaluates.",
)
@click.option(
    "--real",
    metavar="FILE",
    type=LocalPath(),
    help="The published real.json: accuracy by the ReaL labels too, on ImageNet's validation images.",
)
@class_names_option
@click.option("--per-class", is_flag=True, help="Also print a table of the classes: images, top-1 and top-5 hits.")
@json_option
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
    **preprocessing: Any,  # noqa: ANN401  (settings by their names, None if not given; click has checked them)
) -> None:
    """Evaluate a checkpoint on labelled image shards.

    Size, crop, mean, standard deviation and interpolation default to those of the student's training, or to timm's for
    --model. Under torchrun --no-python the processes divide the images among them.
    """
    if model is None and (model_args or num_classes):
        raise click.UsageError("--model-arg and --num-classes need --model")
    # Imported here: torch takes seconds, and help should not.
    from pipelines.train.evaluate import EvaluateJob, TimmModel, class_table, evaluate_checkpoint, summary, to_json

    result = evaluate_checkpoint(
        EvaluateJob(
            checkpoint=checkpoint,
            patterns=patterns,
            timm_model=None
            if model is None
            else TimmModel(model=model, model_args=model_args, num_classes=num_classes),
            chosen={name: value for name, value in preprocessing.items() if value is not None} | {"workers": workers},
            batch_size=batch_size,
            real=real,
            class_names=class_names,
        )
    )
    if result is None:
        return
    if as_json:
        click.echo(json.dumps(to_json(result)))
        return
    if per_class:
        click.echo(class_table(result) + "\n")
    click.echo(summary(result))
