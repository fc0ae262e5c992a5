"""The rows of one label group before they are written.

Letters: N rows, K ranks, H W cells (y, x).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.errors import LabelMapError
from store.invariants import check_maps, check_ranks
from store.schema import MAX_CLASSES, Quarantined


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupLabels:
    """All rows of one label group.

    Raises:
        LabelMapError: shapes, dtypes, keys or scores that the format cannot hold.
    """

    classes: NDArray[np.uint16]  # (N, K, H, W), rank 0 the highest score
    scores: NDArray[np.float16]  # (N, K, H, W) logits, descending along K
    tail: NDArray[np.float16] | None  # (N, H, W) log-sum-exp of the logits outside the top K
    keys: tuple[str, ...]
    offsets: NDArray[np.uint64]  # (N, 2) byte offset and length of the image in its tar
    digests: NDArray[np.uint64]  # (N,) BLAKE2b-64 of the image bytes, little-endian
    targets: NDArray[np.int32]  # (N,) original labels, -1 where there is none
    quarantined: tuple[Quarantined, ...] = ()

    def __post_init__(self) -> None:
        """Check that the arrays belong together."""
        n, k, h, w = self.classes.shape
        expected = {"scores": (n, k, h, w), "offsets": (n, 2), "digests": (n,), "targets": (n,)}
        if self.tail is not None:
            expected["tail"] = (n, h, w)
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise LabelMapError(f"{name} has shape {getattr(self, name).shape}, expected {shape}")
        if len(self.keys) != n or len(set(self.keys)) != n:
            raise LabelMapError(f"{n} rows need as many different keys, found {len(set(self.keys))}")
        maps = self.classes, self.scores, self.tail, self.usable
        # Tails of -inf are for the store to judge, which knows the class count.
        problem = check_maps(*maps[:2], None, self.usable, num_classes=MAX_CLASSES) or check_ranks(*maps)
        if problem is not None:
            raise LabelMapError(f"{problem[0]}: {problem[1]}; float16 holds logits within +-65,504")

    @property
    def usable(self) -> NDArray[np.bool_]:
        """(N,) bool: which rows are not quarantined."""
        mask = np.ones(len(self.keys), bool)
        mask[[bad.row for bad in self.quarantined]] = False
        return mask
