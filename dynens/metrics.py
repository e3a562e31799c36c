"""Metrics of binary click prediction: exact, weighted, tie-aware, NumPy only.

Conventions, everywhere in this file: `labels` (N,) in {0, 1}; `weight` (N,) > 0 or None for ones;
logarithms are natural; reductions are weighted means over rows. A metric that the input leaves
undefined (no rows, a single class) is `nan`, never an exception.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import NO_GROUP

Array = npt.NDArray[np.float64]
ArrayLike = npt.ArrayLike

NUM_ECE_BINS = 15
# Probabilities travel as float32, whose spacing just below 1 is 6e-8: a finer clip means nothing.
PROBABILITY_CLIP = 1e-7


@dataclass(frozen=True)
class Metrics:
    """The metrics of one system, named as in `report/metrics.json`."""

    auc: float
    gauc: float
    logloss: float
    normalized_entropy: float
    ece: float
    calibration_ratio: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain values; an undefined metric becomes None."""
        return {k: None if math.isnan(v) else v for k, v in asdict(self).items()}


def informative_rows(labels: npt.NDArray[np.floating]) -> int:
    """How many rows labels are worth: all, or 20 per row of the rarer class where that is less.

    What an AUC can be known to, and what a learner can learn, follows from the rarer class: 40
    positives among a million rows say as much as 40 among some hundred.
    """
    positive = int(np.count_nonzero(labels > 0))
    return min(len(labels), 20 * min(positive, len(labels) - positive))


def mean_ranks(values: npt.ArrayLike) -> Array:
    """(N,) ranks from 1 on; equal values share the mean of theirs."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[position], dtype=np.float64)


def sigmoid(z: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """σ(z) = 1 / (1 + e⁻ᶻ) in float64, without overflow at either end."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * np.asarray(z, dtype=np.float64))))


