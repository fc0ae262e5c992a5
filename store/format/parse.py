"""Conversion of a store's JSON attributes, which may come from anywhere, to the types of `store.format.schema`.

Every field is checked once here; afterwards the objects are trusted. The fields are specified in docs/format.md.
"""

import json
from typing import TypeVar, get_args

import msgspec

from store.errors import DamagedStoreError, FormatVersionError
from store.format.schema import FORMAT_VERSION, CommitRecord, Json, ScoreKind, StoreSchema, canonical, seal
from store.text import brief

MAX_NESTING = 8

T = TypeVar("T")


class _Header(msgspec.Struct):
    """The fields of the root that say whether this release can read the rest."""

    format_version: int
    score_kind: str


def parse_attributes(data: bytes, where: str) -> Json:
    """The attributes of a Zarr v3 group's `zarr.json`.

    Raises:
        DamagedStoreError: not the metadata of a Zarr v3 group.
    """
    try:
        document = json.loads(data, parse_constant=_refuse_constant, parse_int=_short_int)
    except (ValueError, RecursionError) as error:
        raise DamagedStoreError(f"{where}: cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("zarr_format") != 3 or document.get("node_type") != "group":
        raise DamagedStoreError(f"{where}: not the metadata of a Zarr v3 group")
    attributes = document.get("attributes", {})
    if not isinstance(attributes, dict):
        raise DamagedStoreError(f"{where}: attributes should be a JSON object")
    return attributes


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _short_int(digits: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def parse_schema(attributes: object, where: str) -> StoreSchema:
    """Read the root attribute `relabel`.

    Raises:
        FormatVersionError: written by a newer release.
        DamagedStoreError: a field is missing, or has the wrong type or an impossible value.
    """
    header = _convert(attributes, _Header, where)
    if header.format_version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where}: format version {header.format_version}; this release reads up to {FORMAT_VERSION}: upgrade it"
        )
    if header.format_version < 1:
        raise DamagedStoreError(f"{where}: there is no format version {header.format_version}")
    if header.score_kind not in get_args(ScoreKind):
        raise FormatVersionError(
            f"{where}: scores of the kind {brief(header.score_kind)}; this release reads "
            f"{' and '.join(get_args(ScoreKind))}: upgrade it"
        )
    schema = _convert(attributes, StoreSchema, where)
    if not _is_within(schema.teacher.arguments, MAX_NESTING):
        raise DamagedStoreError(f"{where}: the teacher's arguments are nested more than {MAX_NESTING} deep")
    return schema


def parse_commit(attributes: object, root: str, where: str) -> CommitRecord:
    """Read the group attribute `relabel.commit` and check its digest against itself and the root attributes.

    Args:
        attributes: the attribute's value.
        root: canonical JSON of the root attributes.
        where: for messages.

    Raises:
        DamagedStoreError: a field is missing or impossible, or the digest does not match.
    """
    fields = _convert(attributes, Json, where)
    body = {name: value for name, value in fields.items() if name != "digest"}
    if _seal(body, root) != fields.get("digest"):
        raise DamagedStoreError(
            f"{where}: the commit record or the store's root attributes were changed; "
            "annotate it again (--overwrite with only this shard)"
        )
    return _convert(body, CommitRecord, where)


def sealed_root(root: Json, where: str) -> str:
    """Canonical JSON of the root attributes, which the records' digests cover.

    Raises:
        DamagedStoreError: nested too deep.
    """
    try:
        return canonical(root)
    except RecursionError as error:
        raise DamagedStoreError(f"{where}: attributes nested too deep") from error


def _convert(value: object, kind: type[T], where: str) -> T:
    """The JSON value as this type, strictly: true is no number, 1.0 no integer; unknown fields are left out."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError, UnicodeEncodeError) as error:  # a lone surrogate in a text
        raise DamagedStoreError(f"{where}: {error}") from error


def _seal(body: Json, root: str) -> str | None:
    """The digest that the record should have; None where it cannot be computed."""
    try:
        return seal(body, root)
    except (ValueError, RecursionError):  # text that is not Unicode, or nesting too deep
        return None


def _is_within(value: object, levels: int) -> bool:
    """Whether a JSON value has at most this many levels of lists and objects."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return items is None or (levels > 0 and all(_is_within(item, levels - 1) for item in items))
