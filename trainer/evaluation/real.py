"""ReaL labels: all classes that annotators saw in each of ImageNet's 50,000 validation images (Beyer et al., 2020).

Images are found by their keys, since shards may hold them in any order, or only some of them.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from store.errors import SettingsError, ShardError
from store.shards.index import ShardIndex
from store.text import brief

RealLabels = tuple[frozenset[int], ...]
"""The classes of each image in the order of their numbers; empty if the annotators agreed on none."""

IMAGES, CLASSES = 50_000, 1000
MAX_BYTES = 16 * 1024**2  # the published file has less than one MiB
KEY = re.compile(r"ILSVRC2012_val_([0-9]{8})\Z")


def read_real(file: Path) -> RealLabels:
    """Read the published real.json.

    Raises:
        SettingsError: no such file, or not 50,000 lists of class ids.
    """
    content = _read(file)
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: not JSON; expected the published real.json") from error
    if not isinstance(document, list) or len(document) != IMAGES:
        found = f"a list of {len(document):,}" if isinstance(document, list) else type(document).__name__
        raise SettingsError(f"{file}: expected a list of {IMAGES:,} lists of class ids, found {found}")
    for number, labels in enumerate(document, 1):
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < CLASSES for label in labels):
            raise SettingsError(
                f"{file}: image {number:,} of {IMAGES:,}: expected a list of class ids from 0 to {CLASSES - 1}, "
                f"found {brief(labels)}"
            )
    return tuple(map(frozenset, document))


def val_number(key: str) -> int:
    """The number of an ImageNet validation image, 1 to 50,000.

    Raises:
        ShardError: the key does not end in one.

    >>> val_number("val/ILSVRC2012_val_00000123")
    123
    """
    found = KEY.search(key)
    number = int(found[1]) if found else 0
    if not 1 <= number <= IMAGES:
        raise ShardError(
            f"ReaL labels are found by key; expected keys that end in ILSVRC2012_val_00000001 to "
            f"ILSVRC2012_val_000{IMAGES}, found {brief(key)}"
        )
    return number


def check_real(val: Sequence[ShardIndex], num_classes: int) -> None:
    """Check that these samples and a network of so many classes can be scored by ReaL labels.

    Raises:
        ShardError: a key that is not one of ImageNet's validation images.
        SettingsError: a network of another number of classes.
    """
    if num_classes != CLASSES:
        raise SettingsError(f"ReaL labels are of ImageNet's {CLASSES} classes; the student knows {num_classes:,}")
    for index in val:
        for sample in index.samples:
            try:
                val_number(sample.key)
            except ShardError as error:
                raise ShardError(f"{index.path}: {error}") from error


def _read(file: Path) -> bytes:
    try:
        is_file, size = file.is_file(), file.stat().st_size
        if is_file and size <= MAX_BYTES:
            return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: ReaL labels cannot be read: {error.strerror or error}") from error
    found = f"{size:,} bytes" if is_file else "not a regular file"
    raise SettingsError(f"{file}: {found}; expected the published real.json of less than a megabyte")
