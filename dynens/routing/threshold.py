"""How many rows are hard: the AUC curve over the hard fraction, and the rule that reads it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.bootstrap import WeightedAUC
from dynens.metrics import sigmoid

Vector = npt.NDArray[np.floating]
Curve = npt.NDArray[np.float64]

CURVE_FRACTIONS = np.round(np.arange(0.0, 0.5001, 0.01), 2)
SMOOTHING_WINDOW = 5
BOOTSTRAP_DRAWS = 50
# Standard deviation of the ensemble's own account of an AUC gap, beside the size of the gap itself.
ACCOUNT_ERROR_AUC = 2e-4
# How far the share of hard rows may exceed the maximum on other rows, and how surely no further.
HEADROOM = 0.02
ONE_SIDED_95 = 1.645
# Difficulties nearer to each other, as a share of the largest, are equal but for rounding.
ROUNDING = 1e-6
_HALVINGS = 40


def routed(easy: Vector, hard: Vector, difficulty: Vector, fraction: float) -> Vector:
    """Scores (N,) with the `fraction` hardest rows taken from `hard`, the rest from `easy`."""
    count = round(fraction * len(easy))
    scores = np.array(easy, copy=True)
    if count:
        hardest = np.argsort(-difficulty, kind="stable")[:count]
        scores[hardest] = hard[hardest]
    return scores


@dataclass(frozen=True)
class ThresholdCurve:
    """Validation AUC of the routed system minus the static trio's, over the hard fraction.

    Two accounts of it are joined. The labels' is unbiased, but on a few thousand rows its error is
    larger than the gaps that matter. The ensemble's replaces every label by the hard route's
    probability: hardly any sampling error, but it takes the ensemble's word for the truth, so it
    may be wrong by as much as it says. The joined gap is their mean, each weighted by the inverse
    of its variance. Where more than half of the resamples lack a class, the labels give no account:
    the ensemble's stands alone. What hard rows add to the student alone is joined on its own: its
    systems share all easy rows, so that labels tell it better than the gap to the trio.

    Attributes:
        fractions: (K,) hard fractions.
        gap: (K,) the joined gap.
        gain: (K,) the joined AUC(dynamic) - AUC(student alone).
        label_gap: (K,) bootstrap mean of AUC(dynamic) - AUC(static trio) on labels, smoothed.
        expected_gap: (K,) the same difference with the ensemble's probabilities for labels.
        standard_error: (K,) bootstrap standard error of the unsmoothed label gap; infinite where
            the labels give no account (`label_gap` then repeats `expected_gap`).
    """

    fractions: Curve
    gap: Curve
    gain: Curve
    label_gap: Curve
    expected_gap: Curve
    standard_error: Curve


def threshold_curve(
    labels: Vector,
    weight: Vector,
    easy: Vector,
    hard: Vector,
    static: Vector,
    difficulty: Vector,
    *,
    seed: int,
    fractions: Curve = CURVE_FRACTIONS,
    draws: int = BOOTSTRAP_DRAWS,
) -> ThresholdCurve:
    """The gap at every fraction; rows are resampled, rankings are not refitted.

    Args:
        labels, weight: (N,) validation rows.
        easy, hard, static: (N,) logits of the student's route, the ensemble's route and the trio;
            that of the ensemble's route is calibrated.
        difficulty: (N,) higher = harder.
    """
    systems = [routed(easy, hard, difficulty, f) for f in fractions]
    weight = np.asarray(weight, dtype=np.float64)
    generator = np.random.default_rng(seed)
    resampled = [generator.poisson(1.0, len(labels)) * weight for _ in range(draws)]
    gaps = _gaps(labels, systems, static, resampled)
    (expected,) = _gaps(sigmoid(hard), systems, static, [weight])
    gaps = gaps[np.isfinite(gaps).all(axis=1)]  # both classes were drawn
    if 2 * len(gaps) < draws:
        unknown = np.full(len(fractions), np.inf)
        return ThresholdCurve(
            fractions, expected, expected - expected[0], expected, expected, unknown
        )
    label_gap, standard_error = _smooth(gaps.mean(axis=0)), gaps.std(axis=0)
    gains = gaps - gaps[:, :1]
    gap = _joined(label_gap, standard_error, expected)
    gain = _joined(gains.mean(axis=0), gains.std(axis=0), expected - expected[0])
    return ThresholdCurve(fractions, gap, gain, label_gap, expected, standard_error)


def _joined(label: Curve, standard_error: Curve, expected: Curve) -> Curve:
    """(K,) mean of both accounts, by the inverse of their variances."""
    account_variance = ACCOUNT_ERROR_AUC**2 + expected**2
    trust = account_variance / (account_variance + standard_error**2)
    return np.asarray(expected + trust * (label - expected))


def _gaps(
    labels: Vector, systems: Sequence[Vector], static: Vector, weights: Sequence[Vector]
) -> Curve:
    """(W, S) AUC of every system minus the trio's, under every weight of the rows."""
    reference = WeightedAUC(labels, static)
    aucs = [WeightedAUC(labels, scores) for scores in systems]
    return np.array([[a(w) - reference(w) for a in aucs] for w in weights])


