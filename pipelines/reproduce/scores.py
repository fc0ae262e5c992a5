"""Scores a student's logits against the single labels and against all digits of the scenes.

Shapes: N scenes, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of the calibration error


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """A student's scores on the test scenes, each from 0 to 1."""

    present: float  # fraction of the scenes whose top-1 is among the classes present, as in ReaL
    label: float  # fraction of the scenes whose top-1 is the single label, which was drawn at random
    precision: float  # average precision of the classes' presence, mean over the classes
    calibration: float  # expected calibration error against the single label


def measure(logits_NC: NDArray[np.float32], labels_N: NDArray[np.int64], present_NC: NDArray[np.bool_]) -> Scores:
    """Score one student.

    Args:
        logits_NC: its output.
        labels_N: the single labels.
        present_NC: which classes each scene shows; each class is in at least one scene.
    """
    from scipy.special import softmax
    from sklearn.metrics import average_precision_score

    probabilities_NC, best_N = softmax(logits_NC, axis=1), logits_NC.argmax(1)
    return Scores(
        present=float(np.mean(present_NC[np.arange(len(best_N)), best_N])),
        label=float(np.mean(best_N == labels_N)),
        precision=float(average_precision_score(present_NC, probabilities_NC, average="macro")),
        calibration=calibration_error(probabilities_NC.max(1), best_N == labels_N),
    )


def calibration_error(confidences_N: NDArray[np.float32], hits_N: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean over the scenes of |confidence - accuracy| of a scene's bin.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.

    >>> round(calibration_error(np.array([0.9, 0.9], np.float32), np.array([True, False])), 6)
    0.4
    """
    bins_N = np.minimum((confidences_N * BINS).astype(int), BINS - 1)
    gaps_N = confidences_N.astype(np.float64) - hits_N
    sums = np.bincount(bins_N, weights=gaps_N, minlength=BINS)
    return float(np.abs(sums).sum() / len(hits_N))