def auc(labels: ArrayLike, scores: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve: P(score of a positive > score of a negative) + ½ P(equal).

    Args:
        labels: (N,) in {0, 1}.
        scores: (N,) any monotone score; only the order counts.
        weight: (N,) positive row weights.

    Returns:
        A value in [0, 1]; nan without a positive, without a negative, or with a nan score.
    """
    y, s, w = _arrays(labels, scores, weight)
    if len(s) == 0 or np.isnan(s).any():
        return math.nan
    order = np.argsort(s)
    s, positive = s[order], (y * w)[order]
    last = np.append(np.flatnonzero(s[1:] != s[:-1]), len(s) - 1)
    positives = np.cumsum(positive)[last]
    negatives = np.cumsum(w[order] - positive)[last]
    total = positives[-1] * negatives[-1]
    if total <= 0:
        return math.nan
    # Trapezoid over tie groups: negatives strictly below, plus half of those tied.
    below = np.concatenate(([0.0], negatives[:-1]))
    return float(np.sum(np.diff(positives, prepend=0.0) * (below + negatives)) / (2 * total))


def auc_error(value: float, labels: ArrayLike) -> float:
    """Standard error of an AUC on rows of these labels, by how many there are of each class.

    Args:
        value: the AUC.
        labels: (N,) in {0, 1}.

    Returns:
        A value ≥ 0; nan without a positive or a negative, or of a nan.

    References:
        Hanley and McNeil, "The Meaning and Use of the Area under a ROC Curve", Radiology 1982,
        eq. 1 and 2.
    """
    positive = int(np.count_nonzero(np.asarray(labels) > 0))
    negative = len(np.asarray(labels)) - positive
    if positive * negative == 0:
        return math.nan
    # Their Q1 - A² and Q2 - A², in a form that rounding leaves positive.
    of_positives = (positive - 1) * value * (1 - value) ** 2 / (2 - value)
    of_negatives = (negative - 1) * value**2 * (1 - value) / (1 + value)
    variance = value * (1 - value) + of_positives + of_negatives
    return math.sqrt(variance / (positive * negative))


def gauc(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, weight: ArrayLike | None = None
) -> float:
    """Grouped AUC: the mean of each group's AUC, weighted by the group's total row weight.

    Groups with a single class have no AUC and are left out of numerator and denominator, as are
    rows without a group, which have nothing in common.

    Args:
        labels, scores, weight: as in `auc`; scores are compared only within a group.
        groups: (N,) group codes (the user, as a rule), `NO_GROUP` where missing.

    Returns:
        A value in [0, 1]; nan when no group holds both classes.

    References:
        Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017, eq. 12.
    """
    y, s, w = _arrays(labels, scores, weight)
    g = np.asarray(groups)
    y, s, w, g = (values[g != NO_GROUP] for values in (y, s, w, g))
    if len(s) == 0 or np.isnan(s).any():
        return math.nan
    order = np.lexsort((s, g))
    s, g, w = s[order], g[order], w[order]
    positive = y[order] * w
    first = np.append(0, np.flatnonzero((s[1:] != s[:-1]) | (g[1:] != g[:-1])) + 1)  # of each tie
    tie_positive, tie_negative = (np.add.reduceat(part, first) for part in (positive, w - positive))
    tie_group = g[first]
    start = np.append(0, np.flatnonzero(tie_group[1:] != tie_group[:-1]) + 1)
    group_positive = np.add.reduceat(tie_positive, start)
    group_negative = np.add.reduceat(tie_negative, start)
    below = np.cumsum(tie_negative) - tie_negative
    below -= np.repeat(below[start], np.diff(start, append=len(below)))
    area = np.add.reduceat(tie_positive * (below + tie_negative / 2), start)
    pairs = group_positive * group_negative
    mixed = pairs > 0
    if not mixed.any():
        return math.nan
    size = (group_positive + group_negative)[mixed]
    return float(np.sum(size * area[mixed] / pairs[mixed]) / np.sum(size))


def logloss(labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood in nats, probabilities clipped to [1e-7, 1 - 1e-7].

    Returns:
        A value ≥ 0; nan without rows.
    """
    y, p, w = _arrays(labels, probabilities, weight)
    if len(p) == 0:
        return math.nan
    p = np.clip(p, PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return float(-np.sum(w * np.log(np.where(y > 0.5, p, 1 - p))) / np.sum(w))


def normalized_entropy(
    labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None = None
) -> float:
    """Logloss over the logloss of always answering the click rate; below 1 is better than that.

    Returns:
        A value ≥ 0; nan without rows or with a single class (its entropy is zero).

    References:
        He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014, eq. 3.
    """
    y, p, w = _arrays(labels, probabilities, weight)
    rate = float(np.sum(y * w) / np.sum(w)) if len(y) else math.nan
    if not 0 < rate < 1:
        return math.nan
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    return logloss(y, p, w) / entropy


def ece(
    labels: ArrayLike,
    probabilities: ArrayLike,
    weight: ArrayLike | None = None,
    num_bins: int = NUM_ECE_BINS,
) -> float:
    """Expected calibration error: mean over equal-mass bins of |click rate - mean probability|.

    Bins hold equal shares of the total weight in order of probability. Rows with equal
    probabilities share the bin of their middle rank, so the order of rows changes nothing.

    Returns:
        A value in [0, 1]; nan without rows.

    References:
        Nguyen & O'Connor, "Posterior calibration and exploratory analysis for natural language
        processing models", EMNLP 2015, section 3.1 (adaptive binning).
    """
    y, p, w = _arrays(labels, probabilities, weight)
    if len(p) == 0:
        return math.nan
    order = np.argsort(p)
    y, p, w = y[order], p[order], w[order]
    first = np.append(0, np.flatnonzero(p[1:] != p[:-1]) + 1)
    tie_weight = np.add.reduceat(w, first)
    middle = np.cumsum(tie_weight) - tie_weight / 2
    tie_bin = np.minimum((middle / tie_weight.sum() * num_bins).astype(np.int64), num_bins - 1)
    gap = np.bincount(tie_bin, weights=np.add.reduceat(w * (y - p), first), minlength=num_bins)
    return float(np.sum(np.abs(gap)) / tie_weight.sum())


def calibration_ratio(
    labels: ArrayLike, probabilities: ArrayLike, weight: ArrayLike | None = None
) -> float:
    """Expected clicks over observed clicks: Σ w·p / Σ w·y; 1 is calibrated on average.

    Returns:
        A value ≥ 0; nan without an observed click.
    """
    y, p, w = _arrays(labels, probabilities, weight)
    observed = float(np.sum(w * y))
    return float(np.sum(w * p)) / observed if observed > 0 else math.nan


def evaluate_probabilities(
    labels: ArrayLike,
    probabilities: ArrayLike,
    weight: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Metrics:
    """Every metric of `report/metrics.json` for one system (`gauc` is nan without groups)."""
    return Metrics(
        auc=auc(labels, probabilities, weight),
        gauc=math.nan if groups is None else gauc(labels, probabilities, groups, weight),
        logloss=logloss(labels, probabilities, weight),
        normalized_entropy=normalized_entropy(labels, probabilities, weight),
        ece=ece(labels, probabilities, weight),
        calibration_ratio=calibration_ratio(labels, probabilities, weight),
    )


def _arrays(
    labels: ArrayLike, scores: ArrayLike, weight: ArrayLike | None
) -> tuple[Array, Array, Array]:
    y = np.asarray(labels, dtype=np.float64)
    s = np.asarray(scores, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if not len(y) == len(s) == len(w):
        raise ValueError(
            f"labels, scores and weight have {len(y)}, {len(s)} and {len(w)} rows; give as many."
        )
    return y, s, w
