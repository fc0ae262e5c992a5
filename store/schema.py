"""What the JSON attributes of a store say, as frozen dataclasses: the root's schema and a group's commit record.

Parsing checks every field once, since a store may come from anywhere; afterwards the objects are trusted.
The fields are specified in docs/format.md.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from store.errors import DamagedStoreError, FormatVersionError, LabelMapError
from store.text import printable

FORMAT_VERSION = 1
SCORE_KIND = "logit"
VIEW_MODE = "squash"  # the whole image, its aspect not kept
MAX_CLASSES = 65_535  # 65535 itself is the fill value of `classes`
ROOT_ATTRIBUTE = "relabel"
COMMIT_ATTRIBUTE = "relabel.commit"

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherIdentity:
    """Which network made the maps."""

    architecture: str
    arguments: Json  # what `timm.create_model` was given besides the name
    digest: str  # hex sha256 over architecture, arguments and sorted tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What part of the image a map covers and how it was resized."""

    mode: str = VIEW_MODE
    input_size: tuple[int, int]  # height, width in pixels
    interpolation: str
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSchema:
    """The root attributes of a store: all groups of a store share them.

    Raises:
        LabelMapError: more classes than uint16 can tell apart, or sizes below one.
    """

    teacher: TeacherIdentity
    view: View
    num_classes: int
    top_k: int  # kept ranks K, at most `num_classes`
    map_size: tuple[int, int]  # H, W cells
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check what the array formats rest on."""
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise LabelMapError(f"a store holds 1 to {MAX_CLASSES} classes, not {self.num_classes}")
        if not 1 <= self.top_k <= self.num_classes:
            raise LabelMapError(f"top-k must be 1 to {self.num_classes} (the class count), not {self.top_k}")
        if min(self.map_size) < 1:
            raise LabelMapError(f"a label map needs at least one cell, not {self.map_size}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise LabelMapError(f"{len(self.class_names)} class names given for {self.num_classes} classes")

    def to_attributes(self) -> Json:
        """The value of the root attribute `relabel`."""
        return {"format_version": FORMAT_VERSION, "score_kind": SCORE_KIND, **_listed(asdict(self))}

    def differences(self, other: "StoreSchema") -> list[str]:
        """What keeps two stores from being one, as `field: this, other`; class names may differ."""
        mine, theirs = self.to_attributes(), other.to_attributes()
        fields = ("num_classes", "top_k", "map_size", "view", "teacher")
        return [f"{name}: {_brief(mine[name])} here, {_brief(theirs[name])} there"
                for name in fields if mine[name] != theirs[name]]  # fmt: skip

    def class_name(self, class_id: int) -> str:
        """The class's name, or its number where the store has no names."""
        return self.class_names[class_id] if self.class_names is not None else str(class_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class TarIdentity:
    """The image shard that a group was made from."""

    size: int  # bytes
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectRecord:
    """One file of a group."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarantined:
    """A row whose image could not be decoded; its arrays hold fill values."""

    row: int
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitRecord:
    """What makes a group exist: written last, complete, never changed."""

    rows: int
    tar: TarIdentity
    teacher_digest: str
    prefix: str  # where the arrays lie relative to the group; '' on local disks
    objects: dict[str, ObjectRecord]
    quarantined: tuple[Quarantined, ...]
    provenance: dict[str, str]  # timm and torch versions, precision, device

    def to_attributes(self, root: StoreSchema) -> Json:
        """The value of the group attribute `relabel.commit`, sealed by a digest over itself and the root."""
        body = _listed(asdict(self))
        return {**body, "digest": seal(body, root.to_attributes())}


def seal(body: Json, root: Json) -> str:
    """The commit record's own digest: hex sha256 of canonical JSON of the record and the root attributes."""
    text = json.dumps({"commit": body, "root": root}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def parse_schema(attributes: object, where: str) -> StoreSchema:
    """Read the root attribute `relabel`.

    Raises:
        FormatVersionError: written by a newer release.
        DamagedStoreError: a field is missing or has the wrong type.
    """
    root = Fields(attributes, where)
    version = root.get("format_version", int)
    if version != FORMAT_VERSION:
        raise FormatVersionError(f"{where}: format version {version}; this release reads {FORMAT_VERSION}: upgrade it")
    teacher, view = Fields(root.get("teacher", dict), where), Fields(root.get("view", dict), where)
    for fields, name, known in ((root, "score_kind", SCORE_KIND), (view, "mode", VIEW_MODE)):
        if fields.get(name, str) != known:
            raise DamagedStoreError(f"{where}: {name} should be {known!r}, found {_brief(fields.get(name, str))}")
    names = root.values.get("class_names")
    try:
        return StoreSchema(
            teacher=TeacherIdentity(
                architecture=teacher.get("architecture", str),
                arguments=teacher.get("arguments", dict),
                digest=teacher.get("digest", str),
            ),
            view=View(
                mode=view.get("mode", str),
                input_size=view.pair("input_size"),
                interpolation=view.get("interpolation", str),
                mean=tuple(view.items("mean", float)),
                std=tuple(view.items("std", float)),
            ),
            num_classes=root.get("num_classes", int),
            top_k=root.get("top_k", int),
            map_size=root.pair("map_size"),
            class_names=None if names is None else tuple(root.items("class_names", str)),
        )
    except LabelMapError as error:
        raise DamagedStoreError(f"{where}: {error}") from error


def parse_commit(attributes: object, root: Json, where: str) -> CommitRecord:
    """Read the group attribute `relabel.commit` and check its digest against itself and the root attributes.

    Raises:
        DamagedStoreError: a field is missing, has the wrong type, or the digest does not match.
    """
    record = Fields(attributes, where)
    body = {name: value for name, value in record.values.items() if name != "digest"}
    if seal(body, root) != record.get("digest", str):
        raise DamagedStoreError(
            f"{where}: the commit record or the store's root attributes were changed; "
            "annotate it again (--overwrite with only this shard)"
        )
    tar = Fields(record.get("tar", dict), where)
    objects = {name: Fields(value, where) for name, value in record.get("objects", dict).items()}
    bad = [Fields(value, where) for value in record.get("quarantined", list)]
    return CommitRecord(
        rows=record.get("rows", int),
        tar=TarIdentity(size=tar.get("size", int), mtime_ns=tar.get("mtime_ns", int), sha256=tar.get("sha256", str)),
        teacher_digest=record.get("teacher_digest", str),
        prefix=record.get("prefix", str),
        objects={
            name: ObjectRecord(size=value.get("size", int), sha256=value.get("sha256", str))
            for name, value in objects.items()
        },
        quarantined=tuple(
            Quarantined(row=row.get("row", int), key=row.get("key", str), reason=row.get("reason", str)) for row in bad
        ),
        provenance={name: str(value) for name, value in record.get("provenance", dict).items()},
    )


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
            value = float(value)
        if type(value) is not kind:
            raise DamagedStoreError(f"{self.where}: field {name!r} should be {kind.__name__}, found {_brief(value)}")
        return value

    def items(self, name: str, kind: type[T]) -> list[T]:
        """The field's value, a list whose items all have this type."""
        listed = Fields({str(i): item for i, item in enumerate(self.get(name, list))}, f"{self.where}: {name}")
        return [listed.get(str(i), kind) for i in range(len(listed.values))]

    def pair(self, name: str) -> tuple[int, int]:
        """The field's value, a list of two integers."""
        values = self.items(name, int)
        if len(values) != 2:
            raise DamagedStoreError(f"{self.where}: field {name!r} should hold two integers, found {_brief(values)}")
        return values[0], values[1]


def _listed(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Tuples as lists, so that attributes compare equal before and after a trip through JSON."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def _brief(value: object) -> str:
    text = printable(json.dumps(value, sort_keys=True, default=str))
    return text if len(text) <= 160 else text[:157] + "..."
