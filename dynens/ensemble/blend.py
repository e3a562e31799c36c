"""Blends: every system's probability is a logistic function of model logits.

p = σ(bias + Σᵢ wᵢ zᵢ), which holds an average in logit space, fitted member weights, Platt scaling
and a temperature in one object that exports to a handful of ONNX nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.metrics import sigmoid

Logits = npt.NDArray[np.float32]
SLOPE_PRIOR_ROWS = 20.0


@dataclass(frozen=True)
class Blend:
    """p = σ(bias + Σ weights[name] · logit[name])."""

    weights: dict[str, float]
    bias: float = 0.0

    def logit(self, logits: Mapping[str, Logits]) -> Logits:
        """Blended logits (N,) float32 from each named model's logits (N,)."""
        total: npt.NDArray[np.float64] | float = self.bias
        for name, weight in self.weights.items():
            total = total + weight * np.asarray(logits[name], dtype=np.float64)
        return np.asarray(total, dtype=np.float32)

    def probability(self, logits: Mapping[str, Logits]) -> Logits:
        """Blended probabilities (N,) float32 in (0, 1)."""
        return sigmoid(self.logit(logits)).astype(np.float32)

    def scaled(self, scale: float, bias: float) -> Blend:
        """The blend whose logit is `scale · logit + bias` of this one's."""
        weights = {name: scale * weight for name, weight in self.weights.items()}
        return Blend(weights, scale * self.bias + bias)

    def to_dict(self) -> dict[str, object]:
        return {"weights": self.weights, "bias": self.bias}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Blend:
        weights, bias = data["weights"], data["bias"]
        assert isinstance(weights, dict)
        assert isinstance(bias, int | float)
        return cls({str(k): float(v) for k, v in weights.items()}, float(bias))


def fit_logistic(
    inputs: npt.NDArray[np.floating],
    labels: npt.NDArray[np.floating],
    *,
    sample_weight: npt.NDArray[np.floating] | None = None,
    prior_mean: npt.NDArray[np.floating] | None = None,
    l2: float = 0.0,
) -> tuple[npt.NDArray[np.float64], float]:
    """Weighted logistic regression by L-BFGS.

    minimise mean BCE(y, σ(Xw + b)) + l2/2 ‖w − prior_mean‖².

    Args:
        inputs: (N, K) features.
        labels: (N,) in [0, 1].
        sample_weight: (N,) or None.
        prior_mean: (K,) the weights that `l2` pulls towards (zeros when None).
        l2: strength of the pull, per mean loss.

    Returns:
        weights (K,) and bias.
    """
    from scipy.optimize import minimize  # fitting needs the train extra; applying a blend does not

    features = np.asarray(inputs, dtype=np.float64)
    target = np.asarray(labels, dtype=np.float64)
    weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, float)
    weight = weight / weight.sum()
    mean = np.zeros(features.shape[1]) if prior_mean is None else np.asarray(prior_mean, float)

    def objective(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        coefficients, bias = parameters[:-1], parameters[-1]
        z = features @ coefficients + bias
        loss = weight @ (np.logaddexp(0.0, z) - target * z)
        residual = weight * (sigmoid(z) - target)
        pull = coefficients - mean
        gradient = np.r_[residual @ features + l2 * pull, residual.sum()]
        return loss + 0.5 * l2 * float(pull @ pull), gradient

    solution = minimize(objective, np.r_[mean, 0.0], jac=True, method="L-BFGS-B")
    return solution.x[:-1], float(solution.x[-1])


def platt(
    blend: Blend,
    logits: Mapping[str, Logits],
    labels: npt.NDArray[np.floating],
    sample_weight: npt.NDArray[np.floating] | None = None,
) -> Blend:
    """`blend` after Platt scaling (Platt 1999): σ(a·z + b), fitted on the given rows.

    The slope is pulled towards 1 by the weight of `SLOPE_PRIOR_ROWS` rows, so that a handful of
    rows cannot stretch the scale.

    The slope stays positive so that calibration never reverses a ranking; rows that would ask for
    a slope ≤ 0 leave the blend's scale alone and fit the bias only.
    """
    z = blend.logit(logits)
    slope, bias = fit_logistic(
        z[:, None],
        labels,
        sample_weight=sample_weight,
        prior_mean=np.ones(1),
        l2=SLOPE_PRIOR_ROWS / len(z),
    )
    if slope[0] <= 0:
        target = float(np.clip(np.average(labels, weights=sample_weight), 1e-6, 1 - 1e-6))
        return blend.scaled(1.0, _shift_to_mean(z, target, sample_weight))
    return blend.scaled(float(slope[0]), bias)


def _shift_to_mean(
    z: Logits, target: float, sample_weight: npt.NDArray[np.floating] | None
) -> float:
    """The bias that makes the mean of σ(z + bias) equal `target`, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        if np.average(sigmoid(z + middle), weights=sample_weight) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2
