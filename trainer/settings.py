"""All settings of one training run: types, ranges and meanings, checked when a `TrainSettings` is made.

The checks, `--set key=value`, settings.json and the reference page docs/settings.md are all made from `SETTINGS`, which
describes every field.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from store.errors import SettingsError
from store.maps.types import TargetKind
from store.text import brief
from trainer.fields import Range, Setting, describe, setting, unexpected
from trainer.types import Device, Interpolation, Precision, Schedule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
MAX_RATE = 1_000_000  # far beyond any use, and far from where float32 ends

PIXELS, COUNT, STEPS = Range(1, 65_535), Range(1, 1_000_000), Range(1, 1_000_000_000)
FRACTION, BELOW_ONE = Range(0, 1), Range(0, 1, below=True)
RATE, BETA = Range(0, MAX_RATE), Range(0.01, 100)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSettings:
    """All that defines a run, besides its data. Every field can be given as `--set name=value`.

    Raises:
        SettingsError: a value of the wrong type or out of range; the message names the field and the values it takes.
    """

    model: str = field(metadata={"meaning": "the student, by timm's name"})
    model_args: dict[str, Any] = setting({}, 'for timm.create_model, such as {"output_stride": 16}')
    zero_init_last: bool = setting(
        True, "the last norm of each residual block starts at zero in timm's networks that do so; false: at one"
    )
    sync_norms: bool = setting(
        False, "batch norms use the images of all ranks (SyncBatchNorm, on GPUs only); false: each rank's own"
    )
    image_size: int = setting(224, "side of a training crop, pixels", PIXELS)
    crop_scale: tuple[float, float] = setting(
        (0.08, 1.0), "least and largest area of a random crop, as a fraction of the image's", Range(0, 1, above=True)
    )
    crop_ratio: tuple[float, float] = setting((3 / 4, 4 / 3), "least and largest width / height of a random crop", BETA)
    flip: bool = setting(True, "mirror half of the crops; false where left and right differ, as in digits")
    colour_jitter: float = setting(
        0.0, "brightness, contrast and saturation of each crop are multiplied by 1 - this to 1 + this", FRACTION
    )
    lighting: float = setting(
        0.0, "standard deviation of the noise along the principal axes of ImageNet's colours", Range(0, 10)
    )
    interpolation: Interpolation = setting("bilinear", "how crops and validation images are resized")
    mean: tuple[float, float, float] = setting(
        IMAGENET_MEAN, "mean of each channel, of pixels scaled to [0, 1]", Range(-1000, 1000)
    )
    std: tuple[float, float, float] = setting(
        IMAGENET_STD, "standard deviation of each channel, of pixels scaled to [0, 1]", Range(0.001, 1000)
    )
    val_size: int = setting(224, "side of a validation image, pixels", PIXELS)
    val_crop_pct: float = setting(
        0.875, "fraction of the resized validation image's shorter side that is kept", Range(0.01, 1)
    )
    epochs: int = setting(300, "passes over the training set", COUNT)
    batch_size: int = setting(1024, "crops of a batch, of all ranks together", COUNT)
    crops_per_image: int = setting(
        1, "crops of each decoded image in a batch (repeated augmentation); a divisor of batch_size", COUNT
    )
    accumulate: int = setting(
        1, "equal parts in which each rank computes its part of a batch, to need less memory", COUNT
    )
    opt: str = setting("sgd", "the optimiser, by timm's name; sgd has Nesterov momentum")
    opt_args: dict[str, Any] = setting({}, 'more arguments of the optimiser, such as {"eps": 1e-6} of adamw')
    lr: float = setting(
        0.1, "learning rate for the whole batch; not scaled by its size", Range(0, MAX_RATE, above=True)
    )
    momentum: float = setting(0.9, "of the optimiser, where it has one", BELOW_ONE)
    weight_decay: float = setting(1e-4, "of the weights, without biases and norms unless decay_all", RATE)
    decay_all: bool = setting(False, "apply weight_decay to biases and norms as well")
    clip_grad: float = setting(0.0, "largest norm of all gradients together; 0 clips nothing", RATE)
    sched: Schedule = setting("cosine", "the learning-rate schedule, by timm's name")
    sched_args: dict[str, Any] = setting({}, 'more arguments of the schedule, such as {"decay_epochs": 30} of step')
    warmup_epochs: int = setting(5, "part of `epochs`, and fewer", Range(0, 1_000_000))
    decay_after_warmup: bool = setting(
        False, "the schedule spans the epochs after the warm-up; false: all epochs, the warm-up replaces its beginning"
    )
    warmup_lr: float = setting(1e-4, "learning rate at the start of the warm-up", RATE)
    min_lr: float = setting(0.0, "learning rate at the end of the schedule", RATE)
    target: TargetKind = setting("relabel", "kind of training target (docs/pooling.md)")
    temperature: float = setting(
        1.0, "divides pooled logits before softmax; below 1 the target is sharper, above 1 flatter", BETA
    )
    original_weight: float = setting(
        0.0, "weight of the dataset's label mixed into the target; 0 with target=original", FRACTION
    )
    label_smoothing: float = setting(0.0, "of the dataset's label", BELOW_ONE)
    cutmix_prob: float = setting(0.0, "fraction of the batches that CutMix mixes", FRACTION)
    cutmix_alpha: float = setting(1.0, "of the Beta distribution of the area that is kept", BETA)
    mixup_prob: float = setting(
        0.0, "fraction of the batches that mixup mixes; at most 1 together with cutmix_prob", FRACTION
    )
    mixup_alpha: float = setting(0.2, "of the Beta distribution of the weight", BETA)
    mixing_off_epochs: int = setting(0, "last epochs, without CutMix and mixup; at most `epochs`", Range(0, 1_000_000))
    ema_decay: float = setting(
        0.0, "of the moving average of the weights, which is then what is evaluated; 0 keeps none", BELOW_ONE
    )
    seed: int = setting(0, "of everything that is drawn", Range(0, 2**32 - 1))
    workers: int = setting(4, "processes of each rank that read and decode; 0 reads in the main process", Range(0, 64))
    verify_images: bool = setting(
        False, "compare each image with its digest, so that changed bytes are never trained on; about 7 % of a decode"
    )
    device: Device = setting("auto", "auto: cuda if there is one")
    precision: Precision = setting("auto", "auto: bfloat16 autocast on cuda, float32 on the CPU")
    compiled: bool = setting(False, "use torch.compile: the first step takes minutes, the others less time")
    log_interval: int = setting(50, "steps between two reports; each waits for the device once", STEPS)
    checkpoint_interval: int = setting(
        0, "steps between two checkpoints within an epoch; 0: only at the ends of epochs", Range(0, 1_000_000_000)
    )
    keep_checkpoints: int = setting(2, "number of last checkpoints to keep, besides the best", Range(1, 1_000))

    def __post_init__(self) -> None:
        """Check every field, then those that depend on one another."""
        for name, described in SETTINGS.items():
            described.check(getattr(self, name))
        for name, valid, expected in self._relations():
            if not valid:
                raise unexpected(name, getattr(self, name), expected)

    def _relations(self) -> Iterator[tuple[str, bool, str]]:
        """Yield field, whether its value fits the other fields, and the values that would."""
        epochs = self.epochs
        yield "model", bool(self.model), "a timm model's name"
        most = "0" if epochs == 1 else f"0 to {epochs - 1}"
        yield "warmup_epochs", self.warmup_epochs < epochs, f"{most}, fewer than epochs={epochs}"
        yield "mixing_off_epochs", self.mixing_off_epochs <= epochs, f"0 to {epochs}"
        yield "accumulate", self.batch_size % self.accumulate == 0, f"a divisor of batch_size={self.batch_size}"
        yield (
            "crops_per_image",
            self.batch_size % self.crops_per_image == 0,
            f"a divisor of batch_size={self.batch_size}",
        )
        yield "mixup_prob", self.cutmix_prob + self.mixup_prob <= 1, "at most 1 together with cutmix_prob"
        yield (
            "original_weight",
            self.original_weight == 0 or self.target != "original",
            "0 with target=original; it mixes the dataset's label into another target",
        )

    @property
    def needs_labels(self) -> bool:
        """Whether the targets use the dataset's own labels."""
        return self.target == "original" or self.original_weight > 0


