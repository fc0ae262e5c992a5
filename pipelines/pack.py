"""The command `relabel-annotate pack`: folders of images to image shards."""

import re
from pathlib import Path

import click
from rich.console import Console
from rich.progress import track

from store.command import OneLineError, examples
from store.text import counted, first_few, printable


def _check_prefix(_: object, __: object, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        raise click.BadParameter("expected letters, digits, - and _")
    return value


@click.command("pack", epilog=examples("relabel-annotate pack images/train --out shards"))
@click.argument("folder", metavar="IMAGES", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
              help="Folder for the shards, new or empty.")  # fmt: skip
@click.option("--prefix", default="train", show_default=True, callback=_check_prefix, metavar="NAME",
              help="How the shards' names begin, as in train-0000.tar.")  # fmt: skip
@click.option("--shard-size", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
              help="Images in a shard.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Decides how the images are shuffled.")  # fmt: skip
def pack_command(folder: Path, out: Path, prefix: str, shard_size: int, seed: int) -> None:
    """Pack a folder of class folders into image shards.

    IMAGES holds a folder for each class, as torchvision's ImageFolder has them; classes are numbered in the order of
    their names, which are written to classes.txt beside the shards. Images are shuffled, copied byte for byte and not
    decoded: `run` leaves those out that cannot be, and names them.
    """
    from pipelines.annotate.pack import scan_folder, write_shards

    found = scan_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OneLineError(f"{out}: not empty; choose a new folder for the shards")
    count = -(-len(found.pictures) // shard_size)
    console = Console(stderr=True)
    shards = write_shards(found, out, prefix=prefix, shard_size=shard_size, seed=seed)
    for _ in track(shards, "pack", total=count, console=console, disable=not console.is_terminal, transient=True):
        pass
    if found.others:
        names = first_few([str(path) for path in found.others])
        click.echo(printable(f"left out, since they are no images by their names: {names}"), err=True)
    click.echo(printable(
        f"{out}: {len(found.pictures):,} images of {len(found.classes):,} classes in {counted(count, 'shard')}; "
        f"names in {out / 'classes.txt'}"
    ))  # fmt: skip
