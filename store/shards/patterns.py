"""Shard patterns: braces and globs, as WebDataset's users write them, to a list of files and of URLs."""

import glob
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from store.errors import RelabelError, ShardError
from store.shards.index import shard_name
from store.shards.remote import RemoteShard, Shard, needing_obstore
from store.text import first_few

TWINS = "shard names must be unique, they name the label groups"
NAME_GLOB = re.compile(r"[A-Za-z0-9._*?!\[\]-]+")  # a shard's name and globs, none of what is in queries


def expand_shards(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns such as `train-{0000..1023}.tar` and `folder/*.tar` in the order given.

    Raises:
        ShardError: a pattern without a match, a shard that is missing, an impossible name, or one name twice.
    """
    for pattern in patterns:
        if "://" in pattern:
            raise ShardError(f"{shown(pattern)}: shards are read from local paths; copy or mount this one")
    return [shard for shard in expand_sources(patterns) if isinstance(shard, Path)]


def expand_sources(patterns: Sequence[str]) -> list[Shard]:
    """The same for shards that may also lie behind URLs, such as `s3://bucket/train-{0000..1023}.tar`.

    In a bucket, `*` and `?` in the last part of a URL stand for the names that are there.

    Raises:
        ShardError: as of `expand_shards`, or a URL that cannot be asked for.
    """
    shards, missing, unmatched = _look(patterns)
    if unmatched:
        raise ShardError(f"{unmatched[0]}: the pattern matches no file")
    if absent := [shard for shard in shards if shard in missing]:
        names = first_few([str(shard) for shard in absent])
        raise ShardError(f"{len(absent)} of {len(shards)} shards are missing or not regular files: {names}")
    if twins := [name for name, count in Counter(map(shard_name, shards)).items() if count > 1]:
        raise ShardError(f"{TWINS}; given twice: {first_few(twins)}")
    return shards


def find_sources(patterns: Sequence[str]) -> tuple[list[Shard], list[str]]:
    """The shards that are there now and can be annotated, and what is in the way of others, a line each.

    Raises:
        ShardError: a pattern that cannot be read, or a URL that cannot be asked for.
    """
    shards, missing, unmatched = _look(patterns)
    expected = [*unmatched, *(str(shard) for shard in missing if isinstance(shard, Path))]
    folders = sorted({_fixed_folder(name) for name in expected if "://" not in name})
    problems = [f"{folder}: there is no such folder" for folder in folders if not folder.is_dir()]
    by_name: dict[str, list[Shard]] = {}
    for shard in shards:
        try:
            if shard not in missing:
                by_name.setdefault(shard_name(shard), []).append(shard)
        except ShardError as error:
            problems.append(str(error))
    problems += [f"{TWINS}; left out: {first_few(list(map(str, twins)))}" for twins in by_name.values() if twins[1:]]
    return [shard for shard, *twins in by_name.values() if not twins], problems


def _look(patterns: Sequence[str]) -> tuple[list[Shard], set[Shard], list[str]]:
    """What patterns stand for: shards, those of them that are not there, and globs that match nothing."""
    shards: list[Shard] = []
    listed: set[Shard] = set()
    unmatched: list[str] = []
    for name in (name for pattern in patterns for name in expand_braces(pattern)):
        if not _is_glob(name):
            shards.append(_shard(name))
            continue
        found = _listed(name) if "://" in name else [Path(path) for path in sorted(glob.glob(name))]
        shards += found
        listed.update(found)
        if not found:
            unmatched.append(name)
    return shards, _missing([shard for shard in shards if isinstance(shard, Path) or shard not in listed]), unmatched


def _fixed_folder(name: str) -> Path:
    """The folder in which a local name or glob is looked for, as far as it is given.

    >>> [str(_fixed_folder(name)) for name in ("a/b/*.tar", "a/*/c.tar", "a.tar")]
    ['a/b', 'a', '.']
    """
    folder = Path(name).parent
    while glob.has_magic(str(folder)):
        folder = folder.parent
    return folder


def _is_glob(name: str) -> bool:
    """Whether a name stands for those that are there; a URL's `?` begins a query unless it can be nothing but a glob.

    >>> [_is_glob(name) for name in ("a/*/b.tar", "s3://b/t-?.tar", "s3://b/t.tar?a=b", "https://h/t.tar?a")]
    [True, True, False, False]
    """
    if "://" not in name:
        return glob.has_magic(name)
    last = name.rpartition("/")[2]
    if "?" in name and (name.lower().startswith("http") or not NAME_GLOB.fullmatch(last)):
        return False
    return glob.has_magic(last)


def _shard(name: str) -> Shard:
    if "://" not in name:
        return Path(name)
    shard = RemoteShard(name)
    if glob.has_magic(name.partition("://")[2].partition("/")[2]):
        raise ShardError(f"{name}: * and ? are for the last part of a bucket's URL; use braces")
    shard_name(shard)  # before a server is asked for what cannot be a shard
    return shard


def _listed(url: str) -> list[Shard]:
    """The shards in a bucket that match a URL's last part."""
    folder, _, pattern = url.rpartition("/")
    _shard(f"{folder}/any.tar")
    with needing_obstore():
        from store.storage.fetch import list_names
    with _shard_errors():
        names = list_names(folder)
    # As in a shell, hidden names are not meant.
    matching = (name for name in names if fnmatchcase(name, pattern) and not name.startswith("."))
    return [RemoteShard(f"{folder}/{name}") for name in matching]


def _missing(shards: Sequence[Shard]) -> set[Shard]:
    """Those that are not there."""
    missing: set[Shard] = {shard for shard in shards if isinstance(shard, Path) and not shard.is_file()}
    if remote := [shard for shard in shards if isinstance(shard, RemoteShard)]:
        with needing_obstore():
            from store.storage.fetch import find_absent
        with _shard_errors():
            absent = find_absent([shard.url for shard in remote])
        missing.update(shard for shard in remote if shard.url in absent)
    return missing


@contextmanager
def _shard_errors() -> Iterator[None]:
    """Turn a server's refusal, or its silence, into a ShardError."""
    try:
        yield
    except RelabelError:
        raise
    except OSError as error:
        raise ShardError(f"{error.filename}: cannot be read: {error.strerror}") from error


# Brace patterns, bounded: they are typed by people, and slips of the keyboard must not fill the memory.


INNERMOST = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?")
LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")
MAX_LENGTH = 4_000
MAX_SHARDS = 100_000  # more names than this in one pattern are a slip of the keyboard


def expand_braces(pattern: str) -> list[str]:
    """The texts for which `{a,b}` and `{000..123}` stand, in their order.

    Raises:
        ShardError: not a valid pattern, or one of too many texts.
    """
    if "{" not in pattern:
        return [pattern]
    # Before braceexpand is asked: it lists whole ranges, and pairs many braces very slowly.
    if len(pattern) > MAX_LENGTH or math.prod(map(_choices, INNERMOST.findall(pattern))) > MAX_SHARDS:
        raise ShardError(f"{shown(pattern)}: too long, or more than {MAX_SHARDS:,} shards; check the braces")
    from braceexpand import braceexpand  # comes with the extras that read images

    try:
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{shown(pattern)}: not a valid brace pattern; check the braces") from error


def _choices(text: str) -> int:
    """For how many texts a pair of braces without others inside stands, at most."""
    if numbers := RANGE.fullmatch(text):
        return abs(int(numbers[2]) - int(numbers[1])) + 1
    if LETTERS.fullmatch(text):
        return abs(ord(text[3]) - ord(text[0])) + 1
    return text.count(",") + 1


def shown(pattern: str) -> str:
    """The start of a pattern for a message, but not of a URL that may hold a password."""
    scheme, found, rest = pattern.partition("://")
    return f"{scheme[:20]}://..." if found and ("@" in rest or "?" in rest) else pattern[:80]
