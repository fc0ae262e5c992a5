"""Pages of thumbnails: in the store's order, sorted by its audit, or the results of a search."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from store.audit.figures import PRESENT_PROBABILITY, present_cells
from store.browse.orders import SORTS, Ordering, SortedOrdering, Sorting, StoreOrdering
from store.browse.rows import Groups, Spot
from store.browse.search import Query, parse_classes, search
from store.browse.thumbnails import Thumbnail, make_thumbnail
from store.errors import RelabelError
from store.text import counted, first_few, printable
from store.view.images import ShardImages
from store.view.page import Links, render

THUMBNAILS = 24  # of a page
SHOWN_PROBLEMS = 5

Parameters = Mapping[str, str]


class Listing:
    """Makes the HTML of pages from the parameters of their addresses."""

    def __init__(self, groups: Groups, images: ShardImages, sorting: Sorting | None) -> None:
        self.groups, self.images, self.sorting = groups, images, sorting
        self.in_store = StoreOrdering(groups)

    def asked(self, parameters: Parameters) -> dict[str, str]:
        """The parameters that choose rows and their order, without those that have no effect."""
        asked = {"key": parameters.get("key", ""), "class": parameters.get("class", "").strip()}
        if self.sorting is not None and parameters.get("sort") in SORTS:
            asked["sort"] = parameters["sort"]
        return {name: value for name, value in asked.items() if value}

    def ordering(self, parameters: Parameters) -> Ordering:
        """The order that is asked for: sorted, then of the rows alone that a search finds; or the store's own."""
        asked = self.asked(parameters)
        by = next((sort for sort in SORTS if sort == asked.get("sort")), None)
        if by is None or self.sorting is None:
            return self.in_store
        self.sorting.refuse_stale()
        return SortedOrdering(self.sorting, by, self._query(asked), asked)

    def _query(self, asked: Parameters) -> Query:
        text = asked.get("class", "")
        return Query(
            key=asked.get("key", ""),
            classes=parse_classes(self.groups.store.schema, text),
            text=text,
            threshold=PRESENT_PROBABILITY if self.sorting is None else self.sorting.threshold,
        )

    def page(self, parameters: Parameters) -> str:
        """The HTML of a page.

        Raises:
            LabelNotFoundError: it should begin at a row that does not exist.
        """
        asked = self.asked(parameters)
        query = self._query(asked)
        if query.classes == ():
            return self._page(asked, query, note="no class has this number or name")
        ordering = self.ordering(parameters)
        if query and not isinstance(ordering, SortedOrdering):
            return self._results(asked, query, parameters.get("at"))
        note = self._sorted_note(ordering, query) if isinstance(ordering, SortedOrdering) else ""
        at = parameters.get("at", ordering.first)
        if at is None:
            return self._page(asked, query, note=note or "no images", problems=ordering.problems)
        shown = ordering.after(at, THUMBNAILS + 1)
        before = ordering.before(at, THUMBNAILS)
        return self._page(
            asked,
            query,
            thumbnails=[
                self._thumbnail(ordering.spot(a), ordering.href(a), query, ordering.figure(a))
                for a in shown[:THUMBNAILS]
            ],
            note=note,
            problems=ordering.problems,
            first=list_address(asked) if before is not None else None,
            previous=list_address(asked | {"at": before}) if before is not None else None,
            next=list_address(asked | {"at": shown[THUMBNAILS]}) if len(shown) > THUMBNAILS else None,
        )

    def problem_page(self, parameters: Parameters, error: RelabelError, links: Links) -> str:
        """The page of a row that cannot be read: the reason, and links to the rows beside it."""
        asked = self.asked(parameters)
        return self._page(
            asked,
            self._query(asked),
            problems=[str(error)],
            previous=None if links.previous is None else links.previous.href,
            next=None if links.next is None else links.next.href,
            next_text="next",
        )

    def _sorted_note(self, ordering: SortedOrdering, query: Query) -> str:
        total = f"{len(ordering.sorting):,} images"
        note = f"{f'{len(ordering):,} of {total}' if query else total} by {ordering.by}, the largest first"
        if bad := ordering.sorting.left_out:
            note += f"; without {len(bad):,} damaged groups, which the audit could not read: {first_few(bad)}"
        return printable(note)

    def exact(self, parameters: Parameters) -> str | None:
        """The address of the image whose whole key is searched for."""
        key = parameters.get("key", "")
        if not key or parameters.get("class", "").strip() or "at" in parameters:
            return None
        try:
            group, row = self.groups.store.find(key)
            return self.in_store.href(self.in_store.at(Spot(self.groups.number(group.name), row)))
        except RelabelError:  # the search that follows names the groups that cannot be read
            return None

    def _results(self, asked: dict[str, str], query: Query, at: str | None) -> str:
        found = search(self.groups, query, Spot(0, 0) if at is None else self.in_store.spot(at), THUMBNAILS)
        total = f"{len(self.groups):,} groups"
        reached = f"all {total} searched" if found.next is None else f"at group {found.next.group + 1:,} of {total}"
        return self._page(
            asked,
            query,
            thumbnails=[
                self._thumbnail(spot, self.in_store.href(self.in_store.at(spot)), query) for spot in found.spots
            ],
            problems=found.problems,
            note=f"{len(found.spots)} on this page, in the order of the store; {reached}",
            first=list_address(asked) if at is not None else None,
            next=list_address(asked | {"at": self.in_store.at(found.next)}) if found.next else None,
            next_text="continue the search",
        )

    def _thumbnail(self, spot: Spot, href: str, query: Query, figure: str = "") -> Thumbnail:
        return make_thumbnail(self.groups, self.images, spot, href, query=query, figure=figure)

    def _page(
        self,
        asked: dict[str, str],
        query: Query,
        *,
        problems: Sequence[str] = (),
        **values: Any,  # noqa: ANN401
    ) -> str:
        schema = self.groups.store.schema
        found = {name: value for name, value in asked.items() if name != "sort"}
        addresses: dict[str, str | None] = {"store": list_address(found)}
        for by in SORTS:
            addresses[by] = list_address(found | {"sort": by}) if self.sorting is not None else None
        chosen = asked.get("sort", "store")
        cells = counted(present_cells(schema.map_size), "cell")
        blank: dict[str, Any] = {
            "thumbnails": (),
            "note": "",
            "first": None,
            "previous": None,
            "next": None,
            "next_text": "next page",
        }
        return render(
            "list.html",
            images="'self' data:",
            forms="'self'",
            store=printable(str(self.groups.store)),
            groups=f"{len(self.groups):,}",
            teacher=printable(schema.teacher.architecture),
            key=asked.get("key", ""),
            class_text=asked.get("class", ""),
            sort=asked.get("sort"),
            sorts=[{"name": name, "on": chosen == name, "href": href} for name, href in addresses.items()],
            can_sort=self.sorting is not None,
            present=f"top-1 with a probability of {query.threshold:g} or more in at least {cells}",
            problems=[printable(problem) for problem in problems[:SHOWN_PROBLEMS]],
            **(blank | values),
        )


def list_address(parameters: Parameters) -> str:
    """The address of a page of thumbnails."""
    return "/?" + urlencode(parameters) if parameters else "/"
