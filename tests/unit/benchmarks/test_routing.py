"""The router against random routing, with students that are behind."""

import numpy as np
import pytest

from benchmarks.routing import FRACTIONS, markdown, routed
from dynens.batch import EncodedBatch
from dynens.evaluation.systems import Scored

# The ensemble knows every label, the student has the first two rows the wrong way round.
LABELS = np.array([1, 0, 1, 0, 1, 0, 1, 0, 1, 0], np.float32)
STUDENT = np.where(np.arange(10) < 2, 1 - LABELS, LABELS).astype(np.float32)


def scored(difficulty: np.ndarray) -> Scored:
    probabilities = {"student": STUDENT, "static_ensemble_with_student": LABELS}
    return Scored({}, probabilities, difficulty, np.zeros(10, np.int32))


def batch() -> EncodedBatch:
    empty = np.zeros((10, 0))
    return EncodedBatch(empty.astype(np.float32), empty.astype(np.int32), LABELS)


def test_the_hardest_rows_are_mended_and_those_drawn_only_by_chance() -> None:
    found = routed(scored(-np.arange(10.0)), batch(), 0.2, seed=1)
    assert found["router"] == 1.0
    # 16 of 25 pairs are right and 8 tie where nothing is mended (.8); one of the two mended: .9.
    assert found["random"] == pytest.approx(0.64 * 0.8 + 0.32 * 0.9 + 0.04 * 1.0)
    difference = found["difference"]
    assert difference["value"] == pytest.approx(1 - found["random"])
    assert difference["low"] <= difference["value"] <= difference["high"]


def test_without_hard_rows_both_are_the_student() -> None:
    found = routed(scored(-np.arange(10.0)), batch(), 0.0, seed=1)
    assert found["router"] == found["random"] == pytest.approx(0.8)
    assert found["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_table_says_what_was_chosen() -> None:
    point = {
        "fraction": 0.28,
        "router": 0.8911,
        "random": 0.8857,
        "difference": {"value": 0.0054, "low": 0.0037, "high": 0.0071},
    }
    names = [f"{fraction:.0%}" for fraction in FRACTIONS]
    result = {
        "dataset": "d",
        "seed": 3,
        "student": "labels alone",
        "auc": {"student": 0.8825, "static_ensemble": 0.8951, "both": 0.8955},
        "routed": {**dict.fromkeys(names, point), "chosen": {**point, "fraction": 0.0}},
    }
    text = markdown({"results": [result]})
    assert text.startswith("### d\n")
    assert "| labels alone | 3 | 0.8825 | 0.8951 | 0.8955 | 0.8911 / 0.8857 [+0.0037" in text
    assert "| no hard rows |\n" in text
