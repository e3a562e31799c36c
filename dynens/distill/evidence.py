"""Whether a student that heard labels learned from them what its teacher had missed."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from dynens.ensemble.blend import Logits
from dynens.metrics import sigmoid

_ROUNDING = 1e-6  # of float32 logits

Vector = npt.NDArray[np.floating]


def departures_tell(
    teacher: Logits, student: Logits, labels: Vector, sample_weight: Vector
) -> float:
    """How surely a student's departures from its teacher foretell labels, in standard errors.

    The score test of w = 0 in p = σ(a + b·t + w·(s − t)), with t and s the logits of teacher and
    student, at a = 0 and b = 1: the teacher must be calibrated on these rows. Departures that are
    noise give a standard normal value; knowledge of the labels gives a large positive one.

    Args:
        teacher: (N,) calibrated logits.
        student: (N,) logits of a student that trained on none of these rows.
        labels: (N,) in [0, 1].
        sample_weight: (N,) not negative.

    Returns:
        The statistic; NaN where nothing can be told: labels of one class, no row that counts, or a
        student that does not differ from its teacher but in scale.

    References:
        Rao, "Large sample tests of statistical hypotheses", 1948, with the variance of White,
        "A heteroskedasticity-consistent covariance matrix estimator", 1980.
    """
    t = np.asarray(teacher, np.float64)
    departure = np.asarray(student, np.float64) - t
    y, weight = np.asarray(labels, np.float64), np.asarray(sample_weight, np.float64)
    if not np.isfinite(departure).all() or len(np.unique(y)) < 2:
        return math.nan
    p = sigmoid(t)
    # What a and b can tell as well is taken out, in the metric of the logistic loss.
    root = np.sqrt(weight * p * (1.0 - p))
    known = np.stack([root, root * t], axis=1)
    coefficients, *_ = np.linalg.lstsq(known, root * departure, rcond=None)
    rest = departure - coefficients[0] - coefficients[1] * t
    if np.abs(rest).max(initial=0.0) <= _ROUNDING * np.abs(departure).max(initial=0.0):
        return math.nan
    terms = weight * (y - p) * rest
    spread = math.sqrt(float(terms @ terms))
    return float(terms.sum()) / spread if spread > 0 else math.nan
