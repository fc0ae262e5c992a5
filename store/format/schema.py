"""Types of a store's JSON attributes: the schema in the root and the commit record of a group.

The fields are specified in docs/format.md. `store.format.parse` converts untrusted JSON to these types; ranges and
patterns in the annotations are checked there, `__post_init__` whenever an object is made.
"""

import hashlib
import json
import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from store.errors import LabelMapError
from store.text import brief

FORMAT_VERSION = 1
SQUASH = "squash"  # the whole image, its aspect not kept
CENTRE = "centre"  # a square out of the middle
MAX_CLASSES = 65_535  # 65535 itself is the fill value of `classes`
MAX_ROWS = 1 << 22  # far above any shard; keeps a hostile record from asking for all memory
MAX_SIDE = 65_535
MIN_CROP_PCT = 0.01
GROUP_FILE = "zarr.json"  # of the root and of every group
MAX_JSON_BYTES = 1 << 25  # of such a file; 65,535 class names take a few MB
GROUP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
ROOT_ATTRIBUTE = "relabel"
COMMIT_ATTRIBUTE = "relabel.commit"
DIGITS = 12  # of a digest that people compare
MAX_STEP = 16.0  # of scores that are rounded; steps are powers of two
SCORE_STEP = f"should be a power of two up to {MAX_STEP:g}, such as 0.25"
NAMES = {"view": "preprocessing"}  # fields of the root that have another name in code and messages

ScoreKind = Literal["logit", "centred_logit"]
"""What `scores` and `tail` hold: logits, or logits less the mean of the cell's logits outside the top K."""

