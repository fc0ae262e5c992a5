"""The JSON attributes of a store, read out of files that may come from anywhere.

Every field is checked once here; afterwards the objects are trusted. The fields are specified in docs/format.md.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from store.errors import DamagedStoreError, FormatVersionError, LabelMapError
from store.format.schema import (
    FORMAT_VERSION,
    PREPROCESSING_MODE,
    SCORE_KIND,
    CommitRecord,
    Json,
    ObjectRecord,
    Preprocessing,
    StoreSchema,
    TarIdentity,
    TeacherIdentity,
    Undecodable,
    brief,
    canonical,
    seal,
)

MAX_ROWS = 1 << 24  # far above any shard; keeps a hostile record from asking for all memory
MAX_NESTING = 8
OBJECT_PATH = re.compile(r"[a-z]{1,32}/(zarr\.json|c(/\d{1,9}){1,4})")
PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,199})?")
SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


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
    raise ValueError(f"{name} is no JSON")


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
    root = Fields(attributes, where)
    version = root.get("format_version", int)
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{where}: format version {version}; this release reads up to {FORMAT_VERSION}: upgrade it"
        )
    if version < 1:
        raise DamagedStoreError(f"{where}: there is no format version {version}")
    teacher, preprocessing = Fields(root.get("teacher", dict), where), Fields(root.get("view", dict), where)
    for fields, name, known in ((root, "score_kind", SCORE_KIND), (preprocessing, "mode", PREPROCESSING_MODE)):
        if fields.get(name, str) != known:
            raise DamagedStoreError(f"{where}: {name} should be {known!r}, found {brief(fields.get(name, str))}")
    names = root.values.get("class_names")
    try:
        return StoreSchema(
            teacher=TeacherIdentity(
                architecture=teacher.get("architecture", str),
                arguments=_shallow(teacher, "arguments"),
                digest=teacher.get("digest", str),
            ),
            preprocessing=Preprocessing(
                mode=preprocessing.get("mode", str),
                input_size=preprocessing.pair("input_size"),
                interpolation=preprocessing.get("interpolation", str),
                mean=tuple(preprocessing.items("mean", float)),
                std=tuple(preprocessing.items("std", float)),
            ),
            num_classes=root.get("num_classes", int),
            top_k=root.get("top_k", int),
            map_size=root.pair("map_size"),
            class_names=None if names is None else tuple(root.items("class_names", str)),
        )
    except LabelMapError as error:
        raise DamagedStoreError(f"{where}: {error}") from error


def parse_commit(attributes: object, root: str, where: str) -> CommitRecord:
    """Read the group attribute `relabel.commit` and check its digest against itself and the root attributes.

    Args:
        attributes: the attribute's value.
        root: canonical JSON of the root attributes.
        where: for messages.

    Raises:
        DamagedStoreError: a field is missing or impossible, or the digest does not match.
    """
    record = Fields(attributes, where)
    body = {name: value for name, value in record.values.items() if name != "digest"}
    if _seal(body, root) != record.get("digest", str):
        raise DamagedStoreError(
            f"{where}: the commit record or the store's root attributes were changed; "
            "annotate it again (--overwrite with only this shard)"
        )
    tar = Fields(record.get("tar", dict), where)
    rows = record.number("rows", 1, MAX_ROWS)
    return CommitRecord(
        rows=rows,
        tar=TarIdentity(
            size=tar.number("size", 0),
            mtime_ns=tar.get("mtime_ns", int),
            sha256=tar.get("sha256", str),
        ),
        teacher_digest=record.get("teacher_digest", str),
        prefix=record.text("prefix", PREFIX),
        objects=dict(_objects(record)),
        undecodable=tuple(_quarantined(record, rows)),
        provenance={name: str(value) for name, value in record.get("provenance", dict).items()},
    )


def _shallow(fields: "Fields", name: str) -> Json:
    """A JSON object that everything which walks through it can do so by recursion."""
    value = fields.get(name, dict)
    level: list[object] = [value]
    for _ in range(MAX_NESTING):
        level = [item for part in level if isinstance(part, dict | list)
                 for item in (part.values() if isinstance(part, dict) else part)]  # fmt: skip
    if level:
        raise DamagedStoreError(f"{fields.where}: field {name!r} is nested more than {MAX_NESTING} deep")
    return value


def sealed_root(root: Json, where: str) -> str:
    """Canonical JSON of the root attributes, which the records' digests cover.

    Raises:
        DamagedStoreError: nested without end.
    """
    try:
        return canonical(root)
    except RecursionError as error:
        raise DamagedStoreError(f"{where}: attributes nested too deep") from error


def _seal(body: Json, root: str) -> str | None:
    try:
        return seal(body, root)
    except (ValueError, RecursionError):  # text that is no Unicode, or nested without end
        return None


def _objects(record: "Fields") -> Iterator[tuple[str, ObjectRecord]]:
    for path, value in record.get("objects", dict).items():
        if not OBJECT_PATH.fullmatch(path):
            raise DamagedStoreError(f"{record.where}: {brief(path)} cannot be an object of a label group")
        fields = Fields(value, f"{record.where}: {path}")
        yield path, ObjectRecord(size=fields.number("size", 0), sha256=fields.text("sha256", SHA256))


def _quarantined(record: "Fields", rows: int) -> Iterator[Undecodable]:
    seen: set[int] = set()
    for value in record.get("quarantined", list):
        fields = Fields(value, f"{record.where}: quarantined")
        row = fields.number("row", 0, rows - 1)
        if row in seen:
            raise DamagedStoreError(f"{record.where}: row {row} is quarantined twice")
        seen.add(row)
        yield Undecodable(row=row, key=fields.get("key", str), reason=fields.get("reason", str))


class Fields:
    """A JSON object from a hostile file, read field by field with types checked."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, Mapping):
            raise DamagedStoreError(f"{where}: expected a JSON object, found {type(values).__name__}")
        self.values, self.where = values, where

    def get(self, name: str, kind: type[T]) -> T:
        """The field's value, of exactly this JSON type."""
        value = self.values.get(name)
        if kind is float and type(value) is int:
            value = float(value) if abs(value) < 1 << 53 else math.inf
        if type(value) is not kind:
            raise self._wrong(name, kind.__name__)
        return value

    def number(self, name: str, low: int, high: int = 1 << 62) -> int:
        """The field's value, an integer in this range."""
        value = self.get(name, int)
        if not low <= value <= high:
            raise self._wrong(name, f"{low} to {high}")
        return value

    def text(self, name: str, pattern: re.Pattern[str]) -> str:
        """The field's value, a text of this form."""
        value = self.get(name, str)
        if not pattern.fullmatch(value):
            raise self._wrong(name, f"text like {pattern.pattern}")
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        """The field's value, a list whose items all have this type."""
        listed = Fields({str(i): item for i, item in enumerate(self.get(name, list))}, f"{self.where}: {name}")
        return [listed.get(str(i), kind) for i in range(len(listed.values))]

    def pair(self, name: str) -> tuple[int, int]:
        """The field's value, a list of two integers."""
        values = self.items(name, int)
        if len(values) != 2:
            raise self._wrong(name, "a list of two integers")
        return values[0], values[1]

    def _wrong(self, name: str, expected: str) -> DamagedStoreError:
        found = brief(self.values.get(name))
        return DamagedStoreError(f"{self.where}: field {name!r} should be {expected}, found {found}")
