"""Sample keys as names of published maps, `<class folder>/<name>.pt`. Every key is hostile input."""

import re

from store.errors import LabelMapError

SUFFIX = ".pt"
MAX_PART_BYTES = 255  # what file systems take for one name
MAX_KEY = 1000  # characters, so that messages stay readable
WNID_NAME = re.compile(r"(n[0-9]{8})_.+")


def split_key(key: str) -> tuple[str, str]:
    """The last folder of a key ('' where it has none) and its name, both safe as file names.

    >>> split_key("train/n01440764/n01440764_10026")
    ('n01440764', 'n01440764_10026')

    Raises:
        LabelMapError: the key could lead out of a folder, steer a terminal, or is too long for a file name.
    """
    parts = key.split("/")
    if not key.isprintable():
        raise LabelMapError(f"{key[:60]!r}: a key with control characters cannot name a file")
    if not all(parts) or not {".", ".."}.isdisjoint(parts) or "\\" in key:
        raise LabelMapError(f"{key[:60]!r}: a key that could lead out of its folder cannot name a file")
    if max(len(part.encode()) for part in parts) > MAX_PART_BYTES - len(SUFFIX) or len(key) > MAX_KEY:
        raise LabelMapError(f"{key[:60] + '...'!r}: a key of {len(key)} characters is too long for a file name")
    return (parts[-2] if len(parts) > 1 else ""), parts[-1]


def wnid_of(name: str) -> str | None:
    """The WordNet id that ImageNet's own file names begin with.

    >>> wnid_of("n01440764_10026")
    'n01440764'
    """
    match = WNID_NAME.fullmatch(name)
    return match[1] if match else None
