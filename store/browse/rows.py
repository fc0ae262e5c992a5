"""The two orders in which a store is browsed: as it lies, and as its audit sorts it.

A row is named by a text in an address: `group:row` in the first, its rank in the second.
"""

import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from store.audit.index import AuditIndex, store_digest
from store.errors import AuditIndexError, LabelNotFoundError, RelabelError
from store.group import LabelGroup
from store.reader import LabelStore

# The rows of a whole store in order, of which only a few groups are open at a time.


OPEN_GROUPS = 16  # each with its keys, offsets and digests: some 200 kB


@dataclass(frozen=True, slots=True)
class Spot:
    """A row of a store, by its group's number."""

    group: int
    row: int


class Groups:
    """The groups of a store by number, for the threads of a server."""

    def __init__(self, store: LabelStore) -> None:
        self.store = store
        self.names = store.names()
        self._numbers = {name: i for i, name in enumerate(self.names)}
        self._open: OrderedDict[str, LabelGroup] = OrderedDict()
        self._lock = threading.Lock()
        self.problems: dict[str, str] = {}  # what was found wrong with which group, so far

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str) -> int:
        """A group's number by its name.

        Raises:
            LabelNotFoundError: there is none.
        """
        if name not in self._numbers:
            raise LabelNotFoundError(f"{self.store}: no group {name!r}; it may have been added since `browse` began")
        return self._numbers[name]

    def open(self, number: int) -> LabelGroup:
        """A group, opened unless it is open; see `forget`.

        Raises:
            DamagedStoreError: its record or an object of it does not hold.
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
        """Open a group anew the next time: it may have been replaced."""
        with self._lock:
            self._open.pop(self.names[number], None)

    def rows(self, number: int) -> int:
        """How many rows a group has; none where it is damaged, which is kept in `problems`: the others go on."""
        try:
            rows = len(self.open(number))
            self.problems.pop(self.names[number], None)
            return rows
        except RelabelError as error:
            self.problems[self.names[number]] = str(error)
            return 0

    def following(self, place: Spot) -> Iterator[Spot]:
        """A place and those after it."""
        first = place.row
        for number in range(place.group, len(self.names)):
            for row in range(first, self.rows(number)):
                yield Spot(number, row)
            first = 0

    def preceding(self, place: Spot) -> Iterator[Spot]:
        """The places before one, the nearest first."""
        last = place.row
        for number in range(place.group, -1, -1):
            end = self.rows(number) if number != place.group else last
            for row in range(end - 1, -1, -1):
                yield Spot(number, row)


# The orders that an audit gives the rows of a store.


Sort = Literal["disagreement", "entropy", "classes"]
FRESH = 5.0  # seconds that a look at the store is trusted
SORTS: tuple[Sort, ...] = get_args(Sort)


class Sorting:
    """N rows of a store by the figures of its audit; NaN, without an original label, comes last.

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
        """Look every few seconds whether these figures are still of the store's labels.

        Raises:
            AuditIndexError: groups were added, removed or replaced.
        """
        if time.monotonic() - self._checked < FRESH:
            return
        if store_digest(self._store) != self._digest:
            raise AuditIndexError(
                f"{self._store} has changed since its audit; audit it again, then start `browse` anew"
            )
        self._checked = time.monotonic()

    def __len__(self) -> int:
        return len(self._row)

    def place(self, by: Sort, rank: int) -> Spot:
        """The row that comes at a rank, the largest figure at 0."""
        i = self._order(by)[rank]
        return Spot(int(self._group[i]), int(self._row[i]))

    def figure(self, by: Sort, rank: int) -> float:
        """Its figure."""
        return float(self._figures[by][self._order(by)[rank]])

    def _order(self, by: Sort) -> NDArray[np.int32]:
        if by not in self._orders:
            values = self._figures[by].astype(np.float32)
            self._orders[by] = np.argsort(-values, kind="stable").astype(np.int32)
        return self._orders[by]


class Ordering(Protocol):
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


class StoreOrdering:
    """Groups by name, rows as in their shards."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.first = next((self.at(place) for place in groups.following(Spot(0, 0))), None)

    def at(self, place: Spot) -> str:
        """The text of a row."""
        return f"{self.groups.names[place.group]}:{place.row}"

    def place(self, at: str) -> Spot:
        """See `Ordering`."""
        name, colon, row = at.rpartition(":")
        if not colon or not row.isdecimal() or len(row) > 9:
            raise LabelNotFoundError(f"no row {at!r}; rows are named as in train-0000:12")
        number = self.groups.number(name)
        if int(row) >= self.groups.rows(number) and name not in self.groups.problems:
            raise LabelNotFoundError(f"{name}: no row {row}")
        return Spot(number, int(row))

    def after(self, at: str, count: int) -> list[str]:
        """See `Ordering`."""
        return [self.at(place) for place in itertools.islice(self.groups.following(self.place(at)), count)]

    def before(self, at: str, count: int) -> str | None:
        """See `Ordering`."""
        places: Sequence[Spot] = list(itertools.islice(self.groups.preceding(self.place(at)), count))
        return self.at(places[-1]) if places else None

    def href(self, at: str) -> str:
        """See `Ordering`."""
        return "/sample?" + urlencode({"at": at})

    def figure(self, at: str) -> str:
        """See `Ordering`."""
        return ""


class SortedOrdering:
    """By a figure of the audit, the largest first."""

    def __init__(self, sorting: Sorting, by: Sort) -> None:
        self.sorting, self.by = sorting, by
        self.first = "0" if len(sorting) else None

    def place(self, at: str) -> Spot:
        """See `Ordering`."""
        return self.sorting.place(self.by, self._rank(at))

    def after(self, at: str, count: int) -> list[str]:
        """See `Ordering`."""
        rank = self._rank(at)
        return [str(i) for i in range(rank, min(rank + count, len(self.sorting)))]

    def before(self, at: str, count: int) -> str | None:
        """See `Ordering`."""
        rank = self._rank(at)
        return str(max(rank - count, 0)) if rank else None

    def href(self, at: str) -> str:
        """See `Ordering`."""
        return "/sample?" + urlencode({"sort": self.by, "at": at})

    def figure(self, at: str) -> str:
        """See `Ordering`."""
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
