"""What a label map is, and the words that describe what is pooled from it. A leaf: it imports numpy alone.

Shape letters: N rows, K top-k, H W cells (y, x).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2, normalised to [0, 1] by the whole image, origin top left."""

WHOLE_IMAGE: Box = (0.0, 0.0, 1.0, 1.0)

TargetKind = Literal["relabel", "global", "local-single", "global-single", "original"]
"""What the student is trained on, the arms of the paper's ablation (ReLabel, CVPR 2021, section 4.1).

`relabel` pools the crop's box; `global` the whole map (no localization); the `-single` kinds keep only the arg max;
`original` is the dataset's own label.
"""

Fill = Literal["zero", "tail", "min"]
"""The logit of classes outside a cell's top K: 0, the tail's mass spread evenly, or the cell's lowest kept score."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelRows:
    """Label maps of some rows of a group."""

    classes: NDArray[np.uint16]  # (N, K, H, W)
    scores: NDArray[np.float16]  # (N, K, H, W)
    tail_logsumexp: NDArray[np.float16] | None  # (N, H, W)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelRow:
    """One sample's label map and what the group knows of the sample."""

    key: str
    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W)
    tail_logsumexp: NDArray[np.float16] | None  # (H, W)
    label: int  # the dataset's own, -1 where there is none
    offset: int  # of the image in its tar, bytes
    length: int  # of the image, bytes
    undecodable: str | None  # why the image could not be decoded
