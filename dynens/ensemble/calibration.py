"""Calibration of a blend on rows that trained nothing: temperature, Platt, or whichever is better.

Both keep the blend a blend, so that it exports as before. Isotonic regression (Zadrozny & Elkan
2002) does not: its steps make ties in a ranking and are no handful of ONNX nodes. It is compared
beside them, never used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.ensemble.blend import Blend, Logits, fit_logistic
from dynens.metrics import sigmoid

Vector = npt.NDArray[np.floating]
Calibration = Callable[[Blend, Mapping[str, Logits], Vector, Vector | None], Blend]

SLOPE_PRIOR_ROWS = 20.0
NUM_FOLDS = 3
ISOTONIC = "isotonic"


def platt(
    blend: Blend,
    logits: Mapping[str, Logits],
    labels: Vector,
    sample_weight: Vector | None = None,
) -> Blend:
    """`blend` after Platt scaling (Platt 1999): σ(a·z + b), fitted on the given rows.

    The slope is pulled towards 1 by the weight of `SLOPE_PRIOR_ROWS` rows, so that a handful of
    rows cannot stretch the scale; less where logits hardly differ, as those of a net that stopped
    after a few steps do: their scale says nothing, yet their order may be as good as any.

    The slope stays positive so that calibration never reverses a ranking; rows that would ask for
    a slope ≤ 0 leave the blend's scale alone and fit the bias only.
    """
    z = blend.logit(logits)
    slope, bias = _fit_slope(z, labels, sample_weight, fit_bias=True)
    if slope <= 0:
        return matched(blend, logits, labels, sample_weight)
    return blend.scaled(slope, bias)


def matched(
    blend: Blend,
    logits: Mapping[str, Logits],
    labels: Vector,
    sample_weight: Vector | None = None,
) -> Blend:
    """`blend` with the bias that predicts as many positives as the given rows have."""
    target = float(np.clip(np.average(labels, weights=sample_weight), 1e-6, 1 - 1e-6))
    return blend.scaled(1.0, _shift_to_mean(blend.logit(logits), target, sample_weight))


def temperature(
    blend: Blend,
    logits: Mapping[str, Logits],
    labels: Vector,
    sample_weight: Vector | None = None,
) -> Blend:
    """`blend` after temperature scaling (Guo et al. 2017): σ(z / T), with 1/T fitted.

    1/T is pulled towards 1 as the slope of `platt` is; rows that would ask for 1/T ≤ 0 leave the
    blend as it is.
    """
    z = blend.logit(logits)
    slope, _ = _fit_slope(z, labels, sample_weight, fit_bias=False)
    return blend if slope <= 0 else blend.scaled(slope, 0.0)


def _fit_slope(
    z: Logits, labels: Vector, sample_weight: Vector | None, *, fit_bias: bool
) -> tuple[float, float]:
    """(slope, bias), the slope pulled towards 1; in units of the spread where that is below 1."""
    spread = float(np.std(z))
    unit = spread if 0 < spread < 1 else 1.0
    slope, bias = fit_logistic(
        z[:, None] / unit,
        labels,
        sample_weight=sample_weight,
        prior_mean=np.full(1, unit),
        l2=SLOPE_PRIOR_ROWS / len(z),
        fit_bias=fit_bias,
    )
    return float(slope[0]) / unit, bias


CALIBRATIONS: dict[str, Calibration] = {"temperature": temperature, "platt": platt}
"""Simplest first: ties within noise go to the earlier entry."""


@dataclass(frozen=True)
class CalibrationChoice:
    """The calibrated blend, the method, and every method's cross-fitted logloss in nats."""

    blend: Blend
    method: str
    logloss: dict[str, float]


def calibrate(
    blend: Blend,
    logits: Mapping[str, Logits],
    labels: Vector,
    sample_weight: Vector | None = None,
    *,
    method: str,
    seed: int,
) -> CalibrationChoice:
    """Calibrate by `method`, a key of `CALIBRATIONS`, or "auto".

    "auto" compares the methods in cross-fitted folds and takes the simplest whose mean logloss is
    within one standard error of the best one's (the paired standard error of the difference).
    """
    if method != "auto":
        return CalibrationChoice(
            CALIBRATIONS[method](blend, logits, labels, sample_weight), method, {}
        )
    weight = np.ones(len(labels)) if sample_weight is None else np.asarray(sample_weight, float)
    losses = _cross_fitted_losses(blend, logits, labels, weight, seed)
    mean = {name: float(np.average(loss, weights=weight)) for name, loss in losses.items()}
    best = min(CALIBRATIONS, key=lambda name: mean[name])
    for name, fit in CALIBRATIONS.items():
        gap = weight * (losses[name] - losses[best]) / weight.mean()
        if gap.mean() <= gap.std() / np.sqrt(len(gap)):
            return CalibrationChoice(fit(blend, logits, labels, sample_weight), name, mean)
    raise AssertionError("the best method is within noise of itself")


def _cross_fitted_losses(
    blend: Blend, logits: Mapping[str, Logits], labels: Vector, weight: Vector, seed: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Each row's logloss (N,) by each method fitted on the folds it is not in."""
    fold = np.random.default_rng(seed).permutation(len(labels)) % NUM_FOLDS
    losses = {name: np.zeros(len(labels)) for name in (*CALIBRATIONS, ISOTONIC)}
    z = blend.logit(logits)
    for k in range(NUM_FOLDS):
        inside, outside = fold != k, fold == k
        fitted_on = {name: values[inside] for name, values in logits.items()}
        scored = {name: values[outside] for name, values in logits.items()}
        y, w = labels[inside], weight[inside]
        probability = {
            name: fit(blend, fitted_on, y, w).probability(scored).astype(np.float64)
            for name, fit in CALIBRATIONS.items()
        }
        probability[ISOTONIC] = isotonic(z[inside], y, w, z[outside])
        for name, p in probability.items():
            losses[name][outside] = _logloss(labels[outside], p)
    return losses


def isotonic(z: Logits, labels: Vector, weight: Vector, at: Logits) -> npt.NDArray[np.float64]:
    """Click probability at logits `at` by isotonic regression on (z, labels).

    One row of half a click stands beyond either end of the scale, so that no probability is 0 or 1
    and the logloss is finite.
    """
    from scipy.optimize import isotonic_regression  # fitting needs the train extra

    order = np.argsort(z, kind="stable")
    ends = np.array([0.5, 0.5])
    steps = isotonic_regression(
        np.r_[ends[:1], np.asarray(labels, float)[order], ends[1:]],
        weights=np.r_[1.0, np.asarray(weight, float)[order], 1.0],
    ).x
    return np.asarray(np.interp(at, np.asarray(z, float)[order], steps[1:-1]))


def _logloss(labels: Vector, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)))


def _shift_to_mean(z: Logits, target: float, sample_weight: Vector | None) -> float:
    """The bias that makes the mean of σ(z + bias) equal `target`, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        if np.average(sigmoid(z + middle), weights=sample_weight) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
