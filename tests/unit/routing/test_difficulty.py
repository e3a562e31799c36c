"""Difficulty scores on rows whose hard ones are planted."""

import numpy as np
import pytest

from dynens.metrics import sigmoid
from dynens.routing.difficulty import DIFFICULTY, RouteRows


def planted(num_rows: int = 4000) -> tuple[RouteRows, np.ndarray]:
    """The ensemble disagrees with the student exactly where the hidden unit 0 is positive."""
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(num_rows, 4))
    student = rng.normal(size=num_rows)
    hard = hidden[:, 0] > 0.8
    ensemble = student + np.where(hard, 2.0 * np.sign(hidden[:, 1]), 0.01)
    labels = (rng.random(num_rows) < sigmoid(ensemble)).astype(float)
    spread = np.where(hard, 1.5, 0.05)
    rows = RouteRows(
        labels=labels,
        weight=np.ones(num_rows),
        student_logit=student,
        hidden=hidden,
        rarity=rng.random((num_rows, 2)),
        easy_logit=student,
        hard_logit=ensemble,
        member_logits=ensemble[:, None] + spread[:, None] * np.array([-1.0, 0.0, 1.0]),
    )
    return rows, hard


@pytest.mark.parametrize(
    "name", ["predicted_gap", "predicted_auc_gain", "loss_reduction", "disagreement"]
)
def test_fitted_scores_find_the_planted_hard_rows(name: str) -> None:
    rows, hard = planted()
    half = np.arange(len(hard)) < len(hard) // 2
    score = DIFFICULTY[name](rows.take(half), 0).score(rows.take(~half))
    top = np.argsort(-score)[: hard[~half].sum()]
    found = hard[~half][top].mean()
    assert found > (0.5 if name == "loss_reduction" else 0.75)
    assert hard.mean() < 0.25


def test_fixed_scores_by_hand() -> None:
    rows, _ = planted(8)
    z = rows.student_logit
    p = sigmoid(z)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert DIFFICULTY["margin"](rows, 0).score(rows) == pytest.approx(-np.abs(z), abs=1e-6)
    assert DIFFICULTY["entropy"](rows, 0).score(rows) == pytest.approx(entropy, abs=1e-5)
    assert DIFFICULTY["rarity"](rows, 0).score(rows) == pytest.approx(-rows.rarity[:, 0])


def test_random_score_is_fixed_and_says_nothing() -> None:
    rows, hard = planted()
    score = DIFFICULTY["random"](rows, 0).score(rows)
    assert np.array_equal(score, DIFFICULTY["random"](rows, 1).score(rows))
    assert abs(np.corrcoef(score, hard)[0, 1]) < 0.05
    assert 0.45 < np.median(score) < 0.55


def test_fitting_is_seeded() -> None:
    rows, _ = planted(500)
    one, two = (DIFFICULTY["predicted_gap"](rows, 3).score(rows) for _ in range(2))
    assert np.array_equal(one, two)
