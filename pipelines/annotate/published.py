"""The commands `relabel-annotate import` and `export`: published ReLabel files to a store, and back."""

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from annotator.settings import TeacherSettings
from pipelines.annotate.progress import IMPORT, ExportProgress
from pipelines.annotate.run import run_shards
from pipelines.options import (
    checkpoint_option,
    class_names_option,
    device_option,
    mean_option,
    parse_size,
    read_class_names,
    std_option,
    store_option,
    teacher_arg_option,
)
from store.cli.base import examples
from store.cli.options import LocalPath, labels_argument, shards_option
from store.errors import LabelMapError
from store.shards.patterns import expand_shards
from store.text import printable

if TYPE_CHECKING:
    from annotator.published.exporting import ExportSummary
    from annotator.published.files import Axes
    from annotator.published.origin import Origin
    from annotator.published.source import MapSource
    from annotator.teacher.teacher import Teacher

CROP_PCT = 0.875  # timm's default


def _parse_region(_: object, __: object, text: str) -> float | None:
    """crop_pct of a centre crop, None for whole images."""
    if text == "whole":
        return None
    match = re.fullmatch(r"centre(?::(0?\.\d{1,9}|1(?:\.0*)?))?", text)
    if not match or (match[1] is not None and float(match[1]) == 0):
        raise click.BadParameter(
            f"expected whole, centre, or centre:PCT with a fraction such as centre:0.956, not {text!r}"
        )
    return CROP_PCT if match[1] is None else float(match[1])


@click.command(
    "import",
    epilog=examples(
        "relabel-annotate import relabel_maps.tar --labels labels.zarr \\\n    --shards 'train-{0000..1023}.tar'"
    ),
)
@click.argument("root", type=LocalPath(), metavar="FOLDER_OR_TAR")
@shards_option("Image shards", required=True)
@store_option
@click.option("--axes", type=click.Choice(["yx", "xy", "auto"]), default="auto", show_default=True,
              help="Whether the files store rows of cells (yx) or columns (xy) first; auto decides by object boxes in "
              "the shards or by --teacher, and stops if it cannot.")  # fmt: skip
@click.option("--teacher", metavar="NAME", help="A timm model of the same classes, for --axes auto.")
@teacher_arg_option
@checkpoint_option
@device_option
@click.option("--architecture", default="published-relabel", show_default=True, metavar="NAME",
              help="The network that made the maps; recorded in the store.")  # fmt: skip
@click.option("--num-classes", type=click.IntRange(1, 65_535), default=1000, show_default=True, metavar="N",
              help="Number of classes of the maps.")  # fmt: skip
@class_names_option
@click.option("--input-size", callback=parse_size, default="475", show_default=True, metavar="PIXELS",
              help="Size to which images were squashed for the maps (475, or 480x320 as height x width).")  # fmt: skip
@click.option("--region", "crop_pct", callback=_parse_region, default="whole", show_default=True,
              metavar="whole|centre[:PCT]", help="The part of each image that its map covers: all of it, squashed, or "
              f"the square in the middle that timm evaluates with this crop_pct (default {CROP_PCT}).")  # fmt: skip
@click.option("--interpolation", type=click.Choice(["bilinear", "bicubic"]), default="bilinear", show_default=True,
              help="How images were resized for the maps; recorded in the store and used for --teacher.")  # fmt: skip
