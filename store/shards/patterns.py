"""Expand shard patterns (braces and globs, as in WebDataset) to a list of files and URLs."""

import glob
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from store.errors import ShardError
from store.files import walk
from store.shards.errors import shard_errors
from store.shards.index import shard_name
from store.shards.remote import RemoteShard, Shard, needing_obstore
from store.text import first_few

UNIQUE = "shard names must be unique, they name the label groups"
NAME_GLOB = re.compile(r"[A-Za-z0-9._*?!\[\]-]+")  # a shard's name with globs, without the characters of a query


def expand_shards(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns such as `train-{0000..1023}.tar`, `folder/*.tar` and `folder/**/*.tar` in the order given.

    `**` stands for any number of folders, as in a shell; links to folders are followed. A path that exists as it is
    written is that file or folder, also with braces and brackets in its name.

    Raises:
        ShardError: a pattern matches nothing, a shard is missing, or a name is impossible or given twice.
    """
    for pattern in patterns:
        if "://" in pattern:
            raise ShardError(f"{shown(pattern)}: shards are read from local paths; copy or mount this one")
    return [shard for shard in expand_sources(patterns) if isinstance(shard, Path)]


def expand_sources(patterns: Sequence[str]) -> list[Shard]:
    """Expand patterns of local and remote shards, such as `s3://bucket/train-{0000..1023}.tar`.

    In the last part of a bucket's URL, `*` and `?` match the names in the bucket.

    Raises:
        ShardError: as `expand_shards`, or a URL cannot be requested.
    """
    shards, missing, unmatched = _look(patterns)
    if unmatched:
        raise ShardError(f"{unmatched[0]}: the pattern matches no file")
    if not_found := [shard for shard in shards if shard in missing]:
        names = first_few([str(shard) for shard in not_found])
        raise ShardError(f"{len(not_found)} of {len(shards)} shards are missing or not regular files: {names}")
    if repeated := [name for name, count in Counter(map(shard_name, shards)).items() if count > 1]:
        raise ShardError(f"{UNIQUE}; given twice: {first_few(repeated)}")
    return shards


def find_sources(patterns: Sequence[str]) -> tuple[list[Shard], list[str]]:
    """The shards that exist now and can be annotated, and one line for each problem with the others.

    Raises:
        ShardError: a pattern cannot be parsed, or a URL cannot be requested.
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
    problems += [
        f"{UNIQUE}; left out: {first_few(list(map(str, same_name)))}" for same_name in by_name.values() if same_name[1:]
    ]
    return [shard for shard, *others in by_name.values() if not others], problems


def _look(patterns: Sequence[str]) -> tuple[list[Shard], set[Shard], list[str]]:
    """The shards that patterns name, those of them that do not exist, and the globs without a match."""
    shards: list[Shard] = []
    listed: set[Shard] = set()
    unmatched: list[str] = []
    for name in (name for pattern in patterns for name in _names(pattern)):
        if not _is_glob(name):
            shards.append(_shard(name))
            continue
        found = _listed(name) if "://" in name else _matching(name)
        shards += found
        listed.update(found)
        if not found:
            unmatched.append(name)
    return shards, _missing([shard for shard in shards if isinstance(shard, Path) or shard not in listed]), unmatched


def _names(pattern: str) -> list[str]:
    return [pattern] if "://" not in pattern and os.path.exists(pattern) else expand_braces(pattern)


def _matching(name: str) -> list[Shard]:
    """The local files that match a glob, sorted."""
    if any("**" in part != "**" for part in _split_glob(name)[1].parts):
        raise ShardError(
            f"{shown(name)}: ** stands for whole folders, as in data/**/*.tar; write * for a part of a name"
        )
    with shard_errors():
        return [Path(path) for path in sorted(set(_glob(name)))]


def _glob(name: str) -> Iterator[str]:
    """The paths that match a glob; the same path may come twice where `**` does."""
    fixed, rest = _split_glob(name)
    if "**" not in rest.parts:
        yield from glob.glob(os.path.join(glob.escape(str(fixed)), *rest.parts))
        return
    at = rest.parts.index("**")
    for start in glob.glob(os.path.join(glob.escape(str(fixed)), *rest.parts[:at])):
        for folder, _ in walk(Path(start)) if os.path.isdir(start) else ():
            yield from _glob(os.path.join(folder, *(rest.parts[at + 1 :] or "*")))


def _split_glob(name: str) -> tuple[Path, Path]:
    """A local name or glob as the longest part of its path that exists as it is written, and the rest."""
    path = Path(name)
    fixed = next((part for part in (path, *path.parents) if os.path.exists(part)), Path())
    return fixed, path.relative_to(fixed)


def _fixed_folder(name: str) -> Path:
    """The folder in which a local name or glob is searched, up to its first glob.

    >>> [str(_fixed_folder(name)) for name in ("a/b/*.tar", "a/*/c.tar", "a.tar")]
    ['a/b', 'a', '.']
    """
    fixed, rest = _split_glob(name)
    folders = itertools.takewhile(lambda part: not glob.has_magic(part), rest.parent.parts)
    return fixed.joinpath(*folders)


def _is_glob(name: str) -> bool:
    """Whether a name is a glob: no local file has it; in a URL, `?` begins a query unless it can only be a glob.

    >>> [_is_glob(name) for name in ("a/*/b.tar", "s3://b/t-?.tar", "s3://b/t.tar?a=b", "https://h/t.tar?a")]
    [True, True, False, False]
    """
    if "://" not in name:
        return glob.has_magic(name) and not os.path.exists(name)
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
    shard_name(shard)  # before a request is made for an impossible name
    return shard


def _listed(url: str) -> list[Shard]:
    """The shards in a bucket that match the last part of a URL."""
    folder, _, pattern = url.rpartition("/")
    if "**" in pattern:
        raise ShardError(f"{shown(url)}: ** is for folders on a disk; write * for a part of a name in a bucket")
    _shard(f"{folder}/any.tar")
    with needing_obstore():
        from store.storage.fetch import list_names
    with shard_errors():
        names = list_names(folder)
    # As in a shell, a glob does not match hidden names.
    matching = (name for name in names if fnmatchcase(name, pattern) and not name.startswith("."))
    return [RemoteShard(f"{folder}/{name}") for name in matching]


def _missing(shards: Sequence[Shard]) -> set[Shard]:
    """The shards that do not exist."""
    missing: set[Shard] = {shard for shard in shards if isinstance(shard, Path) and not shard.is_file()}
    if remote := [shard for shard in shards if isinstance(shard, RemoteShard)]:
        with needing_obstore():
            from store.storage.fetch import find_absent
        with shard_errors():
            absent = find_absent([shard.url for shard in remote])
        missing.update(shard for shard in remote if shard.url in absent)
    return missing


# Braces. Their number is bounded, because a typing error must not fill the memory.

INNERMOST = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?")
LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")
MAX_LENGTH = 4_000
MAX_SHARDS = 100_000  # in one pattern; more are taken for a typing error


def expand_braces(pattern: str) -> list[str]:
    """Expand `{a,b}` and `{000..123}`, in order.

    Raises:
        ShardError: the pattern is invalid, or expands to too many names.
    """
    if "{" not in pattern:
        return [pattern]
    # braceexpand itself is not lazy: it lists each range completely, and is slow for many pairs of braces.
    if len(pattern) > MAX_LENGTH or math.prod(map(_choices, INNERMOST.findall(pattern))) > MAX_SHARDS:
        raise ShardError(f"{shown(pattern)}: too long, or more than {MAX_SHARDS:,} shards; check the braces")
    from braceexpand import braceexpand  # in the extras that read images

    try:
        return list(braceexpand(pattern))
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{shown(pattern)}: not a valid brace pattern; check the braces") from error


def _choices(text: str) -> int:
    """An upper bound for the number of names from one pair of braces that contains no others."""
    if numbers := RANGE.fullmatch(text):
        return abs(int(numbers[2]) - int(numbers[1])) + 1
    if LETTERS.fullmatch(text):
        return abs(ord(text[3]) - ord(text[0])) + 1
    return text.count(",") + 1


def shown(pattern: str) -> str:
    """The start of a pattern, for a message; of a URL that may contain a password, only the scheme."""
    scheme, found, rest = pattern.partition("://")
    return f"{scheme[:20]}://..." if found and ("@" in rest or "?" in rest) else pattern[:80]
