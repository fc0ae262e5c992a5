"""All settings of one training run, checked once; afterwards they are trusted."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from store.errors import SettingsError
from trainer.kinds import Device, Fill, Interpolation, Precision, Schedule, TargetKind

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
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN  # per channel, of pixels scaled to [0, 1]
    std: tuple[float, float, float] = IMAGENET_STD
    val_size: int = 224  # side of a validation image, pixels
    val_crop_pct: float = 0.875  # the share of the resized image's shorter side that is kept
    epochs: int = 300
    batch_size: int = 1024  # a multiple of 64 lets up to 64 workers share the reading
    opt: str = "sgd"  # timm's name; "sgd" has Nesterov momentum
    lr: float = 0.1  # for the whole batch; not scaled by its size
    momentum: float = 0.9
    weight_decay: float = 1e-4  # not applied to biases and norms
    sched: Schedule = "cosine"
    warmup_epochs: int = 5  # part of `epochs`
    warmup_lr: float = 1e-4
    min_lr: float = 0.0
    target: TargetKind = "relabel"
    fill: Fill = "zero"
    original_weight: float = 0.0  # share of the original label mixed into the target
    label_smoothing: float = 0.0  # of the original label
    seed: int = 0
    workers: int = 4  # processes that read and decode; 0 does it in the main process
    device: Device = "auto"  # cuda if there is one
    precision: Precision = "auto"  # bfloat16 autocast on cuda, float32 on the CPU
    log_interval: int = 50  # steps between two reports; each waits for the device once

    def __post_init__(self) -> None:
        """Check every field."""
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingsError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        for name, valid, expected in self._rules():
            if not valid:
                raise SettingsError(f"{name}={getattr(self, name)!r}: expected {expected}")

    def _rules(self) -> Iterator[tuple[str, bool, str]]:
        """Field, whether its value is valid, what it may be; written so that NaN fails."""
        for name in ("image_size", "val_size", "epochs", "batch_size", "log_interval"):
            yield name, getattr(self, name) >= 1, "1 or more"
        for name in ("warmup_lr", "min_lr", "weight_decay"):
            yield name, 0 <= getattr(self, name) < float("inf"), "a finite number, 0 or more"
        yield "model", bool(self.model), "a timm model's name"
        yield "lr", 0 < self.lr < float("inf"), "a finite number above 0"
        yield "momentum", 0 <= self.momentum < 1, "0 up to, but not including, 1"
        yield "warmup_epochs", 0 <= self.warmup_epochs < self.epochs, f"0 to {self.epochs - 1}, fewer than epochs"
        yield "crop_scale", 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1, "low,high with 0 < low <= high <= 1"
        low, high = self.crop_ratio
        yield "crop_ratio", 0 < low <= high < float("inf"), "low,high with 0 < low <= high"
        yield "std", all(0 < value < float("inf") for value in self.std), "three numbers above 0"
        yield "mean", all(abs(value) < float("inf") for value in self.mean), "three finite numbers"
        yield "val_crop_pct", 0 < self.val_crop_pct <= 1, "above 0, at most 1"
        yield "original_weight", 0 <= self.original_weight <= 1, "0 to 1"
        yield (
            "original_weight",
            self.original_weight == 0 or self.target != "original",
            "0 with target=original; it mixes the original label into another target",
        )
        yield "label_smoothing", 0 <= self.label_smoothing < 1, "0 up to, but not including, 1"
        yield "seed", 0 <= self.seed < 2**32, "0 to 4294967295"
        yield "workers", self.workers >= 0, "0 or more"

    @property
    def needs_original(self) -> bool:
        """Whether the targets take the dataset's own labels."""
        return self.target == "original" or self.original_weight > 0
