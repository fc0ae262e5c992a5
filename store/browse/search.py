"""Searches a store for keys and classes, group by group, for at most `PATIENCE` seconds a page."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from store.browse.rows import Groups, Spot
from store.errors import RelabelError
from store.format.schema import StoreSchema
from store.group import LabelGroup

PATIENCE = 1.5  # seconds of searching for one page


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """The conditions of a search; a row must meet both."""

    key: str  # a part of the key; empty for all
    classes: tuple[int, ...] | None  # one of them is the label, or top-1 in a cell; None for all


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
        wanted &= _rows_of_key(group, query.key)
    if wanted and query.classes is not None:
        wanted &= _rows_of_classes(group, query.classes)
    return iter(sorted(wanted))


def _rows_of_key(group: LabelGroup, part: str) -> set[int]:
    try:
        wanted = part.encode()
    except UnicodeEncodeError:
        return set()
    # Most groups do not hold it: searching the bytes of all keys is far quicker than searching key by key.
    if wanted not in group.key_texts():
        return set()
    return {row for row, key in enumerate(group.keys) if part in key}


def _rows_of_classes(group: LabelGroup, classes: tuple[int, ...]) -> set[int]:
    labelled = np.isin(group.labels, classes)
    is_top1 = np.isin(group.read_array("classes")[:, 0], classes).any(axis=(1, 2))
    return set(np.flatnonzero(labelled | is_top1).tolist())