Json = dict[str, Any]
Natural = Annotated[int, Meta(ge=0, le=1 << 62)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
ObjectPath = Annotated[str, Meta(pattern=r"^[a-z]{1,32}/(zarr\.json|c(/[0-9]{1,9}){1,4})\Z")]
Prefix = Annotated[str, Meta(pattern=rf"^({GROUP_NAME.pattern})?\Z")]


class TeacherIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The network that made the maps."""

    architecture: str
    arguments: Json  # of `timm.create_model`, besides the name
    digest: str  # hex sha256 over architecture, arguments and sorted tensors


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the image that a map covers, and how it was resized and normalised.

    Raises:
        LabelMapError: another mode, sizes or deviations that are not above zero, numbers that are not finite, or a
            centre that is not a square or has no `crop_pct`.
    """

    mode: str = SQUASH
    crop_pct: float | UnsetType = UNSET  # of `centre` alone: side of the square over the resized image's shorter side
    input_size: tuple[int, int]  # height, width in pixels
    interpolation: str
    mean: tuple[float, ...]  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the mode, the sizes and the divisors."""
        if self.mode not in (SQUASH, CENTRE):
            raise LabelMapError(
                f"mode of the preprocessing should be {SQUASH!r} or {CENTRE!r}, found {brief(self.mode)}"
            )
        if not all(1 <= side <= MAX_SIDE for side in self.input_size):
            raise LabelMapError(f"the input size should be 1 to {MAX_SIDE} pixels a side, not {brief(self.input_size)}")
        if self.mode == CENTRE:
            self._check_centre()
        elif self.crop_pct is not UNSET:
            raise LabelMapError(f"a crop_pct belongs to the mode {CENTRE!r}, not {self.mode!r}")
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std, default=0) <= 0:
            raise LabelMapError(
                f"preprocessing needs finite means and deviations above 0, not {brief(self.mean)} and {brief(self.std)}"
            )

    def _check_centre(self) -> None:
        if self.crop_pct is UNSET or not MIN_CROP_PCT <= self.crop_pct <= 1:
            raise LabelMapError(f"a centre needs a crop_pct from {MIN_CROP_PCT} to 1, not {brief(self.crop_pct)}")
        if self.input_size[0] != self.input_size[1]:
            raise LabelMapError(f"a centre needs an input size that is square, not {brief(self.input_size)}")


class StoreSchema(msgspec.Struct, frozen=True, kw_only=True, rename={name: stored for stored, name in NAMES.items()}):
    """The root attributes of a store, shared by all of its groups.

    Raises:
        LabelMapError: more classes than uint16 can number, sizes below one, or a step that is no power of two.
    """

    score_kind: ScoreKind
    score_step: float | None = None  # scores and tail are multiples of it; None where they were not rounded
    teacher: TeacherIdentity
    preprocessing: Preprocessing
    num_classes: int
    top_k: int  # K, the classes kept per cell; at most `num_classes`
    map_size: tuple[int, int]  # H, W cells
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Check the limits of the array formats."""
        if not 1 <= self.num_classes <= MAX_CLASSES:
            raise LabelMapError(f"a store holds 1 to {MAX_CLASSES} classes, not {brief(self.num_classes)}")
        if not 1 <= self.top_k <= self.num_classes:
            raise LabelMapError(f"top-k must be 1 to {self.num_classes} (the class count), not {brief(self.top_k)}")
        if not all(1 <= side <= MAX_SIDE for side in self.map_size):
            raise LabelMapError(f"a label map has sides of 1 to {MAX_SIDE} cells, not {brief(self.map_size)}")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise LabelMapError(f"{len(self.class_names)} class names given for {self.num_classes} classes")
        if self.score_step is not None and not is_score_step(self.score_step):
            raise LabelMapError(f"the score step {SCORE_STEP}, not {self.score_step}")

    def to_attributes(self) -> Json:
        """The value of the root attribute `relabel`."""
        # By way of JSON's text, so that tuples are lists, as they are when the attributes are read again.
        fields: Json = json.loads(json.dumps(msgspec.to_builtins(self)))
        if self.score_step is None:
            del fields["score_step"]
        return {"format_version": FORMAT_VERSION, **fields}

    def differences(self, other: "StoreSchema", own: str = "here", others: str = "there") -> list[str]:
        """Fields in which two stores differ, as `field: mine own, theirs others`; class names are not compared."""
        mine, theirs = self.to_attributes(), other.to_attributes()
        fields = ("num_classes", "top_k", "map_size", "view", "score_kind", "score_step", "teacher")
        return [
            f"{NAMES.get(name, name)}: {_shown(name, mine.get(name))} {own}, {_shown(name, theirs.get(name))} {others}"
            for name in fields
            if mine.get(name) != theirs.get(name)
        ]

    def class_name(self, class_id: int) -> str:
        """The class's name, or its number where the store has no names."""
        return self.class_names[class_id] if self.class_names is not None else str(class_id)


class TarIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """The image shard that a group was made from."""

    size: Natural  # bytes
    mtime_ns: int
    sha256: str


class ObjectRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a group."""

    size: Natural  # bytes
    sha256: Sha256


class Undecodable(msgspec.Struct, frozen=True, kw_only=True):
    """A row whose image could not be decoded; its arrays hold fill values."""

    row: Natural
    key: str
    reason: str


class CommitRecord(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"undecodable": "quarantined"}
):
    """The record that makes a group exist: written last, complete, never changed.

    Raises:
        LabelMapError: undecodable rows that the group does not have, or one named twice.
    """

    rows: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    tar: TarIdentity
    teacher_digest: str
    prefix: Prefix  # of the arrays' paths, relative to the group; '' on local disks
    objects: dict[ObjectPath, ObjectRecord]
    undecodable: tuple[Undecodable, ...]
    provenance: dict[str, str]  # timm and torch versions, precision, device
    group: str | None = None  # the group's name; records of earlier releases have none

    def __post_init__(self) -> None:
        """Check the undecodable rows."""
        rows = [bad.row for bad in self.undecodable]
        if len(set(rows)) != len(rows) or max(rows, default=0) >= self.rows:
            raise LabelMapError(f"undecodable rows should differ and be below {self.rows}, found {brief(sorted(rows))}")

    def to_attributes(self, root: str) -> Json:
        """The value of the group attribute `relabel.commit`, sealed by a digest over itself and the root's `relabel`.

        Args:
            root: canonical JSON of the root attributes as stored, which may differ in form from what this release
                writes.
        """
        body = self.body()
        return {**body, "digest": seal(body, root)}

    def body(self) -> Json:
        """The record's fields under the names that the format gives them."""
        fields: Json = msgspec.to_builtins(self)
        return fields


def _shown(field: str, value: Any) -> str:  # noqa: ANN401  (JSON)
    """A field's value for people, in a list of differences."""
    if field == "score_step":
        return "lossless" if value is None else f"{value:g}"
    if field != "teacher":
        return brief(value)
    arguments = ", ".join(f"{name}={str(argument)[:DIGITS]}" for name, argument in value["arguments"].items())
    return f"{brief(value['architecture'])} ({arguments}), digest {value['digest'][:DIGITS]}"


def is_score_step(step: float) -> bool:
    """Whether scores can be rounded to multiples of this: the powers of two up to `MAX_STEP`."""
    return 0 < step <= MAX_STEP and math.frexp(step)[0] == 0.5


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
