"""Row weights count wherever a benchmark tells an AUC."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import pool_study, serving
from dynens.batch import EncodedBatch
from dynens.metrics import auc

LABELS = np.array([0, 1, 0, 1, 1, 0], np.float32)
WEIGHT = np.array([1, 5, 2, 1, 1, 4], np.float32)
SCORES = np.array([0.1, 0.2, 0.5, 0.6, 0.3, 0.4], np.float32)
ROWS = EncodedBatch(np.zeros((6, 0), np.float32), np.zeros((6, 0), np.int32), LABELS, WEIGHT)
DATA: Any = SimpleNamespace(split=lambda name: ROWS)


def test_the_auc_delivered_under_load_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(
        student=SimpleNamespace(run=lambda *_: (SCORES,)),
        threshold=float("inf"),
        score=lambda rows, threshold: SimpleNamespace(probability=SCORES),
    )
    monkeypatch.setattr(serving.Engine, "load", lambda run: engine)
    monkeypatch.setattr(serving, "open_run_data", lambda run: DATA)
    expected = auc(LABELS, SCORES, WEIGHT)
    assert expected != auc(LABELS, SCORES)
    assert serving.auc_at(Path("run"), 1.0) == expected


def test_the_best_trio_is_chosen_by_weighted_rows() -> None:
    results: Any = [
        SimpleNamespace(name=name, valid_logits=SCORES, test_logits=SCORES) for name in "abc"
    ]
    found = pool_study.best_trio(DATA, results)
    assert found["valid_auc"] == found["test_auc"] == pytest.approx(auc(LABELS, SCORES, WEIGHT))
