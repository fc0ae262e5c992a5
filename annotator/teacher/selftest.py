"""The self-test of a teacher, run before any image is read: its cells must be predictions of their part of the image.

Applying a head cell by cell is meaningful only if the network's own prediction is made from its cells alone, in the
same way at every position; and a map can be used only if its cells are ordered as the image's parts are. Half of
today's architectures fail this in some way under the usual conversions, without an error.

Shape letters: B batch, N cells of a batch, D features, C classes, H W cells (y, x).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotator.teacher.classifier import TimmClassifier, unsupported
from annotator.teacher.teacher import Teacher
from store.errors import TeacherError
from store.text import first_line

TOLERANCE = 1e-3  # largest difference, relative to the largest logit
REPEAT_TOLERANCE = 0.05  # the same for repeated features; rounding adds up in deep networks of random weights
LEAST_CORRELATION = 0.8  # of a custom model's cells with its own logits; a class token's head on patches had 0.4
MAX_RATIO = 1.5  # of the change in another corner to that in the corner where the image changed


@dataclass(frozen=True, kw_only=True, slots=True)
class SelfTest:
    """Result of the self-test."""

    map_size: tuple[int, int]  # H, W cells
    correlation: float | None  # of the cells' mean with the network's own logits; None if it has no forward
    linear: bool  # whether they are equal, up to rounding

    @property
    def disagrees(self) -> bool:
        """Whether the cells predict something else than the network."""
        return self.correlation is not None and not self.linear and self.correlation < LEAST_CORRELATION

    def describe(self) -> str:
        """The head in a few words, as recorded with every group."""
        if self.linear:
            return "linear head"
        if self.correlation is None:
            return "head not compared with the network's logits, since the module has no forward"
        return f"head not linear: its mean over the cells correlates {self.correlation:.3f} with the network's logits"


@torch.inference_mode()
def check_teacher(teacher: Teacher) -> SelfTest:
    """Check that cells are predictions of their part of the image.

    Raises:
        TeacherError: the architecture is not supported; the message gives the reason.
    """
    images_B3hw = _images(*teacher.preprocessing.input_size).to(teacher.device)
    features_BDHW = _features(teacher, images_B3hw)
    map_size = features_BDHW.shape[2], features_BDHW.shape[3]
    if map_size == (1, 1):
        raise unsupported(
            teacher.name,
            f"{teacher.preprocessing.input_size} pixels give it a single cell, so its map has no positions",
        )
    _check_positions(features_BDHW, teacher.name)
    _check_repeatable(teacher, images_B3hw[:1], features_BDHW[:1])
    # Cells very different from each other: on real features a head may look more linear than it is.
    apart_BDHW = 5 * torch.randn(features_BDHW[:2].shape, generator=_generator()).to(teacher.device)
    _check_single_cells(teacher, apart_BDHW)
    own_BC = _own_logits(teacher, images_B3hw)
    if own_BC is None:
        return SelfTest(map_size=map_size, correlation=None, linear=False)
    linear = _difference(teacher.head(features_BDHW).mean(dim=(1, 2)), own_BC) <= TOLERANCE
    if isinstance(teacher.classifier, TimmClassifier):
        _check_own_head(teacher, teacher.classifier, features_BDHW, apart_BDHW, own_BC)
        pooled_BC = teacher.classifier.pooled(apart_BDHW)
        linear = linear and _difference(teacher.head(apart_BDHW).mean(dim=(1, 2)), pooled_BC) <= TOLERANCE
    correlation = _correlation(teacher, features_BDHW, own_BC)
    found = SelfTest(map_size=map_size, correlation=correlation, linear=linear)
    is_custom = not isinstance(teacher.classifier, TimmClassifier)
    if is_custom and found.disagrees and not teacher.allow_disagreement:
        raise unsupported(
            teacher.name,
            f"its cells disagree with its forward: their mean correlates {correlation:.3f} with its own logits, and "
            f"{LEAST_CORRELATION:g} is the least; --allow-disagreement takes the cells as they are",
        )
    return found


def _images(height: int, width: int) -> Tensor:
    """(3, 3, h, w): an image of soft colours, and copies with another upper right and another lower left corner."""
    soft = torch.randn(2, 3, 6, 6, generator=_generator())
    image, other = F.interpolate(soft, (height, width), mode="bilinear")
    upper, lower = image.clone(), image.clone()
    upper[:, : height // 3, -(width // 3) :] = other[:, : height // 3, -(width // 3) :]
    lower[:, -(height // 3) :, : width // 3] = other[:, -(height // 3) :, : width // 3]
    return torch.stack([image, upper, lower])


def _features(teacher: Teacher, images_B3hw: Tensor) -> Tensor:
    """Features in float32 for any precision of the run, because the architecture is tested."""
    try:
        features = teacher.classifier.features(images_B3hw)
    except TeacherError:
        raise
    except Exception as error:  # each architecture fails in its own way at other sizes
        raise TeacherError(
            f"teacher {teacher.name!r} does not run at {teacher.preprocessing.input_size} pixels: {first_line(error)}"
        ) from error
    if not isinstance(features, Tensor) or features.dim() != 4 or len(features) != len(images_B3hw):
        raise unsupported(teacher.name, "its features are not of the shape (B, D, H, W)")
    if not features.is_floating_point():
        raise unsupported(teacher.name, f"its features are {features.dtype}, expected floating point numbers")
    if not torch.isfinite(features).all():
        raise TeacherError(f"teacher {teacher.name!r} gives features that are not finite; check its weights")
    return features


def _check_positions(features_BDHW: Tensor, name: str) -> None:
    """Refuse a map that changes elsewhere than the image did: its cells are swapped, mirrored or shuffled."""
    height, width = features_BDHW.shape[2:]
    top, left = max(height // 2, 1), max(width // 2, 1)
    image, upper, lower = features_BDHW
    for other, is_top, where in ((upper, True, "upper right"), (lower, False, "lower left")):
        change_HW = (other - image).norm(dim=0)
        corners = {
            (is_row_top, is_left): change_HW[
                slice(0, top) if is_row_top else slice(height - top, height),
                slice(0, left) if is_left else slice(width - left, width),
            ].mean()
            for is_row_top in (True, False)
            for is_left in (True, False)
        }
        if not max(corners.values()) <= MAX_RATIO * corners[is_top, not is_top]:
            raise unsupported(
                name, f"its cells are not ordered as the image is: the {where} corner changes another cell"
            )


def _check_repeatable(teacher: Teacher, images_B3hw: Tensor, before_BDHW: Tensor) -> None:
    """Check that the same image alone gives the same features, finite in the run's precision."""
    with teacher.autocast():
        features = teacher.classifier.features(images_B3hw)
    if not torch.isfinite(features).all():
        raise TeacherError(
            f"teacher {teacher.name!r} gives features that are not finite in {teacher.precision}; "
            "try --precision float32"
        )
    if teacher.precision == "float32" and not _difference(features, before_BDHW) <= REPEAT_TOLERANCE:
        raise unsupported(teacher.name, "its features of the same image differ from one time to the next")


