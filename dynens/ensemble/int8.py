"""INT8 or not, one graph at a time: kept where it costs no accuracy and saves time here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynens.batch import EncodedBatch
from dynens.ensemble.scorer import PoolScorer
from dynens.metrics import auc
from dynens.models.quantize import quantize_graph

CALIBRATION_ROWS = 4096
MAX_AUC_LOSS = 2e-4
MIN_TIME_SAVED = 0.05


@dataclass(frozen=True)
class GraphFigures:
    """One form of a graph: its file, its time per row at 100 rows on one thread, its AUC."""

    size_bytes: int
    cost_us_per_row: float
    auc: float


@dataclass(frozen=True)
class Int8Trial:
    """What trying INT8 on one graph gave; `int8` is None where nothing could be quantised."""

    kept: bool
    why: str
    fp32: GraphFigures | None = None
    int8: GraphFigures | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Int8Trial:
        """What `to_dict` gave."""
        fp32, int8 = (
            None if data[form] is None else GraphFigures(**data[form]) for form in ("fp32", "int8")
        )
        return cls(data["kept"], data["why"], fp32, int8)


def decide(fp32: GraphFigures, int8: GraphFigures) -> Int8Trial:
    """INT8 where AUC falls by less than 0.0002 and time by at least 5 %."""
    gain = int8.auc - fp32.auc
    saved = 1 - int8.cost_us_per_row / fp32.cost_us_per_row
    if np.isnan(gain):
        return Int8Trial(False, "AUC is undefined on the rows that decide", fp32, int8)
    change = f"time {-saved:+.1%}, AUC {gain:+.5f}"
    if -gain >= MAX_AUC_LOSS:
        return Int8Trial(False, f"AUC falls too far: {change}", fp32, int8)
    if saved < MIN_TIME_SAVED:
        return Int8Trial(False, f"saves too little: {change}", fp32, int8)
    return Int8Trial(True, change, fp32, int8)


def try_int8(
    source: Path, calibration: EncodedBatch, judged: EncodedBatch, path: Path
) -> Int8Trial:
    """Write the INT8 form of a graph to `path` and compare the two, taking turns.

    Args:
        source: a graph with the output `logit`.
        calibration: rows that set the ranges of activations.
        judged: labelled rows that trained nothing; they decide.
        path: the file to write.
    """
    if not quantize_graph(source, calibration, path):
        return Int8Trial(False, "has no dense layers")
    files = {"fp32": source, "int8": path}
    scorer = PoolScorer(files)
    cost = scorer.cost_us_per_row(judged)
    logits = scorer.logits(judged)
    assert judged.labels is not None
    fp32, int8 = (
        GraphFigures(
            file.stat().st_size, cost[name], auc(judged.labels, logits[name], judged.sample_weight)
        )
        for name, file in files.items()
    )
    return decide(fp32, int8)


def calibration_rows(train: EncodedBatch, seed: int) -> EncodedBatch:
    """A seeded sample of training rows, without their labels' use."""
    rows = np.random.default_rng([seed, 0x18]).permutation(len(train))[:CALIBRATION_ROWS]
    return train.take(np.sort(rows))
