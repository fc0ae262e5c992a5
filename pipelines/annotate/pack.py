"""Image shards out of folders of images, one folder a class, as torchvision's ImageFolder takes them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from webdataset import TarWriter

from store.errors import ShardError
from store.shards import IMAGE_EXTENSIONS, LABEL_EXTENSION
from store.text import first_few


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
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as stream, TarWriter(stream, encoder=False, mtime=0) as writer:
            for picture in pictures:
                extension = picture.file.suffix[1:].lower()
                writer.write({
                    "__key__": picture.key,
                    extension: _read(picture.file),
                    LABEL_EXTENSION: str(picture.label).encode(),
                })  # fmt: skip
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