def _check_single_cells(teacher: Teacher, apart_BDHW: Tensor) -> None:
    """Check that the head's logits for a cell do not depend on other cells."""
    try:
        logits_BHWC = teacher.head(apart_BDHW)
    except Exception as error:  # each architecture fails in its own way
        raise unsupported(teacher.name, f"its head does not run on single cells: {first_line(error)}") from error
    if not torch.isfinite(logits_BHWC).all():
        raise TeacherError(f"teacher {teacher.name!r} gives logits that are not finite; check its weights")
    if logits_BHWC.min() >= 0 and ((logits_BHWC.sum(dim=-1) - 1).abs() < TOLERANCE).all():
        raise unsupported(teacher.name, "its head gives probabilities that sum to 1, not logits: leave its softmax out")
    if logits_BHWC.shape[-1] != teacher.num_classes:
        raise unsupported(
            teacher.name, f"its head gives {logits_BHWC.shape[-1]} logits for {teacher.num_classes} classes"
        )
    # A corner, so that a head that swaps the axes does not pass.
    corner = teacher.head(apart_BDHW[:1, :, :1, -1:])[:, 0, 0]
    _compare(logits_BHWC[:1, 0, -1], corner, "a cell of the map differs from the same cell alone", teacher.name)


def _check_own_head(
    teacher: Teacher, classifier: TimmClassifier, features_BDHW: Tensor, apart_BDHW: Tensor, own_BC: Tensor
) -> None:
    """Check that the network's prediction is its head's on these cells, in the same way for all positions."""
    _compare(
        classifier.pooled(features_BDHW),
        own_BC,
        "its prediction is not made from its cells alone, but from a class token or the like: its own logits differ",
        teacher.name,
    )
    equal_BDHW = apart_BDHW[:, :, :1, :1].expand_as(apart_BDHW)
    _compare(
        classifier.pooled(equal_BDHW),
        teacher.head(apart_BDHW[:, :, :1, :1])[:, 0, 0],
        "its head treats cells differently by position: the logits of a map of equal cells differ from one cell's",
        teacher.name,
    )


def _own_logits(teacher: Teacher, images_B3hw: Tensor) -> Tensor | None:
    """(B, C) logits of whole images, None if the module has no `forward`."""
    if type(teacher.network).forward is nn.Module.forward:
        return None
    own = teacher.network(images_B3hw)
    if not isinstance(own, Tensor) or own.shape != (len(images_B3hw), teacher.num_classes):
        raise unsupported(teacher.name, f"its forward gives no tensor of (B, {teacher.num_classes}) logits")
    if not torch.isfinite(own).all():
        raise TeacherError(f"teacher {teacher.name!r} gives logits that are not finite; check its weights")
    return own.float()


def _correlation(teacher: Teacher, features_BDHW: Tensor, own_BC: Tensor) -> float:
    """Of the cells' mean with the network's logits: over the classes, averaged over the images."""
    mean_BC = teacher.head(features_BDHW).mean(dim=(1, 2))
    return F.cosine_similarity(mean_BC - mean_BC.mean(1, True), own_BC - own_BC.mean(1, True)).mean().item()


def _difference(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()


def _compare(found: Tensor, expected: Tensor, claim: str, name: str) -> None:
    difference = _difference(found, expected)
    if not difference <= TOLERANCE:
        raise unsupported(name, f"{claim} by {difference:.2g} of the largest (allowed {TOLERANCE:g})")


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
