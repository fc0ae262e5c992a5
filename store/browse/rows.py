"""The two orders in which a store is browsed: as it lies, and as its audit sorts it.

A row is named by a text in an address: `group:row` in the first, its rank in the second.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlencode

from store.browse.groups import Groups, Spot
from store.browse.sorting import Sort, Sorting
from store.errors import LabelNotFoundError


class Walk(Protocol):
    """An order of rows."""

    def place(self, at: str) -> Spot:
        """The row of a text; raises LabelNotFoundError."""

    def after(self, at: str, count: int) -> list[str]:
        """A row and those after it, that many in all or fewer."""

    def before(self, at: str, count: int) -> str | None:
        """The row that many before it, or the first; None at the start."""

    def href(self, at: str) -> str:
        """The address of a row's page."""

    def figure(self, at: str) -> str:
        """What the row is sorted by, in words; empty where it is not."""

    first: str | None  # None where there are no rows


class StoreWalk:
    """Groups by name, rows as in their shards."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.first = next((self.at(place) for place in groups.following(Spot(0, 0))), None)

    def at(self, place: Spot) -> str:
        """The text of a row."""
        return f"{self.groups.names[place.group]}:{place.row}"

    def place(self, at: str) -> Spot:
        """See `Walk`."""
        name, colon, row = at.rpartition(":")
        if not colon or not row.isdecimal() or len(row) > 9:
            raise LabelNotFoundError(f"no row {at!r}; rows are named as in train-0000:12")
        number = self.groups.number(name)
        if int(row) >= self.groups.rows(number) and name not in self.groups.problems:
            raise LabelNotFoundError(f"{name}: no row {row}")
        return Spot(number, int(row))

    def after(self, at: str, count: int) -> list[str]:
        """See `Walk`."""
        return [self.at(place) for place in itertools.islice(self.groups.following(self.place(at)), count)]

    def before(self, at: str, count: int) -> str | None:
        """See `Walk`."""
        places: Sequence[Spot] = list(itertools.islice(self.groups.preceding(self.place(at)), count))
        return self.at(places[-1]) if places else None

    def href(self, at: str) -> str:
        """See `Walk`."""
        return "/sample?" + urlencode({"at": at})

    def figure(self, at: str) -> str:
        """See `Walk`."""
        return ""


class SortedWalk:
    """By a figure of the audit, the largest first."""

    def __init__(self, sorting: Sorting, by: Sort) -> None:
        self.sorting, self.by = sorting, by
        self.first = "0" if len(sorting) else None

    def place(self, at: str) -> Spot:
        """See `Walk`."""
        return self.sorting.place(self.by, self._rank(at))

    def after(self, at: str, count: int) -> list[str]:
        """See `Walk`."""
        rank = self._rank(at)
        return [str(i) for i in range(rank, min(rank + count, len(self.sorting)))]

    def before(self, at: str, count: int) -> str | None:
        """See `Walk`."""
        rank = self._rank(at)
        return str(max(rank - count, 0)) if rank else None

    def href(self, at: str) -> str:
        """See `Walk`."""
        return "/sample?" + urlencode({"sort": self.by, "at": at})

    def figure(self, at: str) -> str:
        """See `Walk`."""
        value = self.sorting.figure(self.by, self._rank(at))
        if math.isnan(value):
            return ""
        return {
            "disagreement": f"disagreement {value:.3f}",
            "entropy": f"entropy {value:.2f} bits",
            "classes": f"classes: {value:.0f}",
        }[self.by]

    def _rank(self, at: str) -> int:
        if not at.isdecimal() or len(at) > 12 or int(at) >= len(self.sorting):
            raise LabelNotFoundError(f"no row {at!r} among the {len(self.sorting):,} sorted ones")
        return int(at)
