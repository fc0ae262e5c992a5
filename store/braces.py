"""Brace patterns, bounded: they are typed by people, and slips of the keyboard must not fill the memory."""

import math
import re

from store.errors import ShardError

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