SETTINGS = describe(TrainSettings)
# A run may be resumed with other values of these; its result does not depend on them.
MAY_DIFFER = frozenset(
    {"workers", "device", "log_interval", "checkpoint_interval", "keep_checkpoints", "verify_images"}
)
# Settings that run folders and checkpoints of earlier releases lack, with the values that mean what was done then.
ADDED: Mapping[str, object] = {
    "zero_init_last": True,
    "sync_norms": False,
    "decay_all": False,
    "decay_after_warmup": False,
    "temperature": 1.0,
    "verify_images": False,
    "crops_per_image": 1,
}
# Settings of earlier releases, with the values whose meaning is now the only one.
RETIRED: Mapping[str, object] = {"fill": "zero"}


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
        values[name] = _described(name).parse(text.strip())
    return replace(settings, **values)


def settings_to_json(settings: TrainSettings) -> dict[str, Any]:
    """The settings as JSON values; `settings_from_json` reads them back."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values


def settings_from_json(values: object) -> TrainSettings:
    """Read what `settings_to_json` wrote, in this release or an earlier one, possibly edited or damaged since.

    Raises:
        SettingsError: not an object of exactly the settings' fields, each of its type and range; `ADDED` may be absent.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"settings should be a JSON object, found {type(values).__name__}")
    values = of_this_release(values)
    if gone := sorted(RETIRED.keys() & values.keys()):
        raise SettingsError(
            f"{gone[0]}={brief(values[gone[0]])} is a setting of an earlier release, which this one has not; "
            f"only {gone[0]}={RETIRED[gone[0]]} means the same here"
        )
    read: dict[str, Any] = {str(name): _described(str(name)).from_json(value) for name, value in values.items()}
    if missing := sorted(SETTINGS.keys() - read.keys()):
        raise SettingsError(f"settings without {', '.join(missing)}: damaged, or written by another release")
    return TrainSettings(**read)


