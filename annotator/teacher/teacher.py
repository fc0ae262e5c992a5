"""The teacher: a classifier made fully convolutional, its own head applied at every cell.

Source: ReLabel (CVPR 2021), section 3.1. Shape letters: B batch, N cells of a batch, D features, C classes,
K kept classes, h w pixels, H W cells (y, x).
"""

from contextlib import AbstractContextManager
from typing import Any

import timm
import torch
from timm.models import split_model_name_tag
from torch import Tensor

from annotator.settings import TeacherSettings
from annotator.teacher.build import (
    Built,
    build_custom,
    build_timm,
    is_custom_name,
    set_input_size,
    user_code_errors,
)
from annotator.teacher.classifier import Classifier, TimmClassifier
from annotator.teacher.copies import AsyncMaps, Maps, copy_to_device, send_to_host
from annotator.teacher.preprocessing import custom_config, make_preprocessing, timm_config
from annotator.teacher.source import source_digests
from annotator.teacher.topk import fits_float16, keep_top_k
from annotator.teacher.weights import digest_network
from store.errors import SettingsError, TeacherError
from store.format.schema import TeacherIdentity
from store.text import first_line

LOGITS_AT_ONCE = 1 << 26  # 256 MB of float32; bounds the head's memory for large class counts


class Teacher:
    """A classifier on its device, with its preprocessing.

    On a GPU, the device becomes the process's current one, where page-locked memory and events belong.

    Raises:
        TeacherError: it cannot be built or loaded.
        SettingsError: there is no such device.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self.name, self.device = settings.name, pick_device(settings.device, settings.local_rank)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        self.precision, self.compiled = settings.precision, settings.compiled
        self.allow_disagreement = settings.allow_disagreement
        is_custom = is_custom_name(settings.name)
        self.network, self.weights_origin = _build(settings)
        network = self.network
        with user_code_errors(f"teacher {self.name!r} cannot be put into evaluation mode"):
            network.eval()
            network.requires_grad_(False)
        self._map_size: tuple[int, int] | None = None
        chosen = {key: getattr(settings, key) for key in ("input_size", "mean", "std")}
        self.preprocessing = make_preprocessing(
            self.name, custom_config(network) if is_custom else timm_config(network), chosen
        )
        self.classifier: Classifier = network if is_custom else TimmClassifier(network, self.name)  # type: ignore[assignment]
        self.num_classes = self._count_classes(settings.num_classes) if is_custom else int(network.num_classes)  # type: ignore[arg-type]
        with user_code_errors(f"teacher {self.name!r} has weights that cannot be digested"):
            architecture = self.name if is_custom else split_model_name_tag(self.name)[0]
            sources = source_digests(self.name, network) if is_custom else {}
            self.identity = self._identity(architecture, {**settings.args, **sources})
        if settings.input_size is not None and not is_custom:
            set_input_size(network, self.name, settings.input_size)
        # Convolutions are fastest in this layout, and images are decoded in it.
        network.to(self.device).to(memory_format=torch.channels_last)
        self._features = torch.compile(self.classifier.features) if self.compiled else self.classifier.features
        mean, std = torch.tensor((self.preprocessing.mean, self.preprocessing.std), device=self.device).view(2, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def provenance(self) -> dict[str, str]:
        """Versions, precision, device and part of the checkpoint, which are recorded with every group."""
        is_cuda = self.device.type == "cuda"
        return {
            "timm": timm.__version__,
            "torch": str(torch.__version__),
            "precision": self.precision,
            "compiled": str(self.compiled).lower(),
            "device": torch.cuda.get_device_name(self.device) if is_cuda else self.device.type,
            **({"weights": self.weights_origin} if self.weights_origin else {}),
        }

    def autocast(self) -> AbstractContextManager[None]:
        """A context in which features are computed in the teacher's precision."""
        low = self.precision != "float32"
        return torch.autocast(self.device.type, getattr(torch, self.precision), enabled=low)

    def normalise(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) uint8 pixels to normalised float32 on the teacher's device."""
        # (pixels / 255 - mean) / std in two passes over the images instead of four.
        images_B3hw: Tensor = copy_to_device(pixels_B3hw, self.device) * self._scale
        return images_B3hw.add_(self._shift)

    def features(self, images_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) normalised images to (B, D, H, W) float32 features."""
        with self.autocast():
            return self._features(images_B3hw).float()

    def head(self, features_BDHW: Tensor) -> Tensor:
        """The network's own head at every cell: (B, D, H, W) features to (B, H, W, C) float32 logits."""
        batch, depth, height, width = features_BDHW.shape
        cells_ND = features_BDHW.permute(0, 2, 3, 1).reshape(-1, depth)
        logits_NC = self.classifier.head(cells_ND)
        if not logits_NC.is_floating_point() or logits_NC.shape != (len(cells_ND), self.num_classes):
            raise TeacherError(
                f"teacher {self.name!r}: its head gives {logits_NC.dtype} of the shape {tuple(logits_NC.shape)} for "
                f"{len(cells_ND)} cells, expected floating point logits of {self.num_classes} classes"
            )
        return logits_NC.float().view(batch, height, width, -1)

    @torch.inference_mode()
    def start(self, pixels_B3hw: Tensor, top_k: int) -> AsyncMaps:
        """Start to compute the label maps of resized images; on a GPU it returns before they are complete.

        Args:
            pixels_B3hw: (B, 3, h, w) uint8.
            top_k: K.

        Raises:
            TeacherError: the network fails, runs out of memory, or its maps do not have the expected size.
        """
        hint = "; leave out --compile" if self.compiled else ""
        try:
            with user_code_errors(f"teacher {self.name!r} fails on a batch of {len(pixels_B3hw)} images", hint):
                features = self.features(self.normalise(pixels_B3hw))
                size = features.shape[2] * features.shape[3] * self.num_classes
                parts = [
                    keep_top_k(self.head(part), top_k) for part in torch.split(features, max(1, LOGITS_AT_ONCE // size))
                ]
                classes, scores, tail_logsumexp = (torch.cat(part) for part in zip(*parts, strict=True))
        except torch.OutOfMemoryError as error:
            raise TeacherError("the teacher's device ran out of memory; lower --batch-size") from error
        found = (len(scores), tuple(scores.shape[2:]))
        if found != (len(pixels_B3hw), self._map_size or found[1]):
            raise TeacherError(
                f"teacher {self.name!r} gives {found[0]} maps of {found[1]} cells for {len(pixels_B3hw)} images; "
                f"in its self-test a map had {self._map_size}"
            )
        return send_to_host(classes.int(), scores.half(), tail_logsumexp.half(), fits_float16(scores))

    def expect(self, map_size: tuple[int, int]) -> None:
        """Refuse maps of another size than (H, W) from now on."""
        self._map_size = map_size

    def label_maps(self, pixels_B3hw: Tensor, top_k: int) -> Maps:
        """Label maps of (B, 3, h, w) uint8 pixels: `start`, then `AsyncMaps.wait`."""
        return self.start(pixels_B3hw, top_k).wait()

    def _identity(self, architecture: str, args: dict[str, Any]) -> TeacherIdentity:
        arguments = {**args, "num_classes": self.num_classes}
        digest = digest_network(architecture, arguments, self.network)
        return TeacherIdentity(architecture=architecture, arguments=arguments, digest=digest)

    @torch.inference_mode()
    def _count_classes(self, expected: int | None) -> int:
        """Count the classes of a custom model by running it on a blank image."""
        with user_code_errors(f"teacher {self.name!r} does not run at {self.preprocessing.input_size} pixels"):
            features_BDHW = self.classifier.features(torch.zeros(1, 3, *self.preprocessing.input_size))
            logits_NC = self.classifier.head(features_BDHW.flatten(2).transpose(1, 2)[0])
            found = int(logits_NC.shape[1])
        if expected not in (None, found):
            raise TeacherError(f"teacher {self.name!r} has {found} classes, not the {expected} of --num-classes")
        return found


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of that name, checked to work.

    Args:
        name: torch's name, or `auto` for a GPU if there is one, else the CPU.
        local_rank: number of the GPU that `auto` takes, modulo their number.

    Raises:
        SettingsError: there is no such device.
    """
    if name == "auto":
        name = f"cuda:{local_rank % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        probe = torch.empty(1, device=torch.device(name))
        probe.item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        raise SettingsError(f"device {name!r} cannot be used: {first_line(error)}") from error
    return probe.device  # with its index


def _build(settings: TeacherSettings) -> Built:
    if is_custom_name(settings.name):
        return build_custom(settings.name, settings.args, settings.checkpoint)
    return build_timm(settings.name, settings.args, settings.num_classes, settings.checkpoint)
