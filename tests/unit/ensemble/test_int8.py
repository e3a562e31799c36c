"""When an INT8 graph is kept."""

from pathlib import Path

import numpy as np
import pytest

from dynens.batch import EncodedBatch
from dynens.ensemble.int8 import GraphFigures, calibration_rows, decide, try_int8
from tests.unit.ensemble.test_fuse import linear_member

FP32 = GraphFigures(size_bytes=4000, cost_us_per_row=2.0, auc=0.8)


@pytest.mark.parametrize(
    ("cost", "auc", "kept", "why"),
    [
        (1.0, 0.8001, True, "time -50.0%, AUC +0.00010"),
        (1.88, 0.79981, True, "time -6.0%, AUC -0.00019"),
        (1.0, 0.79975, False, "AUC falls too far: time -50.0%, AUC -0.00025"),
        (1.92, 0.8, False, "saves too little: time -4.0%, AUC +0.00000"),
        (2.5, 0.81, False, "saves too little: time +25.0%, AUC +0.01000"),
        (1.0, float("nan"), False, "AUC is undefined on the rows that decide"),
    ],
)
def test_rule(cost: float, auc: float, kept: bool, why: str) -> None:
    trial = decide(FP32, GraphFigures(1000, cost, auc))
    assert (trial.kept, trial.why) == (kept, why)
    assert trial.fp32 == FP32


def test_a_graph_without_dense_layers_stays(tmp_path: Path) -> None:
    linear_member(tmp_path / "a.onnx", 1.0, [0.0, 1.0, 2.0])
    rows = EncodedBatch(
        np.zeros((4, 1), np.float32), np.zeros((4, 1), np.int32), np.array([0, 1, 0, 1], np.float32)
    )
    trial = try_int8(tmp_path / "a.onnx", rows, rows, tmp_path / "b.onnx")
    assert (trial.kept, trial.why, trial.int8) == (False, "has no dense layers", None)
    assert not (tmp_path / "b.onnx").exists()


def test_calibration_rows_are_a_seeded_sample() -> None:
    rows = EncodedBatch(np.zeros((9000, 0), np.float32), np.arange(9000, dtype=np.int32)[:, None])
    first, again, other = (calibration_rows(rows, seed) for seed in (1, 1, 2))
    assert len(np.unique(first.ids)) == 4096
    assert (first.ids == again.ids).all()
    assert (first.ids != other.ids).any()
    assert len(calibration_rows(rows.take(slice(0, 7)), 1)) == 7
