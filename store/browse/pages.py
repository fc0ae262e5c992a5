"""Pages of thumbnails: in the store's order, sorted by its audit, or the results of a search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np

from store.browse.rows import SORTS, Groups, Ordering, SortedOrdering, Sorting, Spot, StoreOrdering
from store.browse.search import Query, parse_classes, search
from store.errors import RelabelError
from store.format.schema import StoreSchema
from store.maps.pooling import crop_target, has_label
from store.text import first_few, printable
from store.view.images import ShardImages
from store.view.marks import class_text
from store.view.page import Links, render

THUMBNAILS = 24  # of a page
SHOWN_PROBLEMS = 5


class Listing:
    """Makes the HTML of pages from the parameters of their addresses."""

    def __init__(self, groups: Groups, images: ShardImages, sorting: Sorting | None) -> None:
        self.groups, self.images, self.sorting = groups, images, sorting
        self.in_store = StoreOrdering(groups)

    def ordering(self, parameters: Mapping[str, str]) -> tuple[Ordering, str]:
        """The order that is asked for, and its name; the name of the store's own order is empty."""
        by = next((sort for sort in SORTS if sort == parameters.get("sort")), None)
        if by is None or self.sorting is None:
            return self.in_store, ""
        self.sorting.refuse_stale()
        return SortedOrdering(self.sorting, by), by

    def page(self, parameters: Mapping[str, str]) -> str:
        """The HTML of a page.

        Raises:
            LabelNotFoundError: it should begin at a row that does not exist.
        """
        key, classes = parameters.get("key", ""), parameters.get("class", "").strip()
        if key or classes:
            return self._results(key, classes, parameters.get("at"))
        ordering, sort = self.ordering(parameters)
        at = parameters.get("at", ordering.first)
        if at is None:
            return self._page(sort=sort, thumbnails=[], note="no images")
        shown = ordering.after(at, THUMBNAILS + 1)
        before = ordering.before(at, THUMBNAILS)
        order = {"sort": sort} if sort else {}
        return self._page(
            sort=sort,
            thumbnails=[
                make_thumbnail(self.groups, self.images, ordering.spot(a), ordering.href(a), ordering.figure(a))
                for a in shown[:THUMBNAILS]
            ],
            note=self._sorted_note(sort) if sort else "",
            first=list_address(order) if before is not None else None,
            previous=list_address(order | {"at": before}) if before is not None else None,
            next=list_address(order | {"at": shown[THUMBNAILS]}) if len(shown) > THUMBNAILS else None,
        )

    def problem_page(self, sort: str, error: RelabelError, links: Links) -> str:
        """The page of a row that cannot be read: the reason, and links to the rows beside it."""
        return self._page(
            sort=sort,
            thumbnails=[],
            problems=[str(error)],
            previous=None if links.previous is None else links.previous.href,
            next=None if links.next is None else links.next.href,
            next_text="next",
        )

    def _sorted_note(self, sort: str) -> str:
        if self.sorting is None:
            return ""
        note = f"{len(self.sorting):,} images by {sort}, the largest first"
        if bad := self.sorting.left_out:
            note += f"; without {len(bad):,} damaged groups, which the audit could not read: {first_few(bad)}"
        return printable(note)

    def exact(self, parameters: Mapping[str, str]) -> str | None:
        """The address of the image whose whole key is searched for."""
        key = parameters.get("key", "")
        if not key or parameters.get("class", "").strip() or "at" in parameters:
            return None
        try:
            group, row = self.groups.store.find(key)
            return self.in_store.href(self.in_store.at(Spot(self.groups.number(group.name), row)))
        except RelabelError:  # the search that follows names the groups that cannot be read
            return None

    def _results(self, key: str, classes: str, at: str | None) -> str:
        query = Query(key=key, classes=parse_classes(self.groups.store.schema, classes))
        if query.classes == ():
            return self._page(key=key, class_text=classes, thumbnails=[], note="no class has this number or name")
        found = search(self.groups, query, Spot(0, 0) if at is None else self.in_store.spot(at), THUMBNAILS)
        asked = {"key": key, "class": classes}
        total = f"{len(self.groups):,} groups"
        reached = f"all {total} searched" if found.next is None else f"at group {found.next.group + 1:,} of {total}"
        return self._page(
            key=key,
            class_text=classes,
            thumbnails=[
                make_thumbnail(self.groups, self.images, spot, self.in_store.href(self.in_store.at(spot)))
                for spot in found.spots
            ],
            problems=found.problems,
            note=f"{len(found.spots)} on this page, in the order of the store; {reached}",
            first=list_address(asked) if at is not None else None,
            next=list_address(asked | {"at": self.in_store.at(found.next)}) if found.next else None,
            next_text="continue the search",
        )

    def _page(self, *, sort: str = "", problems: list[str] | None = None, **values: Any) -> str:  # noqa: ANN401
        addresses = {by: list_address({"sort": by}) if self.sorting is not None else None for by in SORTS}
        sorts = [{"name": name, "on": sort == name, "href": href} for name, href in addresses.items()]
        blank = {"key": "", "class_text": "", "note": "", "first": None, "previous": None, "next": None}
        found = list(self.groups.problems.values()) if problems is None else problems
        return render(
            "list.html",
            images="'self' data:",
            forms="'self'",
            store=printable(str(self.groups.store)),
            groups=f"{len(self.groups):,}",
            teacher=printable(self.groups.store.schema.teacher.architecture),
            sorts=[{"name": "store", "on": not sort, "href": "/"}, *sorts],
            can_sort=self.sorting is not None,
            problems=[printable(problem) for problem in found[:SHOWN_PROBLEMS]],
            **({"next_text": "next page"} | blank | values),
        )


