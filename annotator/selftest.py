"""The self-test that a teacher passes before any image is read.

Applying a head cell by cell is meaningful only if pooling the cells gives back the network's own prediction; half of
today's architectures break that in one way or another, and none of them says so.

Shape letters: B batch, D features, C classes, H W cells (y, x).
"""

import torch
from torch import Tensor

from annotator.teacher import Teacher
from store.errors import TeacherError

TOLERANCE = 1e-3  # largest difference, relative to the largest logit


@torch.inference_mode()
def check_teacher(teacher: Teacher) -> tuple[int, int]:
    """Check that cells are predictions: on one cell the head's own, on average the network's.

    Returns:
        The size H, W of the teacher's label maps.

    Raises:
        TeacherError: the architecture is not supported; the message says why.
    """
    height, width = teacher.view.input_size
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, height, width, generator=generator).to(teacher.device)
    features = _features(teacher, image)
    own = teacher.network(image)
    if not torch.isfinite(own).all():
        raise TeacherError(
            f"teacher {teacher.name!r} gives logits that are not finite on random pixels; check its weights"
        )
    # A corner, so that a map with its axes swapped does not pass; the means below cannot tell.
    corner = _own_head(teacher, features[:, :, :1, -1:])
    _compare(teacher.head(features)[:, 0, -1], corner, "a cell of the map", teacher.name)
    # Cells far apart from each other: on real features a head may look more linear than it is.
    apart = 5 * torch.randn(features.shape, generator=generator).to(teacher.device)
    _compare(
        teacher.head(apart).mean(dim=(1, 2)), _own_head(teacher, apart), "the mean over random cells", teacher.name
    )
    # In float32 whatever the run's precision: the claim is about the architecture.
    exact = _own_features(teacher, image)
    _compare(teacher.head(exact).mean(dim=(1, 2)), own, "the mean over the map", teacher.name)
    return features.shape[2], features.shape[3]


def _features(teacher: Teacher, image: Tensor) -> Tensor:
    try:
        features = teacher.features(image)
    except (RuntimeError, AssertionError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TeacherError(
            f"teacher {teacher.name!r} does not run at {teacher.view.input_size} pixels: {reason}"
        ) from error
    depth = getattr(teacher.network, "num_features", None)
    if features.dim() != 4 or features.shape[1] != depth:
        raise TeacherError(
            f"teacher {teacher.name!r} is not supported: its features have the shape {tuple(features.shape)}, "
            f"expected (1, {depth}, H, W) as of a convolutional network"
        )
    return features


def _own_features(teacher: Teacher, image: Tensor) -> Tensor:
    features: Tensor = teacher.network.forward_features(image)  # type: ignore[operator]
    return features


def _own_head(teacher: Teacher, features: Tensor) -> Tensor:
    logits: Tensor = teacher.network.forward_head(features)  # type: ignore[operator]
    return logits


def _compare(found: Tensor, expected: Tensor, what: str, name: str) -> None:
    difference = ((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6)).item()
    if not difference <= TOLERANCE:
        raise TeacherError(
            f"teacher {name!r} is not supported: {what} differs from the network's own logits by {difference:.2g} "
            f"of the largest (allowed {TOLERANCE:g}), so its head is not linear after pooling"
        )
