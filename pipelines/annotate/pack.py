"""The command `relabel-annotate pack`: image shards from folders of images, one folder a class, as for ImageFolder."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from store.cli.base import OneLineError, examples
from store.cli.progress import track
from store.errors import ShardError
from store.files import write_atomically
from store.shards.index import IMAGE_EXTENSIONS, LABEL_EXTENSION
from store.text import counted, first_few, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """One image file, with its key and label in the shard."""

    file: Path
    key: str  # class folder and name, without dots, which would end the key
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """The contents of a folder of class folders."""

    classes: tuple[str, ...]  # sorted, as ImageFolder numbers them
    images: tuple[ImageFile, ...]
    others: tuple[Path, ...]  # files without an image extension


def scan_folder(root: Path) -> Folder:
    """Find the images of each class folder and its subfolders.

    Raises:
        ShardError: no class folders, a class without images, or two images that would have one key.
    """
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if not classes:
        raise ShardError(f"{root}: holds no folders; expected one for each class, with its images")
    images: list[ImageFile] = []
    others: list[Path] = [entry for entry in sorted(root.iterdir()) if not entry.is_dir()]
    for label, name in enumerate(classes):
        files = [file for file in sorted((root / name).rglob("*")) if not file.is_dir()]
        of_class = [file for file in files if file.suffix[1:].lower() in IMAGE_EXTENSIONS]
        if not of_class:
            raise ShardError(f"{root / name}: holds no {', '.join(sorted(IMAGE_EXTENSIONS))}; a class needs images")
        others += [file for file in files if file not in set(of_class)]
        images += [ImageFile(file=file, key=_key(root, file), label=label) for file in of_class]
    _refuse_equal_keys(images)
    return Folder(classes=tuple(classes), images=tuple(images), others=tuple(others))


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
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in folder.classes), encoding="utf-8")


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
        return file.read_bytes()
    except OSError as error:
        raise ShardError(
            f"{file}: cannot be read: {error.strerror or error}; start again in an empty folder"
        ) from error


def _key(root: Path, file: Path) -> str:
    name = file.relative_to(root).with_suffix("").as_posix().replace(".", "_")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ShardError(f"{file}: its name is not UTF-8; rename it") from error
    return name


def _refuse_equal_keys(images: Sequence[ImageFile]) -> None:
    seen: dict[str, Path] = {}
    for image in images:
        if image.key in seen:
            names = first_few([str(seen[image.key]), str(image.file)])
            raise ShardError(f"{names} would both be sample {image.key!r}; rename one")
        seen[image.key] = image.file


def _check_prefix(_: object, __: object, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", value):
        raise click.BadParameter("expected letters, digits, - and _")
    return value


@click.command("pack", epilog=examples("relabel-annotate pack images/train --out shards"))
@click.argument("folder", metavar="IMAGES", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
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
    their names, which are written to classes.txt beside the shards. Images are shuffled and copied byte for byte; they
    are not decoded, so `run` finds the undecodable ones.
    """
    found = scan_folder(folder)
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise OneLineError(f"{out}: not empty; choose a new folder for the shards")
    count = -(-len(found.images) // shard_size)
    shards = write_shards(found, out, prefix=prefix, shard_size=shard_size, seed=seed)
    for _ in track(shards, "pack", count):
        pass
    if found.others:
        names = first_few([str(path) for path in found.others])
        click.echo(printable(f"left out, without an image extension: {names}"), err=True)
    click.echo(printable(
        f"{out}: {len(found.images):,} images of {len(found.classes):,} classes in {counted(count, 'shard')}; "
        f"names in {out / 'classes.txt'}"
    ))  # fmt: skip