def without_retired(values: Mapping[str, object]) -> dict[str, object]:
    """Settings as JSON without those of earlier releases, none of which concerns a trained student."""
    return {name: value for name, value in values.items() if name not in RETIRED}


def of_this_release(values: Mapping[str, object]) -> dict[str, object]:
    """Settings as JSON, perhaps of an earlier release, with this release's fields where these mean the same."""
    kept = {name: value for name, value in values.items() if name not in RETIRED or value != RETIRED[name]}
    return {**ADDED, **kept}


def settings_differences(then: Mapping[str, object], now: Mapping[str, object]) -> Iterator[str]:
    """Yield the differences between a run's settings at its start and now, both as JSON, but for `MAY_DIFFER`.

    Those of an earlier release are compared as what they mean in this one.
    """
    then, now = of_this_release(then), of_this_release(now)
    for name in sorted((then.keys() | now.keys()) - MAY_DIFFER, key=str):
        if then.get(name) != now.get(name):
            yield f"{name}: {brief(then.get(name))} then, {brief(now.get(name))} now"


def near_names(name: str, known: Sequence[str]) -> str:
    """A hint for an unknown name: the nearest known ones, or all of them."""
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    return f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known)}"


def _described(name: str) -> Setting:
    if name not in SETTINGS:
        near = get_close_matches(name, SETTINGS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`relabel-train settings` lists them"
        raise SettingsError(f"no setting is called {brief(name)}; {hint}")
    return SETTINGS[name]
