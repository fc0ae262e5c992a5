"""The groups and rows of a store that is browsed."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from store.errors import LabelNotFoundError, RelabelError
from store.group import LabelGroup
from store.reader import LabelStore

OPEN_GROUPS = 16  # each with its keys, offsets and digests: some 200 kB


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
