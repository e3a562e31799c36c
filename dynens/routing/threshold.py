"""How many rows are hard: the AUC curve over the hard fraction, and the rule that reads it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.bootstrap import WeightedAUC

Vector = npt.NDArray[np.floating]
Curve = npt.NDArray[np.float64]

CURVE_FRACTIONS = np.round(np.arange(0.0, 0.5001, 0.01), 2)
SMOOTHING_WINDOW = 5
BOOTSTRAP_DRAWS = 50
UNRESOLVED_AUC = 0.001
NEGLIGIBLE_AUC = 1e-4


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

    Attributes:
        fractions: (K,) hard fractions.
        gap: (K,) bootstrap mean of AUC(dynamic) - AUC(static trio), smoothed.
        standard_error: (K,) bootstrap standard error of the unsmoothed gap.
    """

    fractions: Curve
    gap: Curve
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
    """Bootstrap the gap at every fraction; rows are resampled, rankings are not refitted.

    Args:
        labels, weight: (N,) validation rows.
        easy, hard, static: (N,) scores of the student's route, the ensemble's route and the trio.
        difficulty: (N,) higher = harder.
    """
    reference = WeightedAUC(labels, static)
    systems = [WeightedAUC(labels, routed(easy, hard, difficulty, f)) for f in fractions]
    generator = np.random.default_rng(seed)
    gaps = np.empty((draws, len(fractions)))
    for draw in range(draws):
        drawn = generator.poisson(1.0, len(labels)) * np.asarray(weight, dtype=np.float64)
        target = reference(drawn)
        gaps[draw] = [system(drawn) - target for system in systems]
    return ThresholdCurve(fractions, _smooth(gaps.mean(axis=0)), gaps.std(axis=0))


def choose_fraction(curve: ThresholdCurve, *, maximum: float, tolerance: float = 0.0) -> float:
    """The smallest fraction at which the routed system reaches the static trio.

    Zero where validation is too small to tell student and trio apart: their gap is within its
    standard error, and that error is above `UNRESOLVED_AUC`.

    Args:
        curve: from `threshold_curve`.
        maximum: largest fraction allowed. Where the trio is not reached up to it, all of it is
            used if the trio is better than the student by more than the standard error (more hard
            rows can be expected to help, even where noise hides it); else the smallest fraction
            within `NEGLIGIBLE_AUC` of the best one.
        tolerance: AUC by which the system may stay below the trio.
    """
    error = float(curve.standard_error[0])
    if error > UNRESOLVED_AUC and abs(float(curve.gap[0])) <= error:
        return 0.0
    allowed = curve.fractions <= maximum + 1e-9
    fractions, gap = curve.fractions[allowed], curve.gap[allowed]
    reached = np.flatnonzero(gap >= -tolerance)
    if len(reached):
        return float(fractions[reached[0]])
    if abs(float(curve.gap[0])) > error:
        return float(fractions[-1])
    return float(fractions[np.flatnonzero(gap >= gap.max() - NEGLIGIBLE_AUC)[0]])


def fraction_for_cost(
    mean_cost_us: float, student_us: float, hard_us: float, *, maximum: float
) -> float:
    """The hard fraction at which student + fraction · ensemble costs `mean_cost_us` per row."""
    return float(np.clip((mean_cost_us - student_us) / max(hard_us, 1e-9), 0.0, maximum))


def threshold_at(difficulty: Vector, fraction: float) -> float:
    """The difficulty above which `fraction` of the rows lie: +inf for none, -inf for all."""
    count = round(fraction * len(difficulty))
    if count <= 0:
        return float("inf")
    if count >= len(difficulty):
        return float("-inf")
    ordered = np.sort(np.asarray(difficulty, dtype=np.float64))[::-1]
    return float((ordered[count - 1] + ordered[count]) / 2)


def _smooth(values: Curve) -> Curve:
    """Centred moving average, shorter windows at the ends."""
    half = SMOOTHING_WINDOW // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])
