"""The teacher: a classifier made fully convolutional, its own head applied at every cell.

Source: ReLabel (CVPR 2021), section 3.1. Shape letters: B batch, D features, C classes, K ranks, H W cells (y, x).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import split_model_name_tag
from torch import Tensor, nn

from annotator.topk import fits_float16, keep_top_k
from annotator.weights import build_network, digest_network
from store.errors import SettingsError, TeacherError
from store.schema import TeacherIdentity, View

Precision = Literal["float32", "bfloat16", "float16"]
LOGITS_AT_ONCE = 1 << 26  # bounds the head's memory for large class counts: 256 MB of float32


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSettings:
    """Which teacher to build; None takes timm's value for the architecture."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)  # for timm.create_model
    checkpoint: Path | None = None  # safetensors or PyTorch file; None downloads timm's weights
    num_classes: int | None = None
    input_size: tuple[int, int] | None = None  # height, width in pixels; cost grows with its area
    mean: tuple[float, float, float] | None = None  # of pixels in [0, 1]
    std: tuple[float, float, float] | None = None


class Teacher:
    """A timm classifier, its features and its head.

    Raises:
        TeacherError: it cannot be built or loaded.
    """

    def __init__(self, settings: TeacherSettings, *, device: torch.device, precision: Precision) -> None:
        network = build_network(settings.name, settings.args, settings.num_classes, settings.checkpoint)
        architecture = split_model_name_tag(settings.name)[0]
        self.name = settings.name
        self.num_classes = int(network.num_classes)  # type: ignore[arg-type]
        arguments = {**settings.args, "num_classes": self.num_classes}
        digest = digest_network(architecture, arguments, network)
        self.identity = TeacherIdentity(architecture=architecture, arguments=arguments, digest=digest)
        self.view = _view(settings, network)
        self.network, self.device, self.precision = network.to(device), device, precision
        self._mean = torch.tensor(self.view.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(self.view.std, device=device).view(3, 1, 1)

    def provenance(self) -> dict[str, str]:
        """What the labels owe to this machine: versions, precision, device; kept with every group."""
        is_cuda = self.device.type == "cuda"
        return {
            "timm": timm.__version__,
            "torch": str(torch.__version__),
            "precision": self.precision,
            "device": torch.cuda.get_device_name(self.device) if is_cuda else self.device.type,
        }

    def normalise(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) uint8 pixels to normalised float32 on the teacher's device."""
        pixels = pixels_B3hw.to(self.device, non_blocking=True).float() / 255
        return (pixels - self._mean) / self._std

    def features(self, images_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images to (B, D, H, W) float32 features."""
        low = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision), enabled=low):
            features: Tensor = self.network.forward_features(images_B3hw)  # type: ignore[operator]
        return features.float()

    def head(self, features_BDHW: Tensor) -> Tensor:
        """The network's own head at every cell: (B, D, H, W) features to (B, H, W, C) float32 logits."""
        batch, depth, height, width = features_BDHW.shape
        cells = features_BDHW.permute(0, 2, 3, 1).reshape(-1, depth, 1, 1)
        logits: Tensor = self.network.forward_head(cells)  # type: ignore[operator]
        return logits.float().view(batch, height, width, -1)

    @torch.inference_mode()
    def label_maps(self, pixels_B3hw: Tensor, top_k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Label maps of resized images.

        Args:
            pixels_B3hw: (B, 3, h, w) uint8.
            top_k: K.

        Returns:
            On the CPU: classes (B, K, H, W) int64, scores (B, K, H, W) float16, tail (B, H, W) float16.

        Raises:
            TeacherError: logits that are not finite, or beyond what float16 holds; or no memory for the batch.
        """
        try:
            features = self.features(self.normalise(pixels_B3hw))
            size = features.shape[2] * features.shape[3] * self.num_classes
            parts = [
                keep_top_k(self.head(part), top_k) for part in torch.split(features, max(1, LOGITS_AT_ONCE // size))
            ]
        except torch.OutOfMemoryError as error:
            raise TeacherError("the teacher's device ran out of memory; lower --batch-size") from error
        classes, scores, tail = (torch.cat(part) for part in zip(*parts, strict=True))
        if not fits_float16(scores):
            raise TeacherError("the teacher gave logits that are NaN or beyond 65,504; try --precision float32")
        return classes.cpu(), scores.half().cpu(), tail.half().cpu()


def pick_device(name: str) -> torch.device:
    """`auto`, or a device by torch's name, checked to work.

    Raises:
        SettingsError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingsError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _view(settings: TeacherSettings, network: nn.Module) -> View:
    """The teacher's own preprocessing, with the whole image squashed to its input size."""
    config = resolve_model_data_config(network)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise TeacherError(f"teacher {settings.name!r} takes {channels} channels; images have 3")
    mean, std = settings.mean or config["mean"], settings.std or config["std"]
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise SettingsError(
            f"mean and std are of pixels in [0, 1] and std must be positive, not mean {mean}, std {std}"
        )
    return View(
        input_size=settings.input_size or (height, width),
        interpolation=config["interpolation"],
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
    )
