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
    fit_bias: bool = True,
) -> tuple[npt.NDArray[np.float64], float]:
    """Weighted logistic regression by L-BFGS.

    minimise mean BCE(y, σ(Xw + b)) + l2/2 ‖w − prior_mean‖².

    Args:
        inputs: (N, K) features.
        labels: (N,) in [0, 1].
        sample_weight: (N,) or None.
        prior_mean: (K,) the weights that `l2` pulls towards (zeros when None).
        l2: strength of the pull, per mean loss.
        fit_bias: whether b is fitted; else it is 0.

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
        gradient = np.r_[residual @ features + l2 * pull, fit_bias * residual.sum()]
        return loss + 0.5 * l2 * float(pull @ pull), gradient

    solution = minimize(objective, np.r_[mean, 0.0], jac=True, method="L-BFGS-B")
    return solution.x[:-1], float(solution.x[-1])
