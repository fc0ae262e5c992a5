"""`relabel-annotate import` and `export`: published ReLabel files into a store, and a store as such files."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pipelines.annotate.progress import IMPORT, ExportProgress, print_exported
from pipelines.annotate.run import run_shards
from pipelines.options import (
    class_names_option,
    parse_channels,
    parse_size,
    read_class_names,
    shards_option,
    teacher_arg_option,
)
from store.cli.base import examples
from store.errors import LabelMapError
from store.shards.patterns import expand_shards
from store.text import printable

if TYPE_CHECKING:
    from annotator.published.files import Axes, Origin
    from annotator.published.source import MapSource
    from annotator.teacher.teacher import Teacher


@click.command(
    "import",
    epilog=examples(
        "relabel-annotate import relabel_maps.tar --labels labels.zarr \\\n    --shards 'train-{0000..1023}.tar'"
    ),
)
@click.argument("root", type=click.Path(path_type=Path), metavar="FOLDER_OR_TAR")
@shards_option
@click.option("--labels", required=True, metavar="STORE",
              help="The label store to write, a path or a URL such as s3://bucket/labels.zarr; created if absent, "
              "continued if it was interrupted.")  # fmt: skip
@click.option("--axes", type=click.Choice(["yx", "xy", "auto"]), default="auto", show_default=True,
              help="Whether the files have rows of cells (yx) or columns (xy) first; auto finds out by object boxes in "
              "the shards or by --teacher, and stops if it cannot.")  # fmt: skip
@click.option("--teacher", metavar="NAME", help="A timm model of the same classes that --axes auto may ask.")
@teacher_arg_option
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE",
              help="The --teacher's weights. Default: those that timm downloads.")  # fmt: skip
@click.option("--device", default="auto", show_default=True, metavar="DEVICE",
              help="Where the --teacher runs: cuda, cuda:1 or cpu; auto takes a GPU if there is one.")  # fmt: skip
@click.option("--architecture", default="published-relabel", show_default=True, metavar="NAME",
              help="Which network made the maps; recorded in the store.")  # fmt: skip
@click.option("--num-classes", type=click.IntRange(1, 65_535), default=1000, show_default=True, metavar="N",
              help="Number of classes of the maps.")  # fmt: skip
@class_names_option
@click.option("--input-size", callback=parse_size, default="475", show_default=True, metavar="PIXELS",
              help="Size to which images were squashed for the maps (475, or 480x320 as height x width).")  # fmt: skip
@click.option("--mean", callback=parse_channels, metavar="M",
              help="Mean of the pixels, which are scaled to 0 to 1: one number or R,G,B; recorded in the store and "
              "used for --teacher. Default: ImageNet's.")  # fmt: skip
@click.option("--std", callback=parse_channels, metavar="S",
              help="Standard deviation of the pixels, likewise.")  # fmt: skip
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
    mean: tuple[float, float, float] | None,
    std: tuple[float, float, float] | None,
    overwrite: bool,
) -> None:
    """Import published ReLabel files into a store.

    FOLDER_OR_TAR holds <class folder>/<name>.pt, as a folder or as a tar; a map is found by the last two parts of its
    sample's key. Run it again after an interruption: finished shards are skipped. A shard with a map that is missing
    or damaged is reported and left out, and the others finish.

    Exit status: 0 all is done; 1 something failed, each thing named; 2 wrong usage.
    """
    if axes != "auto" and teacher is not None:
        raise click.UsageError(f"--teacher is asked for the axes; --axes {axes} has said what they are")
    if teacher is None and (checkpoint is not None or teacher_args):
        raise click.UsageError("--checkpoint and --teacher-arg are the teacher's; --teacher NAME is missing")
    shards = expand_shards(patterns)
    # Imported here, so that --help and a mistyped pattern do not wait for torch.
    from annotator.published.files import Origin
    from annotator.published.importing import first_shape, import_maps
    from annotator.published.source import open_source
    from annotator.settings import TeacherSettings
    from annotator.teacher.teacher import Teacher

    names = None if class_names is None else read_class_names(class_names)
    pixels: dict[str, Any] = {name: value for name, value in (("mean", mean), ("std", std)) if value is not None}
    origin = Origin(
        architecture=architecture, num_classes=num_classes, class_names=names, input_size=input_size, **pixels
    )  # fmt: skip

    def load_teacher() -> Teacher:
        click.echo(f"axes: asking the teacher {teacher}", err=True)
        settings = TeacherSettings(
            name=str(teacher), args=teacher_args, checkpoint=checkpoint, num_classes=num_classes, mean=mean, std=std,
            device=device,
        )  # fmt: skip
        return Teacher(settings)

    click.echo(f"reading the names in {printable(str(root))}", err=True)
    source = open_source(root)
    shape = first_shape(shards, source, num_classes=num_classes)  # before anything is asked of a teacher
    known = _decide(axes, shards, source, origin, load_teacher if teacher else None)
    schema = origin.schema(shape, known)
    run_shards(
        lambda summary, _: import_maps(shards, labels, source, schema, known, summary, overwrite=overwrite),
        len(shards), labels, IMPORT,
    )  # fmt: skip


def _decide(
    axes: "Axes | Literal['auto']",
    shards: Sequence[Path],
    source: "MapSource",
    origin: "Origin",
    load_teacher: "Callable[[], Teacher] | None",
) -> "Axes":
    """The order that was given, or the one that the evidence shows, told with how sure it is."""
    from annotator.published.axes import find_axes

    if axes != "auto":
        return axes
    decided, verdict = find_axes(shards, source, origin, load_teacher)
    click.echo(str(verdict), err=True)
    return decided


@click.command("export", epilog=examples("relabel-annotate export labels.zarr relabel_maps"))
@click.argument("labels", metavar="LABELS")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option("--axes", type=click.Choice(["yx", "xy"]), default="xy", show_default=True,
              help="Whether rows of cells (yx) or columns (xy) come first. The official trainer takes a crop's top and "
              "left for x and y, so it reads only xy right.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in a FOLDER that is not empty.")
def export_command(labels: str, folder: Path, axes: Literal["yx", "xy"], overwrite: bool) -> None:
    """Export a store as published ReLabel files.

    LABELS is the label store: a path, or a URL such as s3://bucket/labels.zarr. Writes
    FOLDER/<class folder>/<name>.pt for every image: float32 [2, K, H, W], scores, then class ids. The class folder is
    that of the image's key, else ImageNet's in its name, else that of its original label.
    """
    from annotator.published.exporting import export_maps, official_limits, plan_export
    from store.reader import LabelStore

    store = LabelStore.open(labels)
    plan = plan_export(store, folder, overwrite=overwrite)
    for limit in official_limits(store.schema, axes):
        click.echo(f"note: the official trainer will not read these maps right: {limit}", err=True)
    start = time.monotonic()
    with ExportProgress(plan.rows) as progress:
        summary = export_maps(plan, folder, axes=axes, reporter=progress)
    print_exported(summary, folder, time.monotonic() - start)
    if summary.failures:
        raise LabelMapError(f"{folder}: {len(summary.failures)} groups were not exported whole; see above")
