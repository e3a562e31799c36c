"""How well values tell labels that they have not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.metrics import auc

LEAK_AUC = 0.97
"""Of what is nearly the label."""
COPY_AUC = 0.9999
"""From here on it is the label itself."""
_SMOOTHING = 10.0
_HALVES_SEED = (731, 1987)  # far from the seeds that made-up tables are drawn with

ENOUGH_ROWS = 20
"""With and without a value, for either to tell something."""
_CHANCE = 1e-4  # that so many rows have one class though the column tells nothing
_MANY_ROWS = 100
_BUCKETS = 20
_NO_SMALL_PART, _ENOUGH_EXPECTED = 0.1, 20.0  # of the rows; positive ones by chance

Labels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelFacts:
    """What one column tells of the label, its AUCs on the other half of the rows.

    Attributes:
        auc_by_value: of the label rate per value.
        auc_by_bucket: of the label rate per quantile range (numbers only).
        auc_by_absence: of the label rate of missing and of known values.
        auc_by_usual: of that of the most common value (missing may be it) and of all others.
        auc_by_part: of one of the first parts of texts, or the last one.
        num_positive: positive rows.
        implied: whether all values but the most common one go almost only with one class.
        is_positive_only: whether they all go with the positive class, in many rows.
        ruled_out: the value of many rows of which none is positive, in words, or None.
    """

    auc_by_value: float = 0.5
    auc_by_bucket: float = 0.5
    auc_by_absence: float = 0.5
    auc_by_usual: float = 0.5
    auc_by_part: float = 0.5
    num_positive: int = 0
    implied: bool = False
    is_positive_only: bool = False
    ruled_out: str | None = None

    @property
    def auc_noise(self) -> float:
        """Difference between two of the AUCs that may be chance."""
        return auc_noise(self.num_positive)

    @property
    def size_tells(self) -> bool:
        """Whether how large numbers are tells the label beyond chance."""
        return self.auc_by_bucket >= 0.5 + 2 * self.auc_noise


def label_facts(
    codes: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64] | None, labels: Labels
) -> LabelFacts:
    """What codes, and the numbers that they stand for, tell of the labels."""
    half = halves(len(codes))
    by_bucket = 0.5
    if numbers is not None:
        by_bucket = held_out_auc(ranges(numbers, _BUCKETS), labels, half)
    return LabelFacts(
        auc_by_value=held_out_auc(codes + 1, labels, half),
        auc_by_bucket=by_bucket,
        auc_by_absence=_auc_by_absence(codes >= 0, labels),
        auc_by_usual=held_out_auc(unusual(codes).astype(np.int64), labels, half),
        num_positive=int(labels.sum()),
        implied=implies(codes, labels),
        is_positive_only=is_positive_only(codes, labels),
    )


def absence_facts(known: npt.NDArray[np.bool_], labels: Labels) -> LabelFacts:
    """What it tells of the labels whether rows have a value."""
    return LabelFacts(auc_by_absence=_auc_by_absence(known, labels))


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
    tallies = [
        (
            np.bincount(codes[at], minlength=size),
            np.bincount(codes[at], labels[at], minlength=size).astype(np.float64),
        )
        for at in (half, ~half)
    ]
    both = []
    for mine, (counts, positives) in zip(tallies, tallies[::-1], strict=True):
        scores = (positives + _SMOOTHING * rate) / (counts + _SMOOTHING)
        both.append(_rank_auc(scores, *mine))
    return float(np.mean(both))


def ranges(values: npt.NDArray[np.float64], number: int) -> npt.NDArray[np.int64]:
    """(N,) which of so many ranges with equally many values each is in, from 1 on; 0: missing."""
    is_known = np.isfinite(values)
    points = np.linspace(0, 1, number + 1)[1:-1]
    edges = np.unique(np.quantile(values[is_known], points)) if is_known.any() else values[:0]
    return np.where(is_known, np.searchsorted(edges, values) + 1, 0)


def chi2_of(codes: npt.NDArray[np.int64], rest: npt.NDArray[np.floating]) -> float:
    """`Σ (Σ r)² / (n · mean r²)` over ranges of n rows each, about as many by chance.

    Args:
        codes: (N,) each row's range, from 1 on; 0: in none.
        rest: (N,) r, what the labels are beyond what is known of them.
    """
    counts, sums = np.bincount(codes)[1:], np.bincount(codes, rest)[1:]
    return float((sums**2 / np.maximum(counts, 1)).sum() / max(float((rest**2).mean()), 1e-12))


def beyond(
    rest: npt.NDArray[np.float64], known: Sequence[npt.NDArray[np.int64]], rounds: int
) -> npt.NDArray[np.float64]:
    """What is left of (N,) `rest` when the smoothed means of codes are taken away, in turn.

    Args:
        rest: (N,) the labels less their mean.
        known: (N,) codes each, from -1 on, whose means are known.
        rounds: how often, as what one of them leaves has means by the others.
    """
    for _ in range(rounds):
        for codes in known:
            counts, sums = np.bincount(codes + 1), np.bincount(codes + 1, rest)
            rest = rest - (sums / (counts + _SMOOTHING))[codes + 1]
    return rest


def _rank_auc(
    scores: npt.NDArray[np.float64],
    counts: npt.NDArray[np.int64],
    positives: npt.NDArray[np.float64],
) -> float:
    """AUC of codes with these scores, and so many rows and positive ones each; ½ of one class."""
    labels = np.repeat((1.0, 0.0), len(scores))
    value = auc(labels, np.tile(scores, 2), np.concatenate((positives, counts - positives)))
    return 0.5 if math.isnan(value) else value


def _auc_by_absence(known: npt.NDArray[np.bool_], labels: Labels) -> float:
    """Held-out AUC of whether rows have a value."""
    return held_out_auc(known.astype(np.int64), labels, halves(len(known)))


def unusual(codes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(N,) which rows have not the most common value; -1, missing, is one."""
    at: npt.NDArray[np.bool_] = codes + 1 != np.bincount(codes + 1).argmax()
    return at


def implies(codes: npt.NDArray[np.int64], labels: Labels) -> bool:
    """Whether rows that have not the most common value, missing among them, share one class."""
    at = unusual(codes)
    rows, base = int(at.sum()), float(labels.mean())
    if rows < ENOUGH_ROWS:
        return False
    rate = float(labels[at].mean())
    likely = base if rate > 0.5 else 1 - base  # that a row has the class which these rows have
    same = max(rate, 1 - rate)
    return same > 0.97 and likely < 0.8 and bool(likely**rows < _CHANCE)


def is_positive_only(codes: npt.NDArray[np.int64], labels: Labels) -> bool:
    """Whether all of many rows that have not the most common value are of a rare positive class."""
    at = unusual(codes)
    return int(at.sum()) >= _MANY_ROWS and bool(labels[at].all()) and float(labels.mean()) < 0.5


def never_positive(codes: npt.NDArray[np.int64], labels: Labels) -> int | None:
    """The value, if any, of no small part of the rows of which none is positive; -1: missing.

    By chance many of them would be.
    """
    counts, positives = np.bincount(codes + 1), np.bincount(codes + 1, labels)
    counts[positives > 0] = 0
    most = int(counts.argmax())
    enough = max(_NO_SMALL_PART * len(codes), _ENOUGH_EXPECTED / max(float(labels.mean()), 1e-9))
    return most - 1 if counts[most] >= enough else None
