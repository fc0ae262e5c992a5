"""A sign test on the order of a published map's cells, and which shards and boxes the votes are taken from.

`yx` is the order of this project's stores, (row, column). The official trainer reads `xy` correctly, because it takes
its crop's (top, left, height, width) for x1, y1, x2, y2.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from annotator.published.files import Axes
from store.maps.types import Box

MAX_P = 1e-3  # largest p at which an order is decided
MAX_SHARDS = 8  # read for evidence
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The independent votes on the axes; those without a preference count for neither order."""

    unit: str  # that votes: boxes, images
    for_yx: int
    for_xy: int

    @property
    def total(self) -> int:
        """Number of votes."""
        return self.for_yx + self.for_xy

    @property
    def p(self) -> float:
        """Probability of so uneven a vote if the axes made no difference (two-sided sign test)."""
        winners = max(self.for_yx, self.for_xy)
        ways = sum(math.comb(self.total, k) for k in range(winners, self.total + 1))
        return min(1.0, float(2 * ways / 2**self.total))

    @property
    def axes(self) -> Axes | None:
        """The order that was found; None while chance could explain the vote."""
        if self.p > MAX_P:
            return None
        return "yx" if self.for_yx > self.for_xy else "xy"

    def __str__(self) -> str:
        p = "p < 1e-6" if self.p < 1e-6 else f"p = {self.p:.2g}"
        if self.axes is None:
            return f"axes undecided ({self.for_yx} of {self.total} {self.unit} for yx, {self.for_xy} for xy, {p})"
        return f"axes: {self.axes} ({max(self.for_yx, self.for_xy)} of {self.total} {self.unit} agree, {p})"


def count_votes(preferences: Iterable[float], unit: str) -> Verdict:
    """A verdict from preferences: above 0 a vote for yx, below 0 for xy, 0 or NaN for neither."""
    values = list(preferences)
    return Verdict(unit=unit, for_yx=sum(v > 0 for v in values), for_xy=sum(v < 0 for v in values))


def mirrored(box: Box) -> Box:
    """The box with x and y exchanged: a map read as xy at a box is the map read as yx at the mirrored box.

    >>> mirrored((0.5, 0.0, 0.75, 0.25))
    (0.0, 0.5, 0.25, 0.75)
    """
    x1, y1, x2, y2 = box
    return y1, x1, y2, x2


def spread(items: Sequence[T], count: int) -> Iterator[T]:
    """At most `count` items at even distances, so that a data set sorted by class is covered.

    >>> list(spread("abcdefgh", 3))
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return (items[i * len(items) // count] for i in range(count))


def spread_shards(shards: Sequence[Path], votes: int) -> Iterator[tuple[Path, int]]:
    """At most `MAX_SHARDS` shards, and how many votes to take from each."""
    chosen = list(spread(shards, MAX_SHARDS))
    return ((path, -(-votes // len(chosen))) for path in chosen)
