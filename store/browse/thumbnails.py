"""Thumbnails: a row's image and what is said below it, with the reason for which a search found it."""

from dataclasses import dataclass
from urllib.parse import urlencode

from store.browse.rows import Groups, Spot
from store.browse.search import Query, present_in
from store.errors import RelabelError
from store.format.schema import StoreSchema
from store.maps.pooling import crop_target, has_label
from store.maps.types import LabelRow
from store.text import printable
from store.view.images import ShardImages
from store.view.marks import class_text, label_text, short_text

LEAST_PROBABILITY = 0.001  # that is written as a number


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedClass:
    """A class in the text of a thumbnail."""

    role: str  # label, top-1, or both
    text: str
    title: str  # its whole name
    probability: str  # in the target of the whole image


@dataclass(frozen=True, kw_only=True, slots=True)
class Thumbnail:
    """One image of a page, with the text below it."""

    href: str  # of the image's own page
    thumb: str | None  # address of the small image; None where it cannot be shown
    key: str
    classes: tuple[NamedClass, ...] = ()
    lines: tuple[str, ...] = ()


def make_thumbnail(
    groups: Groups, images: ShardImages, spot: Spot, href: str, *, query: Query, figure: str = ""
) -> Thumbnail:
    """The thumbnail of a row; of a group that cannot be read, the reason.

    Args:
        groups: of the store.
        images: of its shards.
        spot: the row.
        href: address of the row's own page.
        query: that found it.
        figure: the figure that the page is sorted by, as text.
    """
    name = groups.names[spot.group]
    try:
        row = groups.open(spot.group).row(spot.row)
    except RelabelError as error:
        groups.forget(spot.group)
        return Thumbnail(href=href, thumb=None, key=f"{name}, row {spot.row}", lines=(printable(str(error)),))
    if row.undecodable is not None:
        reason = f"undecodable: {printable(row.undecodable)}"
        return Thumbnail(href=href, thumb=None, key=printable(row.key), lines=(reason,))
    schema, has_shard = groups.store.schema, name in images
    lines = (_found_by(schema, row, query), figure, "" if has_shard else f"no image: --shards lacks {name}.tar")
    return Thumbnail(
        href=href,
        thumb="/thumb?" + urlencode({"group": name, "row": spot.row}) if has_shard else None,
        key=printable(row.key),
        classes=_named(schema, row),
        lines=tuple(line for line in lines if line),
    )


def _named(schema: StoreSchema, row: LabelRow) -> tuple[NamedClass, ...]:
    """The label, and the top-1 class of the whole image's target."""
    target = crop_target(schema, row)
    top = int(target.argmax())

    def named(role: str, class_id: int) -> NamedClass:
        name, probability = schema.class_name(class_id), float(target[class_id])
        shown = f"{probability:.3f}" if probability >= LEAST_PROBABILITY else f"< {LEAST_PROBABILITY:g}"
        return NamedClass(
            role=role,
            text=short_text(class_id, name),
            title=class_text(class_id, name),
            probability=f"probability {shown}",
        )

    if not has_label(schema, row):
        text = label_text(row.label, None)
        return NamedClass(role="label", text=text, title=text, probability=""), named("top-1", top)
    if row.label == top:
        return (named("label and top-1", top),)
    return named("label", row.label), named("top-1", top)


def _found_by(schema: StoreSchema, row: LabelRow, query: Query) -> str:
    """Why a row meets a query for classes; empty without one."""
    if query.classes is None:
        return ""

    def text(class_id: int) -> str:
        synonyms = schema.class_name(class_id).split(", ")
        matching = (synonym for synonym in synonyms if query.text.casefold() in synonym.casefold())
        return short_text(class_id, next(matching, synonyms[0]))

    if row.label in query.classes:
        is_shown = text(row.label) == short_text(row.label, schema.class_name(row.label))
        return "found by its label" if is_shown else f"found by its label: {text(row.label)}"
    present = {c: cells for c, cells in present_in(row, query.threshold).items() if c in query.classes}
    found = [f"{text(c)} in {cells} of {row.classes[0].size} cells" for c, cells in present.items()]
    return f"found by {', '.join(found)}"
