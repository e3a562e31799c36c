"""Figures that only the report shows: reliability, hard slices, correlations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch, FeatureLayout, field_offsets
from dynens.evaluation.systems import Scored
from dynens.metrics import auc

RELIABILITY_BINS = 15
MIN_SLICE_SHARE = 0.02
MAX_SLICES = 12


def reliability_curves(
    scored: Scored, batch: EncodedBatch
) -> dict[str, tuple[list[float], list[float]]]:
    """Mean prediction and click rate in equal-mass bins, per route and pooled."""
    assert batch.labels is not None
    p, y = scored.probabilities["dynamic"], np.asarray(batch.labels)
    w = np.ones(len(y)) if batch.sample_weight is None else np.asarray(batch.sample_weight)
    masks = {
        "student route": scored.route == 0,
        "ensemble route": scored.route == 1,
        "pooled": np.ones(len(y), dtype=bool),
    }
    return {
        name: _reliability(p[mask], y[mask], w[mask])
        for name, mask in masks.items()
        if mask.sum() >= 10 * RELIABILITY_BINS
    }


def _reliability(
    p: npt.NDArray[np.floating], y: npt.NDArray[np.floating], w: npt.NDArray[np.floating]
) -> tuple[list[float], list[float]]:
    bins = np.array_split(np.argsort(p, kind="stable"), RELIABILITY_BINS)
    predicted = [float(np.average(p[b], weights=w[b])) for b in bins]
    observed = [float(np.average(y[b], weights=w[b])) for b in bins]
    return predicted, observed


def correlation_matrix(scored: Scored) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Correlations between the raw logits of all models, (K, K)."""
    names = list(scored.logits)
    if len(next(iter(scored.logits.values()))) < 2:
        return names, np.full((len(names), len(names)), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return names, np.corrcoef(np.stack([scored.logits[n] for n in names]).astype(np.float64))


@dataclass(frozen=True)
class Slice:
    """One slice of the test rows."""

    name: str
    rows: int
    hard_share: float
    student_auc: float
    static_auc: float
    dynamic_auc: float


def hard_slices(
    scored: Scored,
    batch: EncodedBatch,
    layout: FeatureLayout,
    id_frequency: npt.NDArray[np.int64],
    value_name: Callable[[str, int], str],
) -> list[Slice]:
    """Slices by how often a row's rarest id was seen, then by field: frequent, rare, unknown.

    Only slices with at least 2 % of the rows; the hardest first.
    """
    slices = _frequency_slices(scored, batch, layout, id_frequency)
    offsets = field_offsets(layout.fields)
    for (field, columns), start in zip(layout.columns(), offsets, strict=True):
        counts = id_frequency[start : start + field.num_embeddings]
        ids = np.asarray(batch.ids[:, columns.start])
        if field.num_embeddings > 200:
            median = np.median(counts[np.maximum(ids, 0)])
            seen = counts[np.maximum(ids, 0)]
            groups = {
                f"{field.name}: unknown or missing": ids < 2,
                f"{field.name}: rarer half": (ids >= 2) & (seen <= median),
                f"{field.name}: more frequent half": (ids >= 2) & (seen > median),
            }
        else:
            groups = {
                f"{field.name} = {value_name(field.name, value)}": ids == value
                for value in range(field.num_embeddings)
            }
        slices += [_slice(name, mask, scored, batch) for name, mask in groups.items()]
    floor = MIN_SLICE_SHARE * len(batch)
    kept = [s for s in slices if s.rows >= floor]
    return sorted(kept, key=lambda s: -s.hard_share)[:MAX_SLICES]


def _frequency_slices(
    scored: Scored,
    batch: EncodedBatch,
    layout: FeatureLayout,
    id_frequency: npt.NDArray[np.int64],
) -> list[Slice]:
    rarest = np.full(len(batch), np.iinfo(np.int64).max)
    offsets = field_offsets(layout.fields)
    for (field, columns), start in zip(layout.columns(), offsets, strict=True):
        counts = id_frequency[start : start + field.num_embeddings]
        rarest = np.minimum(rarest, counts[np.maximum(batch.ids[:, columns.start], 0)])
    edges = [(0, 5), (5, 20), (20, 100), (100, 500), (500, None)]
    slices = []
    for low, high in edges:
        mask = (rarest >= low) & (rarest < high) if high else rarest >= low
        name = f"rarest id seen {low}–{high - 1} times" if high else f"rarest id seen {low}+ times"
        slices.append(_slice(name, mask, scored, batch))
    return slices


def _slice(name: str, mask: npt.NDArray[np.bool_], scored: Scored, batch: EncodedBatch) -> Slice:
    assert batch.labels is not None
    y = np.asarray(batch.labels)[mask]
    w = None if batch.sample_weight is None else np.asarray(batch.sample_weight)[mask]

    def of(system: str) -> float:
        return auc(y, scored.probabilities[system][mask], w)

    rows = int(mask.sum())
    share = float(scored.route[mask].mean()) if rows else 0.0
    return Slice(name, rows, share, of("student"), of("static_ensemble"), of("dynamic"))
