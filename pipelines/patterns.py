"""Shard patterns: braces and globs, as WebDataset's users write them, to a list of files."""

import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import braceexpand

from store.errors import ShardError
from store.shards import shard_name
from store.text import first_few


def expand_shards(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns such as `train-{0000..1023}.tar` and `folder/*.tar` in the order given.

    Raises:
        ShardError: a pattern without a match, a shard that is missing, an impossible name, or one name twice.
    """
    paths = [path for pattern in patterns for path in _expand(pattern)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise ShardError(f"{len(missing)} of {len(paths)} shards are missing: {first_few(missing)}")
    counts = Counter(shard_name(path) for path in paths)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ShardError(f"shard names must be unique, they name the label groups; given twice: {first_few(twice)}")
    return paths


def _expand(pattern: str) -> Iterator[Path]:
    if "://" in pattern:
        raise ShardError(f"{pattern}: shards are read from local paths; copy or mount this one")
    try:
        names = list(braceexpand(pattern))
    except ValueError as error:
        raise ShardError(f"{pattern}: not a valid brace pattern: {error}") from error
    for name in names:
        if not glob.has_magic(name):
            yield Path(name)
            continue
        found = sorted(glob.glob(name))
        if not found:
            raise ShardError(f"{name}: the pattern matches no file")
        yield from map(Path, found)
