"""Types of label maps, crops and targets; imports numpy alone, so that every other module may import it.

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
"""The kind of target a student is trained on: the arms of the paper's ablation (ReLabel, CVPR 2021, section 4.1).

`relabel` pools the crop's box; `global` the whole map (no localization); the `-single` kinds keep only the arg max;
`original` is the dataset's label.
"""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LabelRows:
    """Label maps of N rows of a group."""

    classes: NDArray[np.uint16]  # (N, K, H, W)
    scores: NDArray[np.float16]  # (N, K, H, W), of the store's score kind
    tail_logsumexp: NDArray[np.float16] | None  # (N, H, W)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> "LabelRows":
        """The label maps of some rows, by a mask or by their positions."""
        tail_logsumexp = None if self.tail_logsumexp is None else self.tail_logsumexp[rows]
        return LabelRows(classes=self.classes[rows], scores=self.scores[rows], tail_logsumexp=tail_logsumexp)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False, repr=False)
class LabelRow:
    """The label map of one image, with its key, its label and its byte range in the tar."""

    key: str
    classes: NDArray[np.uint16]  # (K, H, W)
    scores: NDArray[np.float16]  # (K, H, W), of the store's score kind
    tail_logsumexp: NDArray[np.float16] | None  # (H, W) log-sum-exp of the logits outside the top K, less the same
    label: int  # the dataset's, -1 where there is none
    offset: int  # of the image in its tar, bytes
    length: int  # of the image, bytes
    undecodable: str | None  # why the image could not be decoded

    def __repr__(self) -> str:
        top_k, height, width = self.classes.shape
        label = f"label {self.label}" if self.label >= 0 else "no label"
        undecodable = ", undecodable" if self.undecodable is not None else ""
        return f"{type(self).__name__}({self.key!r}, {label}, top {top_k}, {height} x {width}{undecodable})"
