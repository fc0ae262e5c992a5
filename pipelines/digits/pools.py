"""Three disjoint pools of real handwritten digits: for the teacher, the student and the evaluation."""

from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

PoolName = Literal["teacher", "train", "val"]
POOL_NAMES: tuple[PoolName, ...] = get_args(PoolName)
CLASS_NAMES = tuple(str(digit) for digit in range(10))
# Of every class's digits: the first 40 % go to the teacher, the next 40 % to train, the rest to val.
CUTS = (0.4, 0.8)
SPLIT_SEED = 20210119


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class DigitPool:
    """The digits one purpose may use.

    Attributes:
        name: What the digits are for.
        glyphs: (N, 8, 8) uint8, ink from 0 to 16, read-only.
        labels: (N,) int64, the digit each glyph shows, read-only.
        sources: (N,) int64, each glyph's row in scikit-learn's data set, ascending, read-only.
    """

    name: PoolName
    glyphs: NDArray[np.uint8]
    labels: NDArray[np.int64]
    sources: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of digits in the pool."""
        return len(self.labels)


@cache
def load_pool(name: PoolName) -> DigitPool:
    """Load one pool; the same digits in every process and on every machine.

    Args:
        name: "teacher", "train" or "val".

    Returns:
        The pool; its arrays are shared between callers and therefore read-only.

    Raises:
        ValueError: If there is no such pool.
    """
    if name not in POOL_NAMES:
        raise ValueError(f"digit pool {name!r}: expected one of {', '.join(POOL_NAMES)}")
    glyphs, labels = _load_glyphs()
    sources = _split_rows(labels)[POOL_NAMES.index(name)]
    arrays = (glyphs[sources], labels[sources], sources)
    for array in arrays:
        array.setflags(write=False)
    return DigitPool(name=name, glyphs=arrays[0], labels=arrays[1], sources=arrays[2])


@cache
def _load_glyphs() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read scikit-learn's digits: (1797, 8, 8) uint8 and (1797,) int64."""
    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8).astype(np.uint8), labels.astype(np.int64)


def _split_rows(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Cut the shuffled rows of every class at `CUTS`, so that each pool has the classes' own proportions."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: list[list[NDArray[np.int64]]] = [[] for _ in POOL_NAMES]
    for digit in range(len(CLASS_NAMES)):
        rows = rng.permutation(np.flatnonzero(labels == digit))
        cuts = [round(cut * len(rows)) for cut in CUTS]
        for part, chunk in zip(parts, np.split(rows, cuts), strict=True):
            part.append(chunk)
    return [np.sort(np.concatenate(part)) for part in parts]
