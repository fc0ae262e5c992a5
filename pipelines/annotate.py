"""The command `relabel-annotate`: image shards and a teacher in, a label store out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipelines.annotate_progress import ANNOTATE, run_shards
from pipelines.options import (
    class_names_option,
    parse_channels,
    parse_size,
    read_class_names,
    shards_option,
    teacher_arg_option,
)
from pipelines.published import export_command, import_command
from pipelines.status import status_command
from store.command import Commands
from store.patterns import expand_shards

if TYPE_CHECKING:
    from annotator.annotate import RunSettings
    from annotator.teacher import Teacher


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Relabel image shards with a teacher: a top-5 label map for every image, in a label store."""


main.add_command(import_command)
main.add_command(export_command)
main.add_command(status_command)


@main.command()
@shards_option
@click.option(
    "--labels",
    required=True,
    metavar="STORE",
    help="The label store to write, a path or a URL such as s3://bucket/labels.zarr; created if absent, "
    "continued if it was interrupted.",
)
@click.option("--teacher", required=True, metavar="NAME", help="A timm model, such as resnet50.a1_in1k.")
@teacher_arg_option
@click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The teacher's weights, safetensors or a PyTorch state dict; without it timm downloads its own.",
)
@click.option(
    "--input-size",
    callback=parse_size,
    metavar="PIXELS",
    help="Images are squashed to this size (480, or 480x320 as height x width). Default: the teacher's.",
)
@click.option("--mean", callback=parse_channels, metavar="M", help="Pixel mean in [0, 1]: one number or R,G,B.")
@click.option("--std", callback=parse_channels, metavar="S", help="Pixel standard deviation: one number or R,G,B.")
@click.option("--num-classes", type=click.IntRange(1, 65_535), help="Classes of the checkpoint's head, if not timm's.")
@class_names_option
@click.option("--top-k", type=click.IntRange(1), default=5, show_default=True, help="Classes kept per cell.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True, help="Images per forward pass.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Decoding processes.")
@click.option(
    "--device", default="auto", show_default=True, help="cuda, cuda:1, cpu; auto takes a GPU if there is one."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Of the teacher's features; head and top-k are always float32.",
)
@click.option("--overwrite", is_flag=True, help="Annotate these shards again even if they have labels.")
@click.option("--max-bad", type=click.IntRange(0), default=100, show_default=True,
              help="Undecodable images to put up with before the run stops.")  # fmt: skip
def run(
    patterns: tuple[str, ...],
    labels: str,
    teacher: str,
    teacher_args: dict[str, Any],
    checkpoint: Path | None,
    input_size: tuple[int, int] | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    num_classes: int | None,
    class_names: Path | None,
    top_k: int,
    batch_size: int,
    workers: int,
    device: str,
    precision: Any,  # noqa: ANN401  (click has checked the choice)
    overwrite: bool,
    max_bad: int,
) -> None:
    """Annotate every shard that has no labels yet.

    Run it again after an interruption: finished shards are skipped. A damaged shard is reported and left out, the
    others finish, and the exit status is 1.
    """
    shards = expand_shards(patterns)
    names = None if class_names is None else read_class_names(class_names)
    # Imported here, so that --help and a mistyped pattern do not wait for torch.
    from annotator.annotate import RunSettings
    from annotator.teacher import Teacher, TeacherSettings, pick_device

    settings = RunSettings(
        top_k=top_k, batch_size=batch_size, workers=workers, max_bad=max_bad, overwrite=overwrite
    )  # fmt: skip
    teacher_settings = TeacherSettings(
        name=teacher, args=teacher_args, checkpoint=checkpoint, num_classes=num_classes, input_size=input_size,
        mean=mean, std=std,
    )  # fmt: skip
    click.echo(f"loading the teacher {teacher}", err=True)
    network = Teacher(teacher_settings, device=pick_device(device), precision=precision)
    annotate_shards(shards, labels, network, settings, names)


def annotate_shards(
    shards: Sequence[Path],
    labels: Path | str,
    teacher: "Teacher",
    settings: "RunSettings",
    class_names: tuple[str, ...] | None,
) -> None:
    """Test the teacher, annotate with progress on the terminal, and print what became of the shards.

    Raises:
        RelabelError: of `annotator.annotate`, or FailedShardsError when some shards were left out.
    """
    from annotator.annotate import annotate, make_schema

    schema = make_schema(teacher, settings.top_k, class_names)
    height, width = schema.map_size
    click.echo(f"self-test passed: {height} x {width} cells, {schema.num_classes} classes, {teacher.device}", err=True)
    run_shards(lambda progress: annotate(shards, labels, teacher, schema, settings, progress), shards, labels, ANNOTATE)


if __name__ == "__main__":
    main()
