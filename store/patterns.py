"""Shard patterns: braces and globs, as WebDataset's users write them, to a list of files."""

import glob
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from store.errors import ShardError
from store.shards import shard_name
from store.text import first_few

INNERMOST = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?")
LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")
MAX_LENGTH = 4_000
MAX_SHARDS = 100_000  # more names than this in one pattern are a slip of the keyboard


def expand_shards(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns such as `train-{0000..1023}.tar` and `folder/*.tar` in the order given.

    Raises:
        ShardError: a pattern without a match, a shard that is missing, an impossible name, or one name twice.
    """
    paths = [path for pattern in patterns for path in _expand(pattern)]
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise ShardError(
            f"{len(missing)} of {len(paths)} shards are missing or not regular files: {first_few(missing)}"
        )
    counts = Counter(shard_name(path) for path in paths)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ShardError(f"shard names must be unique, they name the label groups; given twice: {first_few(twice)}")
    return paths


def _expand(pattern: str) -> Iterator[Path]:
    if "://" in pattern:
        raise ShardError(f"{pattern}: shards are read from local paths; copy or mount this one")
    for name in _expand_braces(pattern):
        if not glob.has_magic(name):
            yield Path(name)
            continue
        found = sorted(glob.glob(name))
        if not found:
            raise ShardError(f"{name}: the pattern matches no file")
        yield from map(Path, found)


def _expand_braces(pattern: str) -> list[str]:
    if "{" not in pattern:
        return [pattern]
    # Before braceexpand is asked: it lists whole ranges, and pairs many braces very slowly.
    if len(pattern) > MAX_LENGTH or math.prod(map(_choices, INNERMOST.findall(pattern))) > MAX_SHARDS:
        raise ShardError(f"{pattern[:80]}: too long, or more than {MAX_SHARDS:,} shards; check the braces")
    from braceexpand import braceexpand  # comes with the extras that read images

    try:
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{pattern[:80]}: not a valid brace pattern: {error}") from error


def _choices(text: str) -> int:
    """For how many texts a pair of braces without others inside stands, at most."""
    if numbers := RANGE.fullmatch(text):
        return abs(int(numbers[2]) - int(numbers[1])) + 1
    if LETTERS.fullmatch(text):
        return abs(ord(text[3]) - ord(text[0])) + 1
    return text.count(",") + 1
