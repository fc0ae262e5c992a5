"""The verdict of some evidence on the order of a published map's cells, and which shards it is taken from.

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

MIN_VOTES = 4
MIN_SURE = 0.9
# Measured on 128 photographs at 224 to 480 pixels: 0.54 to 0.77 with their own maps, 0.02 to 0.2 with those of other
# images, of which one draw in five would be sure by chance, however many vote.
MIN_RATIO = 1 / 3
MAX_SHARDS = 8  # read for evidence
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The independent votes on the axes, each with its weight; those without a preference count for neither order."""

    unit: str  # that votes: boxes, images
    votes: tuple[float, ...]  # above 0 for yx, below 0 for xy

    @property
    def total(self) -> int:
        """Number of votes."""
        return len(self.votes)

    @property
    def ratio(self) -> float:
        """The votes' mean over their root mean square, -1 to 1; 0 without votes."""
        largest = max(map(abs, self.votes), default=0.0)
        scaled = [vote / largest for vote in self.votes]  # squares neither vanish nor overflow
        return sum(scaled) / math.sqrt(self.total * sum(vote * vote for vote in scaled)) if scaled else 0.0

    @property
    def sure(self) -> float:
        """The probability that the sum of the votes has the right sign, if it is about normal: 0.5 to 1."""
        return math.erfc(-abs(self.ratio) * math.sqrt(self.total / 2)) / 2

    @property
    def axes(self) -> Axes | None:
        """The order that was found; None while the votes are too few, too even, or too weak."""
        if self.total < MIN_VOTES or self.sure < MIN_SURE or abs(self.ratio) < MIN_RATIO:
            return None
        return "yx" if self.ratio > 0 else "xy"

    def __str__(self) -> str:
        sure = "more than 99.9 % sure" if self.sure > 0.999 else f"{100 * self.sure:.3g} % sure"
        for_yx = sum(vote > 0 for vote in self.votes)
        for_xy = self.total - for_yx
        if self.axes is not None:
            agree = for_yx if self.axes == "yx" else for_xy
            return f"axes: {self.axes} ({sure}: {agree} of {self.total} {self.unit} agree)"
        found = f"at least {MIN_VOTES} are needed" if self.total < MIN_VOTES else sure
        return f"axes undecided ({for_yx} of {self.total} {self.unit} for yx, {for_xy} for xy; {found})"


def count_votes(preferences: Iterable[float], unit: str) -> Verdict:
    """A verdict from preferences: above 0 for yx, below 0 for xy, 0 or not finite for neither."""
    return Verdict(unit=unit, votes=tuple(value for value in preferences if value and math.isfinite(value)))


def mirrored(box: Box) -> Box:
    """The box with x and y exchanged: a map read as xy at a box is the map read as yx at the mirrored box.

    >>> mirrored((0.5, 0.0, 0.75, 0.25))
    (0.0, 0.5, 0.25, 0.75)
    """
    x1, y1, x2, y2 = box
    return y1, x1, y2, x2


def spread(items: Sequence[T], count: int) -> Iterator[T]:
    """At most `count` items at even distances, so that a dataset sorted by class is covered.

    >>> list(spread("abcdefgh", 3))
    ['a', 'c', 'f']
    """
    count = min(count, len(items))
    return (items[i * len(items) // count] for i in range(count))


def spread_shards(shards: Sequence[Path], votes: int) -> Iterator[tuple[Path, int]]:
    """At most `MAX_SHARDS` shards, and how many votes to take from each."""
    chosen = list(spread(shards, MAX_SHARDS))
    return ((path, -(-votes // len(chosen))) for path in chosen)
