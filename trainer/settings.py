"""All settings of one training run, checked once; afterwards they are trusted."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from store.errors import SettingsError
from store.maps.types import Fill, TargetKind
from store.text import brief
from trainer.types import Device, Interpolation, Precision, Schedule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHOICES: dict[str, tuple[str, ...]] = {
    "target": get_args(TargetKind),
    "fill": get_args(Fill),
    "interpolation": get_args(Interpolation),
    "sched": get_args(Schedule),
    "device": get_args(Device),
    "precision": get_args(Precision),
}
MAX_RATE = 1_000_000  # far beyond any use, and far from where float32 ends
RANGES: dict[str, tuple[float, float]] = {
    "image_size": (1, 65_535),
    "val_size": (1, 65_535),
    "val_crop_pct": (0.01, 1),
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "warmup_lr": (0, MAX_RATE),
    "min_lr": (0, MAX_RATE),
    "weight_decay": (0, MAX_RATE),
    "original_weight": (0, 1),
    "seed": (0, 2**32 - 1),
    "workers": (0, 64),  # a batch divides among no more
    "log_interval": (1, 1_000_000_000),
    "colour_jitter": (0, 1),
    "lighting": (0, 10),
    "cutmix_prob": (0, 1),
    "mixup_prob": (0, 1),
    "cutmix_alpha": (0.01, 100),
    "mixup_alpha": (0.01, 100),
    "accumulate": (1, 1_000_000),
    "clip_grad": (0, MAX_RATE),
    "checkpoint_interval": (0, 1_000_000_000),
    "keep_checkpoints": (1, 1_000),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """What defines a run, besides its data. Every field can be given as `--set name=value`.

    Raises:
        SettingsError: a value that cannot be; the message names the field and what it may be.
    """

    model: str  # the student, by timm's name
    model_args: dict[str, Any] = field(default_factory=dict)  # for timm.create_model, such as {"output_stride": 16}
    image_size: int = 224  # side of a training crop, pixels
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area in a random crop
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of a random crop
    flip: bool = True  # mirror half of the crops; off where left and right differ, as in digits
    colour_jitter: float = 0.0  # brightness, contrast and saturation of each crop times 1 - this to 1 + this
    lighting: float = 0.0  # deviation of the noise along the principal axes of ImageNet's colours
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD
    val_size: int = 224  # side of a validation image, pixels
    val_crop_pct: float = 0.875  # the share of the resized image's shorter side that is kept
    epochs: int = 300
    batch_size: int = 1024  # of all ranks together; a multiple of 64 lets up to 64 workers share the reading
    accumulate: int = 1  # parts in which each rank computes its share of a batch, to need less memory
    opt: str = "sgd"  # timm's name; "sgd" has Nesterov momentum
    opt_args: dict[str, Any] = field(default_factory=dict)  # for timm's create_optimizer_v2, such as {"eps": 1e-6}
    lr: float = 0.1  # for the whole batch; not scaled by its size
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not applied to biases and norms
    clip_grad: float = 0.0  # largest norm of all gradients together; 0 clips nothing
    sched: Schedule = "cosine"
    sched_args: dict[str, Any] = field(default_factory=dict)  # for timm's create_scheduler_v2: {"decay_epochs": 30}
    warmup_epochs: int = 5  # part of `epochs`
    warmup_lr: float = 1e-4
    min_lr: float = 0.0
    target: TargetKind = "relabel"
    fill: Fill = "zero"
    original_weight: float = 0.0  # share of the original label mixed into the target
    label_smoothing: float = 0.0  # of the original label
    cutmix_prob: float = 0.0  # share of the batches that CutMix mixes
    cutmix_alpha: float = 1.0  # of the Beta distribution of the area that is kept
    mixup_prob: float = 0.0  # share of the batches that mixup mixes
    mixup_alpha: float = 0.2  # of the Beta distribution of the weight
    mixing_off_epochs: int = 0  # the last epochs, without CutMix and mixup
    ema_decay: float = 0.0  # of the moving average of the weights, which is then what is evaluated; 0 keeps none
    seed: int = 0
    workers: int = 4  # processes that read and decode; 0 does it in the main process
    device: Device = "auto"  # cuda if there is one
    precision: Precision = "auto"  # bfloat16 autocast on cuda, float32 on the CPU
    compiled: bool = False  # by torch.compile: the first step takes minutes, the others less time
    log_interval: int = 50  # steps between two reports; each waits for the device once
    checkpoint_interval: int = 0  # steps between two checkpoints within an epoch; 0: at the ends of epochs alone
    keep_checkpoints: int = 2  # the last ones; the best is kept besides

    def __post_init__(self) -> None:
        """Check every field."""
        for name, valid, expected in self._rules():
            if not valid:
                raise SettingsError(f"{name}={brief(getattr(self, name))}: expected {expected}")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Field, whether its value is valid, what it may be; written so that NaN fails."""
        for name, choices in CHOICES.items():
            yield name, getattr(self, name) in choices, f"one of {', '.join(choices)}"
        for name, (low, high) in RANGES.items():
            yield name, low <= getattr(self, name) <= high, f"{low:,} to {high:,}"
        yield "model", bool(self.model), "a timm model's name"
        for name in ("model_args", "opt_args", "sched_args"):
            yield name, _is_plain(getattr(self, name), 8), "JSON of finite numbers, nested at most 8 deep"
        yield "lr", 0 < self.lr <= MAX_RATE, f"above 0, at most {MAX_RATE:,}"
        yield "momentum", 0 <= self.momentum < 1, "0 up to, but not including, 1"
        yield "warmup_epochs", 0 <= self.warmup_epochs < self.epochs, f"0 to {self.epochs - 1}, fewer than epochs"
        yield "crop_scale", 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1, "low,high with 0 < low <= high <= 1"
        low, high = self.crop_ratio
        yield "crop_ratio", 0.01 <= low <= high <= 100, "low,high with 0.01 <= low <= high <= 100"
        yield "std", all(0.001 <= value <= 1000 for value in self.std), "three numbers from 0.001 to 1000"
        yield "mean", all(-1000 <= value <= 1000 for value in self.mean), "three numbers from -1000 to 1000"
        yield (
            "original_weight",
            self.original_weight == 0 or self.target != "original",
            "0 with target=original; it mixes the original label into another target",
        )
        yield "label_smoothing", 0 <= self.label_smoothing < 1, "0 up to, but not including, 1"
        yield "ema_decay", 0 <= self.ema_decay < 1, "0 up to, but not including, 1"
        yield "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of batch_size={self.batch_size}"
        yield "mixup_prob", self.cutmix_prob + self.mixup_prob <= 1, "at most 1 together with cutmix_prob"
        yield "mixing_off_epochs", 0 <= self.mixing_off_epochs <= self.epochs, f"0 to {self.epochs}"

    @property
    def pools_tail(self) -> bool:
        """Whether the targets take the probability mass outside the top K."""
        return self.fill == "tail" and self.target != "original"

    @property
    def needs_labels(self) -> bool:
        """Whether the targets take the dataset's own labels."""
        return self.target == "original" or self.original_weight > 0


