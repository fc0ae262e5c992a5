"""Orders in which a store's rows are browsed: by group and row, or sorted by a figure of its audit.

In the address of a page a text names the row: `group:row` in the first order, its position in the second.
Shape letters: N rows of the audit's index, P pairs of a row and a class that is present in it, M rows found.
"""

import itertools
import math
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from store.audit.index import AuditIndex, store_digest
from store.browse.rows import Groups, Spot
from store.browse.search import Query, rows_of_key
from store.errors import AuditIndexError, LabelNotFoundError, RelabelError

Sort = Literal["disagreement", "entropy", "classes"]
SORTS: tuple[Sort, ...] = get_args(Sort)
FRESH = 5.0  # seconds between checks that the store has not changed
KEPT_SEARCHES = 8  # one byte for every row of the store each


class Sorting:
    """N rows of a store sorted by the figures of its audit, largest first; NaN, for rows without a label, comes last.

    Args:
        index: of the store as it is.
        groups: of that store.

    Raises:
        LabelNotFoundError: a group of the index is not in the store.
    """

    def __init__(self, index: AuditIndex, groups: Groups) -> None:
        self._index, self._store, self._checked = index, groups.store, time.monotonic()
        self._names: list[str] = index.group.tolist()
        self._group = np.repeat([groups.number(name) for name in self._names], index.rows).astype(np.int32)
        self._present_rows = np.repeat(np.arange(len(index.row)), index.classes)  # (P,)
        self.threshold = index.threshold  # least probability of a class that counts as present
        self._figures: dict[Sort, NDArray[Any]] = {
            "disagreement": index.disagreement,
            "entropy": index.entropy,
            "classes": index.classes,
        }
        self._orders: dict[Sort, NDArray[np.int32]] = {}
        self._search = lru_cache(KEPT_SEARCHES)(self._matches)
        self.left_out: list[str] = index.left_out.tolist()  # names of groups that the audit could not read

    def refuse_stale(self) -> None:
        """Check every few seconds that the store is still the one that was audited.

        Raises:
            AuditIndexError: groups were added, removed or replaced.
        """
        if time.monotonic() - self._checked < FRESH:
            return
        if store_digest(self._store) != self._index.store_digest:
            raise AuditIndexError(
                f"{self._store} has changed since its audit; audit it again, then start `browse` again"
            )
        self._checked = time.monotonic()

    def __len__(self) -> int:
        return len(self._index.row)

    def spot(self, i: int) -> Spot:
        """The i-th row of the index."""
        return Spot(int(self._group[i]), int(self._index.row[i]))

    def figure(self, by: Sort, i: int) -> float:
        """A figure of the i-th row of the index."""
        return float(self._figures[by][i])

    def search(self, by: Sort, query: Query) -> tuple[NDArray[np.int32], list[str]]:
        """The rows that meet a query, and the groups whose keys could not be read.

        Returns:
            (M,) numbers of rows in the index, the largest figure first, and a problem for each group.
        """
        order = self._order(by)
        if not query:
            return order, []
        is_found, problems = self._search(query)
        if problems:  # which may be gone the next time
            self._search.cache_clear()
        return order[is_found[order]], problems

    def _matches(self, query: Query) -> tuple[NDArray[np.bool_], list[str]]:
        """(N,) whether each row of the index meets a query."""
        is_found = np.ones(len(self), np.bool_)
        if query.classes is not None:
            is_found = np.isin(self._index.label, query.classes)
            is_found[self._present_rows[np.isin(self._index.present, query.classes)]] = True
        problems = []
        for number, rows in self._slices() if query.key else ():
            if is_found[rows].any():
                try:
                    keyed = rows_of_key(self._store.unchecked_group(self._names[number]), query.key)
                except RelabelError as error:
                    problems.append(str(error))
                    keyed = set()
                is_found[rows] &= np.isin(self._index.row[rows], list(keyed))
        return is_found, problems

    def _slices(self) -> Iterator[tuple[int, slice]]:
        """The number of each group of the index, and its rows there."""
        ends = np.cumsum(self._index.rows).tolist()
        for number, start, end in zip(range(len(ends)), [0, *ends], ends, strict=False):
            yield number, slice(start, end)

    def _order(self, by: Sort) -> NDArray[np.int32]:
        if by not in self._orders:
            values = self._figures[by].astype(np.float32)
            self._orders[by] = np.argsort(-values, kind="stable").astype(np.int32)
        return self._orders[by]


