"""The thumbnails of a page of a store: what is said below each."""

from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np

from store.browse.groups import Groups, Spot
from store.errors import RelabelError
from store.schema import StoreSchema
from store.text import printable
from store.view.photos import Photos
from store.view.tables import class_text
from store.view.target import crop_target, has_label


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One image of a page."""

    href: str  # of its page
    thumb: str | None  # of its image; None where it has none
    key: str
    lines: tuple[str, ...]


def make_card(groups: Groups, photos: Photos, place: Spot, href: str, figure: str = "") -> Card:
    """What a place shows; a group that cannot be read says so instead.

    Args:
        groups: of the store.
        photos: their shards.
        place: the row.
        href: where a click leads.
        figure: what it was sorted by.
    """
    name = groups.names[place.group]
    try:
        row = groups.open(place.group).row(place.row)
    except RelabelError as error:
        groups.forget(place.group)
        return Card(href=href, thumb=None, key=f"{name}, row {place.row}", lines=(printable(str(error)),))
    thumb = "/thumb?" + urlencode({"group": name, "row": place.row}) if name in photos else None
    if row.quarantined is not None:
        return Card(
            href=href, thumb=None, key=printable(row.key), lines=(f"quarantined: {printable(row.quarantined)}",)
        )
    schema = groups.store.schema
    target = crop_target(schema, row)
    best = int(np.argmax(target))
    lines = [f"label {_name(schema, row.target)} {target[row.target]:.2g}" if has_label(schema, row) else "no label"]
    if best != row.target:
        lines.append(f"map {_name(schema, best)} {target[best]:.2g}")
    if thumb is None:
        lines.append(f"no image: --shards lacks {name}.tar")
    return Card(href=href, thumb=thumb, key=printable(row.key), lines=(*lines, *([figure] if figure else [])))


def _name(schema: StoreSchema, class_id: int) -> str:
    return printable(class_text(class_id, schema.class_name(class_id)))