@mean_option("Recorded and used likewise. Default: ImageNet's.")
@std_option("Default: ImageNet's.")
@click.option("--overwrite", is_flag=True, help="Import the maps of these shards again even if they have labels.")
def import_command(
    root: Path,
    patterns: tuple[str, ...],
    labels: str,
    axes: "Axes | Literal['auto']",
    teacher: str | None,
    teacher_args: dict[str, Any],
    checkpoint: Path | None,
    device: str,
    architecture: str,
    num_classes: int,
    class_names: Path | None,
    input_size: tuple[int, int],
    crop_pct: float | None,
    interpolation: str,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    overwrite: bool,
) -> None:
    """Import published ReLabel files into a store.

    FOLDER_OR_TAR is a folder or a tar of <class folder>/<name>.pt; a map is found by the last two parts of its
    sample's key. Run it again after an interruption: finished shards are skipped. A shard with a missing or damaged
    map is reported and left out, and the others finish.

    Exit status: 0 all shards are done; 1 an error, or some shards failed; 2 wrong usage.
    """
    if axes != "auto" and teacher is not None:
        raise click.UsageError(f"--teacher is for --axes auto; with --axes {axes} it is not needed")
    if teacher is None and (checkpoint is not None or teacher_args):
        raise click.UsageError("--checkpoint and --teacher-arg need --teacher NAME")
    shards = expand_shards(patterns)
    # Imported here, so that --help and a mistyped pattern do not wait for torch.
    from annotator.published.importing import first_shape, import_maps
    from annotator.published.source import open_source

    origin = _make_origin(
        class_names, mean, std, architecture=architecture, num_classes=num_classes, input_size=input_size,
        crop_pct=crop_pct, interpolation=interpolation,
    )  # fmt: skip
    settings = None if not teacher else TeacherSettings(
        name=teacher, args=teacher_args, checkpoint=checkpoint, num_classes=num_classes, mean=mean, std=std,
        device=device,
    )  # fmt: skip
    click.echo(f"reading the file names in {printable(str(root))}", err=True)
    source = open_source(root)
    shape = first_shape(shards, source, num_classes=num_classes)  # before a teacher is loaded
    found_axes = _find_axes(axes, shards, source, origin, settings)
    schema = origin.schema(shape, found_axes)
    run_shards(
        lambda summary, _: import_maps(shards, labels, source, schema, found_axes, summary, overwrite=overwrite),
        len(shards), labels, IMPORT,
    )  # fmt: skip


def _make_origin(
    class_names: Path | None,
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    **known: Any,  # noqa: ANN401  (fields by their names; click has checked them)
) -> "Origin":
    """The origin of the maps; mean and deviation are ImageNet's where they are not given."""
    from annotator.published.origin import Origin

    names = None if class_names is None else read_class_names(class_names)
    pixels: dict[str, Any] = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    return Origin(class_names=names, **pixels, **known)


def _find_axes(
    axes: "Axes | Literal['auto']",
    shards: Sequence[Path],
    source: "MapSource",
    origin: "Origin",
    teacher: TeacherSettings | None,
) -> "Axes":
    """The given order, or the one that the evidence shows, printed with its votes."""
    from annotator.published.axes import find_axes

    if axes != "auto":
        return axes
    load = None if teacher is None else partial(_load_teacher, teacher)
    decided, verdict = find_axes(shards, source, origin, load)
    click.echo(str(verdict), err=True)
    return decided


def _load_teacher(settings: TeacherSettings) -> "Teacher":
    from annotator.teacher.build import make_current_folder_importable
    from annotator.teacher.teacher import Teacher

    click.echo(f"axes: comparing with the teacher {settings.name}", err=True)
    make_current_folder_importable()
    return Teacher(settings)


@click.command("export", epilog=examples("relabel-annotate export labels.zarr relabel_maps"))
@labels_argument
@click.argument("folder", type=LocalPath(), metavar="FOLDER")
@click.option("--axes", type=click.Choice(["yx", "xy"]), default="xy", show_default=True,
              help="Whether rows of cells (yx) or columns (xy) come first. The official trainer takes a crop's top and "
              "left for x and y, so it reads only xy correctly.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in a FOLDER that is not empty.")
def export_command(labels: str, folder: Path, axes: Literal["yx", "xy"], overwrite: bool) -> None:
    """Export a store as published ReLabel files.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Writes
    FOLDER/<class folder>/<name>.pt for every image: float32 [2, K, H, W], scores, then class ids. The class folder is
    that of the image's key, else ImageNet's in its name, else that of its label.
    """
    from annotator.published.exporting import export_maps, official_limits, plan_export
    from store.reader import LabelStore

    store = LabelStore.open(labels)
    plan = plan_export(store, folder, overwrite=overwrite)
    for limit in official_limits(store.schema, axes):
        click.echo(f"note: the official trainer will misread these maps: {limit}", err=True)
    start = time.monotonic()
    with ExportProgress(plan.rows) as progress:
        summary = export_maps(plan, folder, axes=axes, reporter=progress)
    _print_exported(summary, folder, time.monotonic() - start)
    if summary.failures:
        raise LabelMapError(f"{folder}: {len(summary.failures)} groups were not exported completely; see above")


def _print_exported(summary: "ExportSummary", folder: Path, seconds: float) -> None:
    click.echo(
        f"{printable(str(folder))}: {summary.written:,} maps written, {summary.size / max(summary.written, 1):,.0f} "
        f"bytes each, {summary.undecodable:,} undecodable images have none; {seconds:.1f} s"
    )
    for reason in summary.failures:
        click.echo(f"  not exported: {printable(reason)}")