class Ordering(Protocol):
    """An order of rows."""

    def spot(self, at: str) -> Spot:
        """The row that a text names; raises LabelNotFoundError."""

    def after(self, at: str, count: int) -> list[str]:
        """A row and those after it, at most `count` in all."""

    def before(self, at: str, count: int) -> str | None:
        """The row `count` before it, or the first; None at the start."""

    def href(self, at: str) -> str:
        """The address of a row's page."""

    def figure(self, at: str) -> str:
        """The figure that the row is sorted by, as text; empty in the store's own order."""

    first: str | None  # None where there are no rows

    @property
    def problems(self) -> list[str]:
        """A problem for each group that could not be read."""


class StoreOrdering:
    """Groups by name, rows as in their shards."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.first = next((self.at(spot) for spot in groups.following(Spot(0, 0))), None)

    @property
    def problems(self) -> list[str]:
        """A problem for each group that could not be read."""
        return list(self.groups.problems.values())

    def at(self, spot: Spot) -> str:
        """The text that names a row."""
        return f"{self.groups.names[spot.group]}:{spot.row}"

    def spot(self, at: str) -> Spot:
        """The row named `group:row`; raises LabelNotFoundError."""
        name, colon, row = at.rpartition(":")
        if not colon or not row.isdecimal() or len(row) > 9:
            raise LabelNotFoundError(f"no row {at!r}; expected a group and a row, such as train-0000:12")
        number = self.groups.number(name)
        if int(row) >= self.groups.rows(number) and name not in self.groups.problems:
            raise LabelNotFoundError(f"{name}: no row {row}")
        return Spot(number, int(row))

    def after(self, at: str, count: int) -> list[str]:
        """A row and those after it, at most `count` in all."""
        return [self.at(spot) for spot in itertools.islice(self.groups.following(self.spot(at)), count)]

    def before(self, at: str, count: int) -> str | None:
        """The row `count` before it, or the first; None at the start."""
        spots = list(itertools.islice(self.groups.preceding(self.spot(at)), count))
        return self.at(spots[-1]) if spots else None

    def href(self, at: str) -> str:
        """The address of a row's page."""
        return "/sample?" + urlencode({"at": at})

    def figure(self, at: str) -> str:
        """Empty: this order has no figure."""
        return ""


class SortedOrdering:
    """By a figure of the audit, the largest first: all rows, or those that a search finds."""

    def __init__(self, sorting: Sorting, by: Sort, query: Query, asked: dict[str, str]) -> None:
        self.sorting, self.by, self.asked = sorting, by, asked
        self.rows, self._problems = sorting.search(by, query)
        self.first = "0" if len(self.rows) else None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def problems(self) -> list[str]:
        """A problem for each group whose keys could not be searched."""
        return self._problems

    def spot(self, at: str) -> Spot:
        """The row at a position; raises LabelNotFoundError."""
        return self.sorting.spot(int(self.rows[self._position(at)]))

    def after(self, at: str, count: int) -> list[str]:
        """Positions from one on, at most `count`."""
        position = self._position(at)
        return [str(i) for i in range(position, min(position + count, len(self)))]

    def before(self, at: str, count: int) -> str | None:
        """The position `count` before one, or 0; None at the start."""
        position = self._position(at)
        return str(max(position - count, 0)) if position else None

    def href(self, at: str) -> str:
        """The address of a row's page in this order."""
        return "/sample?" + urlencode(self.asked | {"at": at})

    def figure(self, at: str) -> str:
        """The figure with its name; empty for NaN."""
        value = self.sorting.figure(self.by, int(self.rows[self._position(at)]))
        if math.isnan(value):
            return ""
        return {
            "disagreement": f"disagreement {value:.3f}",
            "entropy": f"entropy {value:.2f} bits",
            "classes": f"classes: {value:.0f}",
        }[self.by]

    def _position(self, at: str) -> int:
        if not at.isdecimal() or len(at) > 12 or int(at) >= len(self):
            raise LabelNotFoundError(f"no row {at!r} among the {len(self):,} sorted ones")
        return int(at)
