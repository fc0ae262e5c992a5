"""In which order a published map's cells lie: decided by a sign test, or left undecided aloud.

`yx` is the order of this project's stores, (row, column). `xy` is what the official trainer reads right, because it
takes its crop's (top, left, height, width) for x1, y1, x2, y2.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

Axes = Literal["yx", "xy"]
Box = tuple[float, float, float, float]
DECIDED = 1e-3  # largest p at which one order is taken for the right one
MAX_SHARDS = 8  # that are read for evidence
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a number of independent witnesses say about the axes."""

    unit: str  # of the witnesses: boxes, images
    for_yx: int
    for_xy: int  # those to whom both readings are the same are in neither

    @property
    def total(self) -> int:
        """Witnesses that voted."""
        return self.for_yx + self.for_xy

    @property
    def p(self) -> float:
        """How likely so lopsided a vote would be if the axes made no difference (two-sided sign test)."""
        winners = max(self.for_yx, self.for_xy)
        tail = sum(math.comb(self.total, k) for k in range(winners, self.total + 1))
        return min(1.0, float(2 * tail / 2**self.total))

    @property
    def axes(self) -> Axes | None:
        """The order that was found; None while chance could explain the vote."""
        if self.p > DECIDED:
            return None
        return "yx" if self.for_yx > self.for_xy else "xy"

    def __str__(self) -> str:
        sure = "p < 1e-6" if self.p < 1e-6 else f"p = {self.p:.2g}"
        if self.axes is None:
            return f"axes undecided ({self.for_yx} of {self.total} {self.unit} for yx, {self.for_xy} for xy, {sure})"
        return f"axes: {self.axes} ({max(self.for_yx, self.for_xy)} of {self.total} {self.unit} agree, {sure})"


def count_votes(preferences: Iterable[float], unit: str) -> Verdict:
    """A verdict from each witness's preference: above 0 for yx, below for xy, 0 or NaN for neither."""
    values = list(preferences)
    return Verdict(unit=unit, for_yx=sum(v > 0 for v in values), for_xy=sum(v < 0 for v in values))


def mirrored(box: Box) -> Box:
    """The box with its axes exchanged: where a reading of the map in the other order would look for it.

    >>> mirrored((0.5, 0.0, 0.75, 0.25))
    (0.0, 0.5, 0.25, 0.75)
    """
    x1, y1, x2, y2 = box
    return y1, x1, y2, x2


def spread(items: Sequence[T], count: int) -> Iterator[T]:
    """At most `count` items, evenly apart, so that a data set sorted by class is seen whole.

    >>> list(spread("abcdefgh", 3))
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return (items[i * len(items) // count] for i in range(count))


def spread_shards(shards: Sequence[Path], witnesses: int) -> Iterator[tuple[Path, int]]:
    """A few shards, and how many witnesses to take from each."""
    chosen = list(spread(shards, MAX_SHARDS))
    return ((path, -(-witnesses // len(chosen))) for path in chosen)