def list_address(parameters: Mapping[str, str]) -> str:
    """The address of a page of thumbnails."""
    return "/?" + urlencode(parameters) if parameters else "/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """One image of a page, with the text below it."""

    href: str  # of the image's own page
    thumb: str | None  # address of the small image; None where it cannot be shown
    key: str
    lines: tuple[str, ...]


def make_thumbnail(groups: Groups, images: ShardImages, spot: Spot, href: str, figure: str = "") -> Thumbnail:
    """The thumbnail of a row; of a group that cannot be read, the reason.

    Args:
        groups: of the store.
        images: of its shards.
        spot: the row.
        href: address of the row's own page.
        figure: the figure that the page is sorted by, as text.
    """
    name = groups.names[spot.group]
    try:
        row = groups.open(spot.group).row(spot.row)
    except RelabelError as error:
        groups.forget(spot.group)
        return Thumbnail(href=href, thumb=None, key=f"{name}, row {spot.row}", lines=(printable(str(error)),))
    if row.undecodable is not None:
        lines = [f"undecodable: {printable(row.undecodable)}"]
        return Thumbnail(href=href, thumb=None, key=printable(row.key), lines=tuple(lines))
    schema = groups.store.schema
    target = crop_target(schema, row)
    best = int(np.argmax(target))
    lines = [f"label {_name(schema, row.label)} {target[row.label]:.2g}" if has_label(schema, row) else "no label"]
    if best != row.label:
        lines.append(f"top-1 {_name(schema, best)} {target[best]:.2g}")
    has_shard = name in images
    if not has_shard:
        lines.append(f"no image: --shards lacks {name}.tar")
    if figure:
        lines.append(figure)
    thumb = "/thumb?" + urlencode({"group": name, "row": spot.row}) if has_shard else None
    return Thumbnail(href=href, thumb=thumb, key=printable(row.key), lines=tuple(lines))


def _name(schema: StoreSchema, class_id: int) -> str:
    return printable(class_text(class_id, schema.class_name(class_id)))