def _is_plain(value: object, levels: int) -> bool:
    """Whether this is JSON, of finite numbers, nested no deeper; whatever walks through it later can use recursion."""
    if isinstance(value, dict):
        return levels > 0 and all(isinstance(k, str) and _is_plain(v, levels - 1) for k, v in value.items())
    if isinstance(value, list | tuple):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


# Settings from text and JSON: `--set key=value`, settings.json and what checkpoints hold.


# The result does not hang on these.
MAY_DIFFER = frozenset({"workers", "device", "log_interval", "checkpoint_interval", "keep_checkpoints"})
FIELD_TYPES: dict[str, Any] = get_type_hints(TrainSettings)


def with_overrides(settings: TrainSettings, assignments: Sequence[str]) -> TrainSettings:
    """Replace fields by texts such as `lr=0.1`, `crop_scale=0.25,1`, `flip=false`, `model_args={"drop_rate": 0.1}`.

    Raises:
        SettingsError: no such field, or a value that is not of the field's type or range.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise SettingsError(f"setting {brief(assignment)}: expected key=value, such as lr=0.1")
        _check_name(name)
        values[name] = _parse(name, text.strip())
    return replace(settings, **values)


def settings_to_json(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON values; `settings_from_json` reads them back."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def settings_from_json(values: object) -> TrainSettings:
    """Read what `settings_to_json` wrote, possibly edited or damaged since.

    Raises:
        SettingsError: not an object of exactly the settings' fields, each of its type.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"settings should be a JSON object, found {type(values).__name__}")
    for name in values:
        _check_name(str(name))
    if missing := sorted(FIELD_TYPES.keys() - values.keys()):
        raise SettingsError(f"settings without {', '.join(missing)}: damaged, or written by another release")
    checked: dict[str, Any] = {str(name): _from_json(str(name), value) for name, value in values.items()}
    return TrainSettings(**checked)


def settings_differences(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """Where settings that a run was started with part from those of now, both as JSON; some may differ."""
    for name in sorted((then.keys() | now.keys()) - MAY_DIFFER, key=str):
        if then.get(name) != now.get(name):
            yield f"{name}: {brief(then.get(name))} then, {brief(now.get(name))} now"


def _check_name(name: str) -> None:
    if name in FIELD_TYPES:
        return
    near = get_close_matches(name, FIELD_TYPES, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(FIELD_TYPES)}"
    raise SettingsError(f"no setting is called {brief(name)}; {hint}")


def _parse(name: str, text: str) -> object:
    """A field's value from the text after the equals sign."""
    kind = FIELD_TYPES[name]
    if kind is str or get_origin(kind) is Literal:
        return text
    if get_origin(kind) is tuple:
        return _from_json(name, [_number(name, part) for part in text.split(",")])
    if get_origin(kind) is dict or kind is bool:
        return _from_json(name, _json_value(name, text))
    number = _number(name, text)
    return _from_json(name, int(number) if kind is int and number.is_integer() else number)


def _json_value(name: str, text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong_type(name, text) from None


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _wrong_type(name, text) from None


def _from_json(name: str, value: object) -> object:
    """A field's value from a JSON value of its type."""
    kind = FIELD_TYPES[name]
    if get_origin(kind) is tuple:
        if isinstance(value, list) and len(value) == len(get_args(kind)) and all(map(_is_number, value)):
            return tuple(float(item) for item in value)
    elif kind is float:
        if isinstance(value, int | float) and _is_number(value):
            return float(value)
    elif type(value) is (str if get_origin(kind) is Literal else get_origin(kind) or kind):
        return value
    raise _wrong_type(name, value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _wrong_type(name: str, value: object) -> SettingsError:
    kind = FIELD_TYPES[name]
    if get_origin(kind) is tuple:
        expected = f"{len(get_args(kind))} numbers with commas between them"
    elif get_origin(kind) is dict:
        expected = 'a JSON object such as {"drop_rate": 0.1}'
    else:
        expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")
    return SettingsError(f"{name}={brief(value)}: expected {expected}")
