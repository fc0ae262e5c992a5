"""Compares every pair of arms by paired t-tests over the seeds, corrected for the number of pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pipelines.reproduce.arms import Arm
from pipelines.reproduce.students import Result

LEVEL = 0.05
ROUNDING = 1e-9  # rounding error of fractions of some thousand scenes


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two arms, compared by the fraction of scenes whose top-1 is among the classes present."""

    better: Arm  # as published, or as found here where nothing was published
    worse: Arm
    difference: float  # better minus worse, mean over the seeds
    error: float  # standard error of that mean
    p_alone: float  # p-value of this pair alone
    p: float  # p-value after Holm's correction for all pairs
    published: float | None  # percentage points; None where one of them was not published

    @property
    def is_significant(self) -> bool:
        """Whether the difference is significant at a family-wise level of 5 %."""
        return self.p < LEVEL


def compare(arms: Sequence[Arm], results: Sequence[Result]) -> list[Comparison]:
    """Compare every pair by a paired t-test over the seeds; arms of a seed share initial weights, order and crops.

    Args:
        arms: two or more.
        results: of all arms, with the same seeds, at least two.
    """
    pairs = [_ordered(a, b, results) for a, b in combinations(arms, 2)]
    differences = [_by_seed(better, results) - _by_seed(worse, results) for better, worse in pairs]
    alone = [_p_value(values) for values in differences]
    return [
        Comparison(
            better=better,
            worse=worse,
            difference=float(values.mean()),
            error=standard_error(values),
            p_alone=p_alone,
            p=p,
            published=_published_difference(better, worse),
        )
        for (better, worse), values, p_alone, p in zip(pairs, differences, alone, holm(alone), strict=True)
    ]


def standard_error(values: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Standard error of the mean of two or more values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def holm(values: Sequence[float]) -> list[float]:
    """Holm-corrected p-values, in the order given (Holm, A simple sequentially rejective test procedure, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, largest = [0.0] * len(values), 0.0
    for smaller, i in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - smaller) * values[i]))
        corrected[i] = largest
    return corrected


def errors_needed(pairs: int, seeds: int) -> float:
    """Smallest |difference| / standard error that is significant if it is the largest of so many pairs."""
    from scipy.stats import t

    return float(t.isf(LEVEL / 2 / pairs, seeds - 1))


def _p_value(differences: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    from scipy.stats import ttest_1samp

    # The test divides by the standard deviation. Scores are multiples of one scene, so that a deviation of 0 is chance.
    if np.ptp(differences) < ROUNDING:
        return 1.0
    return float(ttest_1samp(differences, 0).pvalue)


def _by_seed(arm: Arm, results: Sequence[Result]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    own = sorted((result for result in results if result.arm == arm.name), key=lambda result: result.seed)
    return np.array([result.scores.present for result in own])


def _ordered(a: Arm, b: Arm, results: Sequence[Result]) -> tuple[Arm, Arm]:
    """The two arms, the better one first: as published, else as found here."""
    published = _published_difference(a, b)
    first = published if published else _by_seed(a, results).mean() - _by_seed(b, results).mean()
    return (a, b) if first >= 0 else (b, a)


def _published_difference(a: Arm, b: Arm) -> float | None:
    return None if a.published is None or b.published is None else round(a.published - b.published, 1)
