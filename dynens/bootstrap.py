"""Paired bootstrap of the AUC: the same resampled rows for every system, so differences are fair.

Resampling uses Poisson(1) row weights, which agree with drawing rows with replacement for large n
and let one sort per system serve every draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dynens.metrics import auc

Scores = npt.NDArray[np.floating]
Draws = npt.NDArray[np.float64]


class WeightedAUC:
    """AUC of fixed scores under changing row weights; ties count one half.

    Args:
        labels: (N,) in [0, 1]. One between counts as so much of a positive and the rest of a
            negative row: with probabilities for labels this is the AUC to be expected of them.
        scores: (N,) finite.
    """

    def __init__(self, labels: npt.ArrayLike, scores: npt.ArrayLike) -> None:
        values = np.asarray(scores, dtype=np.float64)
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        self._starts = starts
        self._positive = np.asarray(labels, dtype=np.float64)[self._order]

    def __call__(self, weight: npt.NDArray[Any]) -> float:
        """AUC under `weight` (N,) ≥ 0; NaN when one class has no weight."""
        ordered = weight[self._order]
        positive = np.add.reduceat(ordered * self._positive, self._starts)
        negative = np.add.reduceat(ordered * (1.0 - self._positive), self._starts)
        below = np.cumsum(negative) - negative
        total = positive.sum() * negative.sum()
        if total == 0:
            return float("nan")
        return float(positive @ (below + negative / 2) / total)


class RandomRouteAUC:
    """AUC to be expected under changing row weights where chance routes each row.

    The mean over all ways to route, so that no luck of one draw counts: a row is there twice, with
    either score and the share of its weight that goes with it.

    Args:
        labels: (N,) in [0, 1].
        easy, hard: (N,) finite scores of the two routes.
        share: of rows that are sent to `hard`, each on its own.
    """

    def __init__(
        self, labels: npt.ArrayLike, easy: npt.ArrayLike, hard: npt.ArrayLike, share: float
    ) -> None:
        self._both = WeightedAUC(np.tile(labels, 2), np.concatenate([easy, hard]))
        self._shares = (1.0 - share, share)

    def __call__(self, weight: npt.NDArray[Any]) -> float:
        """The AUC under `weight` (N,) ≥ 0; NaN when one class has no weight."""
        return self._both(np.concatenate([share * weight for share in self._shares]))


def auc_draws(
    labels: npt.ArrayLike,
    systems: Mapping[str, npt.ArrayLike | RandomRouteAUC],
    *,
    draws: int,
    seed: int,
    sample_weight: npt.ArrayLike | None = None,
) -> dict[str, Draws]:
    """Bootstrap draws (draws,) of every system's AUC, paired across systems."""
    functions = {
        name: system if isinstance(system, RandomRouteAUC) else WeightedAUC(labels, system)
        for name, system in systems.items()
    }
    result = {name: np.empty(draws) for name in systems}
    num_rows = len(np.asarray(labels))
    generator = np.random.default_rng(seed)
    base = 1.0 if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    for draw in range(draws):
        weight = generator.poisson(1.0, size=num_rows) * base
        for name, function in functions.items():
            result[name][draw] = function(weight)
    return result


@dataclass(frozen=True)
class Interval:
    """A point estimate with a percentile interval."""

    value: float
    low: float
    high: float


def interval(value: float, draws: Draws) -> Interval:
    """The 95 % percentile interval of `draws` around `value` (NaN draws are left out)."""
    finite = draws[np.isfinite(draws)]
    if len(finite) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(finite, [0.025, 0.975])
    return Interval(value, float(low), float(high))


class PairedAUC:
    """AUC of several systems on the same rows, and how far they lie apart.

    Args:
        labels: (N,) in {0, 1}.
        systems: (N,) scores by name, or random routing.
        draws: resamples behind every interval.
        seed: of these.
        sample_weight: (N,) positive.

    Attributes:
        value: AUC by name.
    """

    def __init__(
        self,
        labels: npt.ArrayLike,
        systems: Mapping[str, npt.ArrayLike | RandomRouteAUC],
        *,
        draws: int,
        seed: int,
        sample_weight: npt.ArrayLike | None = None,
    ) -> None:
        once = np.ones(len(np.asarray(labels)))
        weight = once if sample_weight is None else np.asarray(sample_weight)
        self.value = {
            name: system(weight)
            if isinstance(system, RandomRouteAUC)
            else auc(labels, system, weight)
            for name, system in systems.items()
        }
        self._draws = auc_draws(labels, systems, draws=draws, seed=seed, sample_weight=weight)

    def difference(self, system: str, other: str) -> dict[str, float]:
        """`value` of the AUC of `system` less that of `other`; `low` and `high` of its paired 95 %
        interval."""
        gap = self.value[system] - self.value[other]
        return vars(interval(gap, self._draws[system] - self._draws[other]))
