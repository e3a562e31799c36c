"""How well values tell labels that they have not seen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEAK_AUC = 0.97
"""Of what is nearly the label."""
_SMOOTHING = 10.0
_HALVES_SEED = (731, 1987)  # far from the seeds that made-up tables are drawn with

Labels = npt.NDArray[np.float32]


def auc_noise(num_positive: int) -> float:
    """Difference between two held-out AUCs that may be chance."""
    return max(0.004, 0.5 / float(np.sqrt(max(num_positive, 1))))


def halves(num_rows: int) -> npt.NDArray[np.bool_]:
    """(num_rows,) which rows are of the first half, always the same ones."""
    return np.random.default_rng(_HALVES_SEED).random(num_rows) < 0.5


def held_out_auc(
    codes: npt.NDArray[np.int64], labels: Labels, half: npt.NDArray[np.bool_]
) -> float:
    """AUC of each half's labels under the other half's smoothed label rate per code."""
    size = int(codes.max()) + 1
    rate = float(labels.mean())
    scores = np.zeros(len(codes))
    for mine in (half, ~half):
        counts = np.bincount(codes[~mine], minlength=size)
        positives = np.bincount(codes[~mine], labels[~mine], minlength=size)
        scores[mine] = ((positives + _SMOOTHING * rate) / (counts + _SMOOTHING))[codes[mine]]
    both = (_rank_auc(scores[mine], labels[mine]) for mine in (half, ~half))
    return float(np.mean(list(both)))


def ranges(values: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.int64]:
    """(N,) which of so many ranges with equally many values each is in, from 1 on; 0: missing."""
    is_known = np.isfinite(values)
    points = np.linspace(0, 1, number + 1)[1:-1]
    edges = np.unique(np.quantile(values[is_known], points)) if is_known.any() else values[:0]
    return np.where(is_known, np.searchsorted(edges, values) + 1, 0)


def _rank_auc(scores: npt.NDArray[np.float64], labels: Labels) -> float:
    positives = int((labels > 0).sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[inverse]
    wins = ranks[labels > 0].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))
