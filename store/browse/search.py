"""Searches a store for keys and classes, group by group, for at most `PATIENCE` seconds a page."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from store.audit.figures import PRESENT_PROBABILITY, READ_ROWS, present_cells
from store.browse.rows import Groups, Spot
from store.errors import RelabelError
from store.format.schema import StoreSchema
from store.group import LabelGroup
from store.maps.pooling import cell_confidence
from store.maps.statistics import present_classes
from store.maps.types import LabelRow

PATIENCE = 1.5  # seconds of searching for one page


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """The conditions of a search; a row must meet both."""

    key: str = ""  # a part of the key; empty for all
    classes: tuple[int, ...] | None = None  # one of them is the label, or present in the image; None for all
    text: str = ""  # that the classes were found by: a number, or a part of their names
    threshold: float = PRESENT_PROBABILITY  # least probability of a class that counts as present, as in an audit

    def __bool__(self) -> bool:
        """Whether it has any condition."""
        return bool(self.key) or self.classes is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchResult:
    """Rows that meet a query, and the row to go on from."""

    spots: list[Spot]
    next: Spot | None  # None at the end of the store
    problems: list[str]  # groups that could not be read


def parse_classes(schema: StoreSchema, text: str) -> tuple[int, ...] | None:
    """Class ids by number or by a part of their name; None for an empty text."""
    text = text.strip()
    if not text:
        return None
    if text.isdecimal() and len(text) < 9:
        return (int(text),) if int(text) < schema.num_classes else ()
    names = schema.class_names or ()
    return tuple(c for c, name in enumerate(names) if text.casefold() in name.casefold())


def search(groups: Groups, query: Query, start: Spot, count: int) -> SearchResult:
    """The next `count` rows that meet a query; searches at least one group."""
    spots: list[Spot] = []
    problems: list[str] = []
    deadline = time.monotonic() + PATIENCE
    for number in range(start.group, len(groups)):
        first = start.row if number == start.group else 0
        try:
            rows = [row for row in _matches(groups, number, query) if row >= first]
        except RelabelError as error:
            groups.forget(number)
            problems.append(str(error))
            continue
        room = count - len(spots)
        spots += [Spot(number, row) for row in rows[:room]]
        if len(rows) > room:
            return SearchResult(spots=spots, next=Spot(number, rows[room]), problems=problems)
        if time.monotonic() > deadline and number + 1 < len(groups):
            return SearchResult(spots=spots, next=Spot(number + 1, 0), problems=problems)
    return SearchResult(spots=spots, next=None, problems=problems)


def _matches(groups: Groups, number: int, query: Query) -> Iterator[int]:
    # Not from the groups that are kept open: a search reads each group once.
    group = groups.store.unchecked_group(groups.names[number])
    wanted = set(range(len(group)))
    if query.key:
        wanted &= rows_of_key(group, query.key)
    if wanted and query.classes is not None:
        wanted &= _rows_of_classes(group, query.classes, query.threshold)
    return iter(sorted(wanted))


def rows_of_key(group: LabelGroup, part: str) -> set[int]:
    """Rows whose key holds a text; raises as `LabelGroup.keys`."""
    try:
        wanted = part.encode()
    except UnicodeEncodeError:
        return set()
    # Most groups do not hold it: searching the bytes of all keys is far quicker than searching key by key.
    if wanted not in group.key_texts():
        return set()
    return {row for row, key in enumerate(group.keys) if part in key}


def _rows_of_classes(group: LabelGroup, classes: tuple[int, ...], threshold: float) -> set[int]:
    """Rows with one of the classes as label, or present: a cell alone, however unsure, is no reason."""
    is_labelled, cells = np.isin(group.labels, classes), present_cells(group.schema.map_size)
    found = set(np.flatnonzero(is_labelled).tolist())
    # The scores, which take longest, are read only where there are enough cells.
    may_be = np.isin(group.read_array("classes")[:, 0], classes).sum(axis=(1, 2)) >= cells
    may_be &= ~is_labelled
    for start in range(0, len(group), READ_ROWS):
        rows = np.flatnonzero(may_be[start : start + READ_ROWS])
        if len(rows):
            maps = group.read(start, min(start + READ_ROWS, len(group))).select(rows)
            images, present = present_classes(maps, threshold=threshold, cells=cells)
            found.update((start + rows[images[np.isin(present, classes)]]).tolist())
    return found


def present_in(row: LabelRow, threshold: float) -> dict[int, int]:
    """The classes that are present in one image and the number of their confident cells, most first."""
    is_confident = cell_confidence(row.scores, row.tail_logsumexp) >= threshold
    classes, counts = np.unique(row.classes[0][is_confident], return_counts=True)
    enough = counts >= present_cells(row.classes.shape[1:])
    order = np.argsort(-counts[enough], kind="stable")
    return dict(zip(classes[enough][order].tolist(), counts[enough][order].tolist(), strict=True))
