"""The confidence cascade at equal cost."""

import numpy as np
import pytest

from benchmarks.cascade import CASCADES, TABLE, cascaded, least_sure, markdown
from dynens.evaluation.systems import Scored

LOGIT = np.array([2.0, -0.1, 0.5, -3.0, 0.1], np.float32)


def scored() -> Scored:
    probabilities = {
        "student": np.full(5, 0.1, np.float32),
        "static_ensemble": np.full(5, 0.2, np.float32),
        "static_ensemble_with_student": np.full(5, 0.3, np.float32),
    }
    difficulty = np.zeros(5, np.float32)
    return Scored({"student": LOGIT}, probabilities, difficulty, np.zeros(5, np.int32))


def test_the_least_sure_rows_have_the_smallest_margin() -> None:
    assert least_sure(LOGIT, 0).tolist() == [False] * 5
    assert least_sure(LOGIT, 1).tolist() == [False, True, False, False, False]  # a tie: the first
    assert least_sure(LOGIT, 3).tolist() == [False, True, True, False, True]
    assert least_sure(LOGIT, 5).all()


@pytest.mark.parametrize(("name", "hard"), [("cascade", 0.2), ("cascade_with_student", 0.3)])
def test_only_those_rows_get_the_ensembles_answer(name: str, hard: float) -> None:
    probability = cascaded(scored(), 2, CASCADES[name])
    assert probability == pytest.approx([0.1, hard, 0.1, 0.1, hard])


def test_the_table_names_the_difficulty_and_both_differences() -> None:
    system = {"auc": 0.8, "logloss": 0.3, "cost_us_per_row": 2.0}
    pair = {"value": 0.0012, "low": -0.0001, "high": 0.0025}
    result = {
        "dataset": "d",
        "seed": 1,
        "difficulty": "predicted_gap",
        "systems": {name: dict(system) for name in TABLE},
        "paired": {f"dynamic_minus_{name}": pair for name in CASCADES},
    }
    text = markdown({"results": [result]})
    assert "| cascade with student | 0.8000 | 0.3000 | 2.0 | – |" in text
    cell = "+0.0012 [-0.0001, +0.0025]"
    assert f"| 1 | predicted gap | {cell} | {cell} |" in text
