"""Orders in which a store's rows are browsed: by group and row, or sorted by a figure of its audit.

In the address of a page a text names the row: `group:row` in the first order, its position in the second.
"""

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from store.audit.index import AuditIndex, store_digest
from store.errors import AuditIndexError, LabelNotFoundError, RelabelError
from store.group import LabelGroup
from store.reader import LabelStore

Sort = Literal["disagreement", "entropy", "classes"]
SORTS: tuple[Sort, ...] = get_args(Sort)
OPEN_GROUPS = 16  # each with its keys, offsets and digests: some 200 kB
FRESH = 5.0  # seconds between checks that the store has not changed


@dataclass(frozen=True, slots=True)
class Spot:
    """A row of a store, by its group's number."""

    group: int
    row: int


class Groups:
    """The groups of a store by number, a few of them open at a time, for the threads of a server."""

    def __init__(self, store: LabelStore) -> None:
        self.store = store
        self.names = store.names()
        self._numbers = {name: i for i, name in enumerate(self.names)}
        self._open: OrderedDict[str, LabelGroup] = OrderedDict()
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}  # by group, those found so far

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        """A group's number by its name.

        Raises:
            LabelNotFoundError: no such group when `browse` began.
        """
        if name not in self._numbers:
            raise LabelNotFoundError(f"{self.store}: no group {name!r}; it may have been added since `browse` began")
        return self._numbers[name]

    def open(self, number: int) -> LabelGroup:
        """A group, opened unless it is open; see `forget`.

        Raises:
            DamagedStoreError: its record is damaged, or an object is missing or has another size.
        """
        name = self.names[number]
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
        group = self.store.group(name)
        with self._lock:
            self._open[name] = group
            while len(self._open) > OPEN_GROUPS:
                self._open.popitem(last=False)
        return group

    def forget(self, number: int) -> None:
        """Open a group again the next time: it may have been replaced."""
        with self._lock:
            self._open.pop(self.names[number], None)

    def rows(self, number: int) -> int:
        """The number of rows of a group; 0 where it is damaged, which is noted in `problems`."""
        try:
            rows = len(self.open(number))
            self.problems.pop(self.names[number], None)
            return rows
        except RelabelError as error:
            self.problems[self.names[number]] = str(error)
            return 0

    def following(self, spot: Spot) -> Iterator[Spot]:
        """A row and those after it."""
        first = spot.row
        for number in range(spot.group, len(self.names)):
            for row in range(first, self.rows(number)):
                yield Spot(number, row)
            first = 0

    def preceding(self, spot: Spot) -> Iterator[Spot]:
        """The rows before one, the nearest first."""
        last = spot.row
        for number in range(spot.group, -1, -1):
            end = self.rows(number) if number != spot.group else last
            for row in range(end - 1, -1, -1):
                yield Spot(number, row)


class Sorting:
    """N rows of a store sorted by the figures of its audit, largest first; NaN, for rows without a label, comes last.

    Args:
        index: of the store as it is.
        groups: of that store.

    Raises:
        LabelNotFoundError: a group of the index is not in the store.
    """

    def __init__(self, index: AuditIndex, groups: Groups) -> None:
        self._group = np.repeat([groups.number(name) for name in index.group.tolist()], index.rows).astype(np.int32)
        self._row = index.row
        self._figures: dict[Sort, NDArray[Any]] = {
            "disagreement": index.disagreement,
            "entropy": index.entropy,
            "classes": index.classes,
        }
        self._orders: dict[Sort, NDArray[np.int32]] = {}
        self._store, self._digest, self._checked = groups.store, index.store_digest, time.monotonic()
        self.left_out: list[str] = index.left_out.tolist()  # names of groups that the audit could not read

    def refuse_stale(self) -> None:
        """Check every few seconds that the store is still the one that was audited.

        Raises:
            AuditIndexError: groups were added, removed or replaced.
        """
        if time.monotonic() - self._checked < FRESH:
            return
        if store_digest(self._store) != self._digest:
            raise AuditIndexError(
                f"{self._store} has changed since its audit; audit it again, then start `browse` again"
            )
        self._checked = time.monotonic()

    def __len__(self) -> int:
        return len(self._row)

    def spot(self, by: Sort, position: int) -> Spot:
        """The row at a position; 0 has the largest figure."""
        i = self._order(by)[position]
        return Spot(int(self._group[i]), int(self._row[i]))

    def figure(self, by: Sort, position: int) -> float:
        """The figure of the row at a position."""
        return float(self._figures[by][self._order(by)[position]])

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


class StoreOrdering:
    """Groups by name, rows as in their shards."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.first = next((self.at(spot) for spot in groups.following(Spot(0, 0))), None)

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
    """By a figure of the audit, the largest first."""

    def __init__(self, sorting: Sorting, by: Sort) -> None:
        self.sorting, self.by = sorting, by
        self.first = "0" if len(sorting) else None

    def spot(self, at: str) -> Spot:
        """The row at a position; raises LabelNotFoundError."""
        return self.sorting.spot(self.by, self._position(at))

    def after(self, at: str, count: int) -> list[str]:
        """Positions from one on, at most `count`."""
        position = self._position(at)
        return [str(i) for i in range(position, min(position + count, len(self.sorting)))]

    def before(self, at: str, count: int) -> str | None:
        """The position `count` before one, or 0; None at the start."""
        position = self._position(at)
        return str(max(position - count, 0)) if position else None

    def href(self, at: str) -> str:
        """The address of a row's page in this order."""
        return "/sample?" + urlencode({"sort": self.by, "at": at})

    def figure(self, at: str) -> str:
        """The figure with its name; empty for NaN."""
        value = self.sorting.figure(self.by, self._position(at))
        if math.isnan(value):
            return ""
        return {
            "disagreement": f"disagreement {value:.3f}",
            "entropy": f"entropy {value:.2f} bits",
            "classes": f"classes: {value:.0f}",
        }[self.by]

    def _position(self, at: str) -> int:
        if not at.isdecimal() or len(at) > 12 or int(at) >= len(self.sorting):
            raise LabelNotFoundError(f"no row {at!r} among the {len(self.sorting):,} sorted ones")
        return int(at)
