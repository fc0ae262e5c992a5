"""Settings of the annotator, checked at construction; this module does not import torch."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from store.errors import SettingsError
from store.format.schema import SCORE_STEP, is_score_step

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSettings:
    """The teacher and how it runs; None takes the value of timm's or the custom model's configuration."""

    name: str  # a timm model, or package.module:function that builds a custom model
    args: dict[str, Any] = field(default_factory=dict)  # for timm.create_model, or the function
    checkpoint: Path | None = None  # safetensors or PyTorch file; None downloads timm's weights
    num_classes: int | None = None
    input_size: tuple[int, int] | None = None  # height, width in pixels; cost grows with its area
    mean: tuple[float, float, float] | None = None  # of pixels in [0, 1]
    std: tuple[float, float, float] | None = None
    device: str = "auto"  # a GPU if there is one, else the CPU; or a device by torch's name
    local_rank: int = 0  # number of the GPU that `auto` takes, modulo their number
    precision: Precision = "float32"  # of the features; head and top-k are always float32
    allow_disagreement: bool = False  # of a custom model's cells with its own logits
    compiled: bool = False  # by torch.compile: the first batch takes minutes, the others are faster


@dataclass(frozen=True, slots=True)
class BadLimit:
    """The undecodable images that one shard may have: a number, or a share of its images.

    Raises:
        SettingsError: a number below 0, or a share above 100 %.
    """

    number: float  # of images, or percent of them
    is_share: bool = False

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.number >= 0 or (self.is_share and self.number > 100):
            raise SettingsError(f"max-bad must be at least 0, and a share at most 100%, not {self}")

    @classmethod
    def parse(cls, text: str) -> "BadLimit":
        """Read a number such as 100, or a share such as 1%.

        Raises:
            SettingsError: any other text.
        """
        match = re.fullmatch(r"([0-9]{1,9})|([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%", text)
        if match is None:
            raise SettingsError(f"max-bad should be a number such as 100, or a share such as 1%, not {text!r:.40}")
        return cls(float(match[1] or match[2]), is_share=match[1] is None)

    def __str__(self) -> str:
        return f"{self.number:g}%" if self.is_share else f"{self.number:.0f}"

    def allows(self, bad: int, images: int) -> bool:
        """Whether so many undecodable images are few enough in a shard of so many images."""
        return bad <= (self.number * images / 100 if self.is_share else self.number)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """Sizes and limits of a run; apart from top_k and score_step none of them changes a label beyond rounding.

    Raises:
        SettingsError: a number is too small.
    """

    top_k: int = 5  # kept classes per cell; the store grows with it
    score_step: float | None = None  # scores are rounded to multiples of it, a power of two; the store shrinks with it
    batch_size: int = 32  # images per forward pass
    workers: int = 2  # decoding processes; 0 decodes in the main process
    max_bad: BadLimit = BadLimit(100)  # a shard with more undecodable images fails
    overwrite: bool = False  # annotate again shards that have labels

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, low in (("top_k", 1), ("batch_size", 1), ("workers", 0)):
            if getattr(self, name) < low:
                raise SettingsError(f"{name.replace('_', '-')} must be at least {low}, not {getattr(self, name)}")
        if self.score_step is not None and not is_score_step(self.score_step):
            raise SettingsError(f"score-step {SCORE_STEP}, not {self.score_step}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run: the same for one process, several ranks or a cluster."""

    labels: Path | str  # the store, a path or URL
    teacher: TeacherSettings
    settings: RunSettings
    class_names: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSettings:
    """The Ray cluster and the resources of a run on it.

    Raises:
        SettingsError: fewer than one actor, or a number of GPUs that Ray cannot assign.
    """

    address: str | None = None  # None: the cluster of RAY_ADDRESS or of this machine, started if there is none
    actors: int | None = None  # None: as many as the cluster's GPUs allow at the start, or one
    gpus_per_actor: float | None = None  # may be a fraction; None: 1 if the cluster has GPUs at the start, else 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.actors is not None and self.actors < 1:
            raise SettingsError(f"actors must be at least 1, not {self.actors}")
        gpus = self.gpus_per_actor
        if gpus is not None and not (gpus == 0 or 0.01 <= gpus <= 1 or (1 <= gpus <= 64 and gpus == int(gpus))):
            raise SettingsError(f"gpus-per-actor must be 0, 0.01 to 1, or a whole number up to 64, not {gpus}")
