"""The command `relabel-annotate pack`: image shards from folders of images, one folder a class, as for ImageFolder."""

import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from pipelines.annotate.folders import CLASSES_FILE, Folder, ImageFile, remarks_on_numbers, scan_folder
from store.cli.base import OneLineError, examples
from store.cli.options import LocalPath
from store.cli.progress import track
from store.errors import ShardError
from store.files import write_atomically
from store.shards.index import LABEL_EXTENSION
from store.text import counted, first_few, printable


def write_shards(folder: Folder, out: Path, *, prefix: str, shard_size: int, seed: int) -> Iterator[Path]:
    """Write shards of shuffled images one after the other, each renamed into place when complete, then the class names.

    The bytes depend on the images, their names and the arguments alone.

    Args:
        folder: the images.
        out: an empty folder.
        prefix: of the shards' names: `<prefix>-0000.tar`.
        shard_size: images of a shard; the last one may have fewer.
        seed: of the order.

    Yields:
        Each shard's path, once it is written.

    Raises:
        ShardError: an image cannot be read.
    """
    order = np.random.default_rng(seed).permutation(len(folder.images)).tolist()
    for number, start in enumerate(range(0, len(order), shard_size)):
        path = out / f"{prefix}-{number:04}.tar"
        _write_shard(path, [folder.images[i] for i in order[start : start + shard_size]])
        yield path
    (out / CLASSES_FILE).write_text("".join(f"{name}\n" for name in folder.classes), encoding="utf-8")


def _write_shard(path: Path, images: Sequence[ImageFile]) -> None:
    from webdataset import TarWriter  # which imports torch: help must not wait for it

    with write_atomically(path) as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
        for image in images:
            extension = image.file.suffix[1:].lower()
            writer.write({
                "__key__": image.key,
                extension: _read(image.file),
                LABEL_EXTENSION: str(image.label).encode(),
            })  # fmt: skip


def _read(file: Path) -> bytes:
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
            raise ShardError(f"{file}: not a regular file; move it away, and start again in an empty folder")
        return file.read_bytes()
    except OSError as error:
        raise ShardError(
            f"{file}: cannot be read: {error.strerror or error}; start again in an empty folder"
        ) from error


def _check_prefix(_: object, __: object, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        raise click.BadParameter("expected letters, digits, - and _")
    return value


@click.command("pack", epilog=examples("relabel-annotate pack images/train --out shards"))
@click.argument("folder", metavar="IMAGES", type=LocalPath(exists=True, file_okay=False))
@click.option("--out", type=LocalPath(file_okay=False), required=True, metavar="FOLDER",
              help="Folder for the shards, new or empty.")  # fmt: skip
@click.option("--prefix", default="train", show_default=True, callback=_check_prefix, metavar="NAME",
              help="Start of the shards' names, as in train-0000.tar.")  # fmt: skip
@click.option("--shard-size", type=click.IntRange(1, 1_000_000), default=1000, show_default=True, metavar="N",
              help="Images in a shard.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N",
              help="Seed of the order in which images are shuffled.")  # fmt: skip
def pack_command(folder: Path, out: Path, prefix: str, shard_size: int, seed: int) -> None:
    """Pack a folder of class folders into image shards.

    IMAGES holds a folder for each class, as for torchvision's ImageFolder; classes are numbered in the order of
    their names, which are written to classes.txt beside the shards. Links to folders are followed. Hidden folders and
    files are left out and named. Images are shuffled and copied byte for byte; they are not decoded, so `run` finds the
    undecodable ones.
    """
    found = scan_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OneLineError(f"{out}: not empty; choose a new folder for the shards")
    for line in _remarks(found, out):
        click.echo(printable(line), err=True)
    count = -(-len(found.images) // shard_size)
    shards = write_shards(found, out, prefix=prefix, shard_size=shard_size, seed=seed)
    for _ in track(shards, "pack", count):
        pass
    last = len(found.classes) - 1
    click.echo(printable(
        f"{out}: {len(found.images):,} images of {len(found.classes):,} classes in {counted(count, 'shard')}; "
        f"class 0 is {found.classes[0]!r}, class {last} is {found.classes[last]!r}, all names in {out / CLASSES_FILE}"
    ))  # fmt: skip


def _remarks(found: Folder, out: Path) -> Iterator[str]:
    for reason, paths in found.left_out.items():
        yield f"left out, {reason}: {first_few([str(path) for path in paths])}"
    for remark in remarks_on_numbers(found.classes, out):
        yield f"note: {remark}"
