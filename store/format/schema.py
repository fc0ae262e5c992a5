"""What the JSON attributes of a store say, as frozen dataclasses: the root's schema and a group's commit record.

The fields are specified in docs/format.md; `store.format.parse` reads them out of hostile files.
"""

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from store.errors import LabelMapError
from store.text import printable

FORMAT_VERSION = 1
SCORE_KIND = "logit"
PREPROCESSING_MODE = "squash"  # the whole image, its aspect not kept
MAX_CLASSES = 65_535  # 65535 itself is the fill value of `classes`
GROUP_FILE = "zarr.json"  # of the root and of every group
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
ROOT_ATTRIBUTE = "relabel"
MAX_SIDE = 65_535
COMMIT_ATTRIBUTE = "relabel.commit"

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherIdentity:
    """Which network made the maps."""

    architecture: str
    arguments: Json  # what `timm.create_model` was given besides the name
    digest: str  # hex sha256 over architecture, arguments and sorted tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """What part of the image a map covers and how it was resized.

    Raises:
        LabelMapError: sizes or deviations that are not above zero, or numbers that are not finite.
    """

    mode: str = PREPROCESSING_MODE
    input_size: tuple[int, int]  # height, width in pixels
    interpolation: str
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check what normalising divides by."""
        if not all(1 <= side <= MAX_SIDE for side in self.input_size):
            raise LabelMapError(f"a view has sides of 1 to {MAX_SIDE} pixels, not {brief(self.input_size)}")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=0) <= 0:
            raise LabelMapError(f"a view needs finite means and deviations above 0, not {self.mean} and {self.std}")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreSchema:
    """The root attributes of a store: all groups of a store share them.

    Raises:
        LabelMapError: more classes than uint16 can tell apart, or sizes below one.
    """

    teacher: TeacherIdentity
    preprocessing: Preprocessing
    num_classes: int
    top_k: int  # kept ranks K, at most `num_classes`
    map_size: tuple[int, int]  # H, W cells
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check what the array formats rest on."""
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise LabelMapError(f"a store holds 1 to {MAX_CLASSES} classes, not {brief(self.num_classes)}")
        if not 1 <= self.top_k <= self.num_classes:
            raise LabelMapError(f"top-k must be 1 to {self.num_classes} (the class count), not {brief(self.top_k)}")
        if not all(1 <= side <= MAX_SIDE for side in self.map_size):
            raise LabelMapError(f"a label map has sides of 1 to {MAX_SIDE} cells, not {brief(self.map_size)}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise LabelMapError(f"{len(self.class_names)} class names given for {self.num_classes} classes")

    def to_attributes(self) -> Json:
        """The value of the root attribute `relabel`."""
        fields: Json = listed(asdict(self))
        fields["view"] = fields.pop("preprocessing")  # the format's name for it
        return {"format_version": FORMAT_VERSION, "score_kind": SCORE_KIND, **fields}

    def differences(self, other: "StoreSchema", own: str = "here", others: str = "there") -> list[str]:
        """What keeps two stores from being one, as `field: mine own, theirs others`; class names may differ."""
        mine, theirs = self.to_attributes(), other.to_attributes()
        fields = ("num_classes", "top_k", "map_size", "view", "teacher")
        return [f"{name}: {brief(mine[name])} {own}, {brief(theirs[name])} {others}"
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
class Undecodable:
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
    undecodable: tuple[Undecodable, ...]
    provenance: dict[str, str]  # timm and torch versions, precision, device

    def to_attributes(self, root: str) -> Json:
        """The value of the group attribute `relabel.commit`, sealed by a digest over itself and the root's `relabel`.

        `root` is the canonical JSON of what lies in the store, not of what this release would write: the two may
        differ in form.
        """
        body = self.body()
        return {**body, "digest": seal(body, root)}

    def body(self) -> Json:
        """The record's fields under the names that the format gives them."""
        fields: Json = listed(asdict(self))
        fields["quarantined"] = fields.pop("undecodable")
        return fields


def is_group_name(name: str) -> bool:
    """Whether a folder or shard of this name can be a label group; names come from hostile tars and buckets."""
    return bool(GROUP_NAME.fullmatch(name)) and name != GROUP_FILE


def canonical(value: object) -> str:
    """JSON with one form for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def seal(body: Json, root: str) -> str:
    """The commit record's own digest: hex sha256 of canonical JSON of the record and the root attributes.

    `root` is that JSON already: with the names of 21,841 classes it takes longer to write than all else of a record.
    """
    text = f'{{"commit":{canonical(body)},"root":{root}}}'
    return hashlib.sha256(text.encode()).hexdigest()


def listed(value: Any) -> Any:  # noqa: ANN401  (any JSON value)
    """Tuples as lists, so that attributes compare equal before and after a trip through JSON."""
    if isinstance(value, dict):
        return {name: listed(item) for name, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def brief(value: object) -> str:
    """A JSON value in a message, printable and cut short."""
    text = printable(json.dumps(value, sort_keys=True, default=str))
    return text if len(text) <= 160 else text[:157] + "..."
