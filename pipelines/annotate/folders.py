"""Find the images of class folders and number the classes, as torchvision's ImageFolder does."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipelines.options import read_class_names
from store.errors import SettingsError, ShardError
from store.files import is_hidden, walk
from store.shards.index import IMAGE_EXTENSIONS
from store.text import first_few

CLASSES_FILE = "classes.txt"  # beside the shards: a class name a line, in the order of the class ids


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFile:
    """One image file, with its key and label in the shard."""

    file: Path
    key: str  # class folder and name, without dots, which would end the key
    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """The contents of a folder of class folders."""

    classes: tuple[str, ...]  # sorted as text, as ImageFolder numbers them
    images: tuple[ImageFile, ...]
    left_out: Mapping[str, Sequence[Path]]  # by the reason


def scan_folder(root: Path) -> Folder:
    """Find the images of each class folder and its subfolders; links to folders are followed, but not in circles.

    Raises:
        ShardError: no class folders, a class without images, a name that cannot be a class's or a key, or two images
            that would have one key.
        OSError: a folder that cannot be listed.
    """
    files: dict[str, list[Path]] = {}
    left_out: dict[str, list[Path]] = defaultdict(list)
    for folder, entries in walk(root):
        inside = folder.relative_to(root).parts
        of_class = files.setdefault(inside[0], []) if inside else None
        for entry in entries:
            reason = _why_left_out(entry, in_class=of_class is not None)
            (left_out[reason] if reason or of_class is None else of_class).append(entry)
    if not files:
        raise ShardError(f"{root}: holds no folders; expected one for each class, with its images")
    classes = tuple(sorted(files))
    for name in classes:
        _check_class(root / name, files[name])
    images = [
        ImageFile(file=file, key=_key(root, file), label=label)
        for label, name in enumerate(classes)
        for file in sorted(files[name])
    ]
    _refuse_equal_keys(images)
    return Folder(classes=classes, images=tuple(images), left_out=left_out)


def remarks_on_numbers(classes: Sequence[str], out: Path) -> Iterator[str]:
    """What a user may not expect of the class ids, one line each.

    Args:
        classes: the names, in the order of the ids.
        out: the folder for the shards; the classes of shards beside it are compared with these.
    """
    if all(re.fullmatch("[0-9]+", name) for name in classes):
        if other := next((f"{name!r} is class {i}" for i, name in enumerate(classes) if int(name) != i), None):
            yield f"the folders' numbers are not the class ids: {other}, since names are sorted as text"
    elif early := next((pair for pair in pairwise(classes) if _by_number(pair[0]) > _by_number(pair[1])), None):
        yield f"class {classes.index(early[0])} is {early[0]!r}, before {early[1]!r}, since names are sorted as text"
    for file in sorted(out.parent.glob(f"*/{CLASSES_FILE}")):
        yield from _differences(classes, file)


def _by_number(name: str) -> list[str | int]:
    """A sort key by which `a2` comes before `a10`."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))]


def _differences(classes: Sequence[str], file: Path) -> Iterator[str]:
    """A line if a class has another id in shards that were packed before."""
    try:
        theirs = {name: i for i, name in enumerate(read_class_names(file))}
    except SettingsError:  # not a file of ours
        return
    for i, name in enumerate(classes):
        if theirs.get(name, i) != i:
            lacking = [other for other in theirs if other not in classes]
            why = f"; without a folder here: {first_few(lacking)}" if lacking else ""
            yield (
                f"{name!r} is class {i} here and {theirs[name]} in {file}{why}. "
                "Training and validation images need the same class folders"
            )
            return


def _why_left_out(entry: Path, *, in_class: bool) -> str:
    """Why an entry of a folder is no image to pack; empty if it is one."""
    if is_hidden(entry.name):
        return "hidden"
    if in_class and entry.suffix[1:].lower() in IMAGE_EXTENSIONS:
        return ""
    if entry.is_dir():
        return "a link to a folder that holds it"
    return "without an image extension" if in_class else "not in a class folder"


def _check_class(folder: Path, images: Sequence[Path]) -> None:
    if not images:
        raise ShardError(f"{folder}: holds no {', '.join(sorted(IMAGE_EXTENSIONS))}; a class needs images")
    if re.search(r"[\r\n]", folder.name):
        raise ShardError(f"{folder}: its name holds a line break, and {CLASSES_FILE} has one name a line; rename it")


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
