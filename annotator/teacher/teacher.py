"""The teacher: a classifier made fully convolutional, its own head applied at every cell.

Source: ReLabel (CVPR 2021), section 3.1. Shape letters: B batch, N cells of a batch, D features, C classes, K ranks,
H W cells (y, x).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from timm.models import split_model_name_tag
from torch import Tensor

from annotator.settings import TeacherSettings
from annotator.teacher.build import build_custom, build_timm, is_custom, one_line, set_input_size
from annotator.teacher.classifier import Classifier, TimmClassifier
from annotator.teacher.preprocessing import make_preprocessing, own_config, timm_config
from annotator.teacher.topk import fits_float16, keep_top_k
from annotator.teacher.weights import digest_network
from store.errors import SettingsError, TeacherError
from store.format.schema import TeacherIdentity
from store.processes import keep_freed_memory
from store.text import first_line

# To the device and back without waiting: while it computes one batch, the next one is on its way.
#
# Shape letters: B batch, K ranks, H W cells (y, x).


Maps = tuple[Tensor, Tensor, Tensor]  # classes (B, K, H, W) int32, scores (B, K, H, W) and tail (B, H, W) float16


@dataclass(frozen=True, slots=True)
class AsyncMaps:
    """Label maps that a device is still computing."""

    maps: Maps  # in host memory, valid once `done` is
    fits: Tensor  # () bool: whether float16 holds every score
    done: torch.cuda.Event | None  # None where there is nothing to wait for

    def wait(self) -> Maps:
        """The label maps, in host memory.

        Raises:
            TeacherError: logits that are not finite, or beyond what float16 holds.
        """
        if self.done is not None:
            self.done.synchronize()
        if not self.fits:
            raise TeacherError("the teacher gave logits that are NaN or beyond 65,504; try --precision float32")
        return self.maps


def send_to_host(classes: Tensor, scores: Tensor, tail_logsumexp: Tensor, fits: Tensor) -> AsyncMaps:
    """Start copies to page-locked host memory, behind what the device still has to compute."""
    if classes.device.type != "cuda":
        return AsyncMaps((classes.cpu(), scores.cpu(), tail_logsumexp.cpu()), fits.cpu(), None)
    parts = [_page_locked(part) for part in (classes, scores, tail_logsumexp, fits)]
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(classes.device))
    return AsyncMaps((parts[0], parts[1], parts[2]), parts[3], done)


def copy_to_device(batch: Tensor, device: torch.device) -> Tensor:
    """A copy that runs beside the computation before it, if the batch lies in page-locked memory."""
    if device.type != "cuda":
        return batch.to(device)
    stream = _copies(device)
    with torch.cuda.stream(stream):
        there = batch.to(device, non_blocking=True)
    current = torch.cuda.current_stream(device)
    current.wait_stream(stream)
    there.record_stream(current)  # or its memory could be given away while it is read
    return there


def _page_locked(part: Tensor) -> Tensor:
    return torch.empty(part.shape, dtype=part.dtype, pin_memory=True).copy_(part, non_blocking=True)


@cache
def _copies(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


LOGITS_AT_ONCE = 1 << 26  # bounds the head's memory for large class counts: 256 MB of float32


class Teacher:
    """A classifier on its device, and how its images are prepared.

    Raises:
        TeacherError: it cannot be built or loaded.
        SettingsError: there is no such device.
    """

    def __init__(self, settings: TeacherSettings) -> None:
        self.name, self.device = settings.name, pick_device(settings.device, settings.local_rank)
        if self.device.type == "cuda":  # page-locked memory and events belong to the current device
            torch.cuda.set_device(self.device)
        self.precision, self.compiled = settings.precision, settings.compiled
        own = is_custom(settings.name)
        if own:
            network = build_custom(settings.name, settings.args, settings.checkpoint)
        else:
            network = build_timm(settings.name, settings.args, settings.num_classes, settings.checkpoint)
        self.network = network
        with one_line(f"teacher {self.name!r} cannot be put into evaluation mode"):
            network.eval()
            network.requires_grad_(False)
        self._map_size: tuple[int, int] | None = None
        chosen = {key: getattr(settings, key) for key in ("input_size", "mean", "std")}
        self.preprocessing = make_preprocessing(self.name, own_config(network) if own else timm_config(network), chosen)
        self.classifier: Classifier = network if own else TimmClassifier(network, self.name)  # type: ignore[assignment]
        self.num_classes = self._count_classes(settings.num_classes) if own else int(network.num_classes)  # type: ignore[arg-type]
        with one_line(f"teacher {self.name!r} has weights that cannot be told from others"):
            self.identity = self._identity(self.name if own else split_model_name_tag(self.name)[0], settings.args)
        if settings.input_size is not None and not own:
            set_input_size(network, self.name, settings.input_size)
        # Convolutions are fastest in this layout, and images are decoded in it.
        network.to(self.device).to(memory_format=torch.channels_last)
        if self.device.type == "cpu":
            keep_freed_memory()
        self._features = torch.compile(self.classifier.features) if self.compiled else self.classifier.features
        mean, std = torch.tensor((self.preprocessing.mean, self.preprocessing.std), device=self.device).view(2, 3, 1, 1)
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def provenance(self) -> dict[str, str]:
        """What the labels owe to this machine: versions, precision, device; kept with every group."""
        is_cuda = self.device.type == "cuda"
        return {
            "timm": timm.__version__,
            "torch": str(torch.__version__),
            "precision": self.precision,
            "compiled": str(self.compiled).lower(),
            "device": torch.cuda.get_device_name(self.device) if is_cuda else self.device.type,
        }

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which features are computed."""
        low = self.precision != "float32"
        return torch.autocast(self.device.type, getattr(torch, self.precision), enabled=low)

    def normalise(self, pixels_B3hw: Tensor) -> Tensor:
        """(B, 3, h, w) uint8 pixels to normalised float32 on the teacher's device."""
        # (pixels / 255 - mean) / std, passing over the images twice instead of four times.
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
        """Begin the label maps of resized images; on a GPU it returns before they are there.

        Args:
            pixels_B3hw: (B, 3, h, w) uint8.
            top_k: K.

        Raises:
            TeacherError: no memory for the batch.
        """
        hint = "; leave out --compile" if self.compiled else ""
        try:
            with one_line(f"teacher {self.name!r} fails on a batch of {len(pixels_B3hw)} images", hint):
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
                f"teacher {self.name!r} gives {found[0]} maps of {found[1]} cells for {len(pixels_B3hw)} images, which "
                f"had {self._map_size} in its self-test"
            )
        return send_to_host(classes.int(), scores.half(), tail_logsumexp.half(), fits_float16(scores))

    def expect(self, map_size: tuple[int, int]) -> None:
        """Refuse maps of another size (H, W) from now on."""
        self._map_size = map_size

    def label_maps(self, pixels_B3hw: Tensor, top_k: int) -> Maps:
        """Label maps of resized images, as `start` and `AsyncMaps.wait` give them."""
        return self.start(pixels_B3hw, top_k).wait()

    def _identity(self, architecture: str, args: dict[str, Any]) -> TeacherIdentity:
        arguments = {**args, "num_classes": self.num_classes}
        digest = digest_network(architecture, arguments, self.network)
        return TeacherIdentity(architecture=architecture, arguments=arguments, digest=digest)

    @torch.inference_mode()
    def _count_classes(self, expected: int | None) -> int:
        """The classes of a module that need not say how many it has."""
        with one_line(f"teacher {self.name!r} does not run at {self.preprocessing.input_size} pixels"):
            features_BDHW = self.classifier.features(torch.zeros(1, 3, *self.preprocessing.input_size))
            logits_NC = self.classifier.head(features_BDHW.flatten(2).transpose(1, 2)[0])
            found = int(logits_NC.shape[1])
        if expected not in (None, found):
            raise TeacherError(f"teacher {self.name!r} has {found} classes, not the {expected} of --num-classes")
        return found


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto`, or a device by torch's name, checked to work.

    Args:
        name: `auto` takes a GPU if there is one.
        local_rank: which GPU that is, counted round.

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
    return probe.device  # with its number
