"""Image shards out of folders of images, one folder a class, as torchvision's ImageFolder takes them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track
from webdataset import TarWriter

from store.cli.base import OneLineError, examples
from store.errors import ShardError
from store.files import write_atomically
from store.shards.index import IMAGE_EXTENSIONS, LABEL_EXTENSION
from store.text import counted, first_few, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """One image file and what it is called in its shard."""

    file: Path
    key: str  # class folder and name, without dots, which would end the key
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """What was found in a folder of class folders."""

    classes: tuple[str, ...]  # sorted, as ImageFolder numbers them
    pictures: tuple[Picture, ...]
    others: tuple[Path, ...]  # files that are no images by their names


def scan_folder(root: Path) -> Folder:
    """Find the images of each class folder, those in its subfolders too.

    Raises:
        ShardError: no class folders, a class without images, or two images that would have one key.
    """
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    if not classes:
        raise ShardError(f"{root}: holds no folders; expected one for each class, with its images")
    pictures: list[Picture] = []
    others: list[Path] = [entry for entry in sorted(root.iterdir()) if not entry.is_dir()]
    for label, name in enumerate(classes):
        files = [file for file in sorted((root / name).rglob("*")) if not file.is_dir()]
        images = [file for file in files if file.suffix[1:].lower() in IMAGE_EXTENSIONS]
        if not images:
            raise ShardError(f"{root / name}: holds no {', '.join(sorted(IMAGE_EXTENSIONS))}; a class needs images")
        others += [file for file in files if file not in set(images)]
        pictures += [Picture(file=file, key=_key(root, file), label=label) for file in images]
    _refuse_equal_keys(pictures)
    return Folder(classes=tuple(classes), pictures=tuple(pictures), others=tuple(others))


def write_shards(folder: Folder, out: Path, *, prefix: str, shard_size: int, seed: int) -> Iterator[Path]:
    """Write shards of shuffled images one after the other, each whole or not at all, and last the classes' names.

    The bytes depend on the images, their names and the arguments alone.

    Args:
        folder: what to pack.
        out: an empty folder.
        prefix: how the shards' names begin: `<prefix>-0000.tar`.
        shard_size: images of a shard; the last one may have fewer.
        seed: of the order.

    Yields:
        Each shard's path, once it is written.

    Raises:
        ShardError: an image is gone.
    """
    order = np.random.default_rng(seed).permutation(len(folder.pictures)).tolist()
    for number, start in enumerate(range(0, len(order), shard_size)):
        path = out / f"{prefix}-{number:04}.tar"
        _write_shard(path, [folder.pictures[i] for i in order[start : start + shard_size]])
        yield path
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in folder.classes), encoding="utf-8")


def _write_shard(path: Path, pictures: Sequence[Picture]) -> None:
    with write_atomically(path) as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
        for picture in pictures:
            extension = picture.file.suffix[1:].lower()
            writer.write({
                "__key__": picture.key,
                extension: _read(picture.file),
                LABEL_EXTENSION: str(picture.label).encode(),
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


def _refuse_equal_keys(pictures: Sequence[Picture]) -> None:
    seen: dict[str, Path] = {}
    for picture in pictures:
        if picture.key in seen:
            names = first_few([str(seen[picture.key]), str(picture.file)])
            raise ShardError(f"{names} would both be sample {picture.key!r}; rename one")
        seen[picture.key] = picture.file


# The command `relabel-annotate pack`: folders of images to image shards.


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
