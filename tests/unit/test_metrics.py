"""Metrics against hand arithmetic and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dynens import metrics
from dynens.batch import NO_GROUP


def random_case(rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 40, rows) / 40  # many ties
    labels = (rng.random(rows) < scores).astype(np.float32)
    return labels, scores, rng.uniform(0.1, 3, rows)


def test_auc_by_hand() -> None:
    # Positive/negative pairs: (.4 vs .1) win, (.4 vs .4) tie, (.8 vs both) wins: 3.5 of 4.
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8]) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize("weighted", [False, True])
def test_auc_and_logloss_agree_with_scikit_learn(weighted: bool) -> None:
    labels, scores, weight = random_case()
    w = weight if weighted else None
    assert metrics.auc(labels, scores, w) == pytest.approx(
        roc_auc_score(labels, scores, sample_weight=w), abs=1e-12
    )
    p = np.clip(scores, 0.01, 0.99)
    assert metrics.logloss(labels, p, w) == pytest.approx(
        log_loss(labels, p, sample_weight=w), abs=1e-12
    )


def test_the_error_of_an_auc_is_that_of_samples_drawn_again() -> None:
    generator = np.random.default_rng(3)
    labels = np.repeat([1, 0], [30, 70])
    # Scores of positives fall by an exponential law, as the formula takes them to.
    drawn = [
        metrics.auc(labels, generator.exponential(np.where(labels > 0, 3.0, 1.0)))
        for _ in range(2000)
    ]
    assert metrics.auc_error(0.75, labels) == pytest.approx(np.std(drawn), rel=0.05)


def test_the_error_of_an_auc_needs_both_classes() -> None:
    assert math.isnan(metrics.auc_error(0.5, [1, 1]))
    assert math.isnan(metrics.auc_error(math.nan, [1, 0]))
    assert metrics.auc_error(1.0, [1, 0, 0]) == 0
    assert metrics.auc_error(math.nextafter(1.0, 0.0), [1, 0] * 50_000) < 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_gauc_is_the_weighted_mean_of_the_groups_aucs(weighted: bool) -> None:
    labels, scores, weight = random_case(seed=1)
    groups = np.random.default_rng(2).integers(0, 700, len(labels))  # some single-class
    w = weight if weighted else np.ones(len(labels))
    total, mass = 0.0, 0.0
    for g in np.unique(groups):
        rows = groups == g
        if labels[rows].min() != labels[rows].max():
            size = w[rows].sum()
            total += size * roc_auc_score(labels[rows], scores[rows], sample_weight=w[rows])
            mass += size
    assert metrics.gauc(labels, scores, groups, w) == pytest.approx(total / mass, abs=1e-10)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_gauc_does_not_depend_on_the_unit_of_weights(unit: float) -> None:
    labels, scores, weight = random_case(seed=1)
    groups = np.random.default_rng(2).integers(0, 700, len(labels))
    expected = metrics.gauc(labels, scores, groups, weight)
    assert metrics.gauc(labels, scores, groups, unit * weight) == pytest.approx(expected, abs=1e-9)


def test_rows_without_a_group_have_no_part_in_gauc() -> None:
    labels, scores, weight = random_case(seed=1)
    groups = np.random.default_rng(2).integers(-1, 20, len(labels))
    known = groups != NO_GROUP
    assert metrics.gauc(labels, scores, groups, weight) == pytest.approx(
        metrics.gauc(labels[known], scores[known], groups[known], weight[known]), abs=1e-12
    )
    assert math.isnan(metrics.gauc(labels, scores, np.full(len(labels), NO_GROUP), weight))


def test_normalized_entropy_of_the_click_rate_is_one() -> None:
    assert metrics.normalized_entropy([1, 0, 0, 0], [0.25] * 4) == pytest.approx(1.0)


def test_ece_by_hand() -> None:
    # Two bins of two rows: |1/2 - .2| = .3 and |1 - .8| = .2; mean .25.
    assert metrics.ece([0, 1, 1, 1], [0.1, 0.3, 0.7, 0.9], num_bins=2) == pytest.approx(0.25)


def test_ece_does_not_depend_on_the_order_of_tied_rows() -> None:
    assert metrics.ece([0, 0, 1, 1], [0.5] * 4) == pytest.approx(0.0)
    assert metrics.ece([0, 1, 0, 1], [0.5] * 4) == pytest.approx(0.0)


def test_calibration_ratio_by_hand() -> None:
    assert metrics.calibration_ratio([1, 0, 1], [0.5, 0.5, 0.5]) == pytest.approx(0.75)
    assert metrics.calibration_ratio([1, 0], [0.5, 0.5], [1, 3]) == pytest.approx(2.0)


def test_undefined_metrics_are_nan() -> None:
    one_class = metrics.evaluate_probabilities([1, 1], [0.4, 0.6], groups=[0, 0])
    assert math.isnan(one_class.auc)
    assert math.isnan(one_class.gauc)
    assert math.isnan(one_class.normalized_entropy)
    assert one_class.to_dict()["auc"] is None
    empty = metrics.evaluate_probabilities([], [])
    assert all(math.isnan(v) for v in (empty.auc, empty.logloss, empty.ece))
    assert math.isnan(metrics.auc([0, 1], [0.5, math.nan]))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2, 3 and 2"):
        metrics.auc([0, 1], [0.1, 0.2, 0.3])


def test_logloss_of_a_confident_mistake_is_finite() -> None:
    assert metrics.logloss([0], [1.0]) == pytest.approx(-math.log(1e-7), rel=1e-6)


def test_rows_are_worth_what_the_rarer_class_says() -> None:
    labels = np.zeros(1000, np.float32)
    assert metrics.informative_rows(labels) == 0
    labels[:7] = 1
    assert metrics.informative_rows(labels) == metrics.informative_rows(1 - labels) == 140
    labels[:400] = 1
    assert metrics.informative_rows(labels) == 1000