def choose_fraction(curve: ThresholdCurve, *, maximum: float, tolerance: float = 0.0) -> float:
    """The smallest fraction at which the routed system reaches the static trio.

    Where no fraction allowed does, the smallest that comes as near as the best of them. None, where
    the rows found would add less than the tolerance to the student alone: with the first hard row
    comes a call of the trio, which costs more than the rows of it. Nor is any row sent where the
    gap is undefined everywhere.

    Args:
        curve: from `threshold_curve`.
        maximum: largest fraction allowed.
        tolerance: AUC by which the system may stay below the trio, or below the best fraction, and
            that hard rows must add.
    """
    allowed = curve.fractions <= maximum + 1e-9
    fractions, gap = curve.fractions[allowed], curve.gap[allowed]
    if np.isnan(gap).all():
        return 0.0
    within_reach = min(float(np.nanmax(gap)), 0.0)
    found = int(np.flatnonzero(gap >= within_reach - tolerance)[0])
    return float(fractions[found]) if curve.gain[found] >= tolerance else 0.0


def cautious_maximum(maximum: float, num_rows: int) -> float:
    """The largest fraction whose share of other rows stays below `maximum + HEADROOM`.

    A threshold set on n rows lets a share of n others pass whose variance is 2·f(1 - f) / n: f ± 4
    points on 220 rows. From 2,700 rows on that is within the headroom, and nothing is taken off.

    Args:
        maximum: largest fraction allowed.
        num_rows: rows that the threshold is set on.
    """
    deviation = math.sqrt(2 * maximum * (1 - maximum) / max(num_rows, 1))
    return max(min(maximum, maximum + HEADROOM - ONE_SIDED_95 * deviation), 0.0)


def fraction_for_cost(
    mean_cost_us: float,
    student_us: float,
    call_us: float,
    row_us: float,
    *,
    rows: int,
    maximum: float,
) -> float:
    """The hard fraction at which requests of so many rows cost `mean_cost_us` per row.

    The first hard row of a request brings a call of the ensemble. Rows count as hard independently
    of one another, so that 1 - (1 - f)^rows of the requests have one; where hard rows keep together
    there are fewer calls, and the cost is lower.

    Args:
        mean_cost_us: what a row may cost.
        student_us: what it costs with the student alone.
        call_us, row_us: of the ensemble, per call and per hard row.
        rows: of a request.
        maximum: largest fraction allowed.
    """

    def cost(fraction: float) -> float:
        calls = 1 - (1 - fraction) ** rows
        return student_us + calls * call_us / rows + fraction * row_us

    low, high = 0.0, maximum
    if cost(high) <= mean_cost_us:
        return maximum
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= mean_cost_us else (low, middle)
    return low


def share_at_least(fitted_on: Vector, difficulty: Vector) -> Curve:
    """(N,) share of the rows a score was fitted on that are as hard as each of N others."""
    ordered = np.sort(fitted_on)
    below = np.searchsorted(ordered, difficulty, side="left")
    return np.asarray(1.0 - below / max(len(ordered), 1))


def fitted_fraction(shares: Vector, fraction: float, maximum: float) -> float:
    """`fraction` of the rows a score was fitted on, or less where too many others would be hard.

    A head knows the rows it was fitted on too well, so that others stand elsewhere on its scale: on
    300 columns of noise, a threshold for 25 % of the former called 35 % of the latter hard.

    Args:
        shares: (N,) `share_at_least` of rows out of fold.
        fraction: share of the fitted rows that is wanted.
        maximum: largest share of the rows out of fold.
    """
    return min(fraction, float(np.quantile(shares, maximum)))


def threshold_at(difficulty: Vector, fraction: float) -> float:
    """The difficulty above which `fraction` of the rows lie: +inf for none, -inf for all.

    Rows that are as hard as the hardest easy one are easy, too. The threshold is halfway to the
    next harder ones, so that the served graph, which rounds otherwise, sends the same rows.
    """
    count = round(fraction * len(difficulty))
    if count <= 0:
        return float("inf")
    if count >= len(difficulty):
        return float("-inf")
    ordered = np.sort(np.asarray(difficulty, dtype=np.float64))[::-1]
    easy = ordered[count]
    harder = ordered[:count][ordered[:count] > easy + ROUNDING * np.abs(ordered).max()]
    return float((harder[-1] + easy) / 2) if len(harder) else float("inf")


def _smooth(values: Curve) -> Curve:
    """Centred moving average, shorter windows at the ends."""
    half = SMOOTHING_WINDOW // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])
