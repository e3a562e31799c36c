"""Weighted AUC and paired draws."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dynens.bootstrap import PairedAUC, RandomRouteAUC, WeightedAUC, auc_draws, interval


def test_weighted_auc_agrees_with_scikit_learn_on_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = rng.integers(0, 20, 500) / 20
    weight = rng.poisson(1.0, 500).astype(float)
    expected = roc_auc_score(labels, scores, sample_weight=weight)
    assert WeightedAUC(labels, scores)(weight) == pytest.approx(expected, abs=1e-12)


def test_weighted_auc_is_undefined_without_one_class() -> None:
    assert math.isnan(WeightedAUC([1, 1], [0.2, 0.3])(np.ones(2)))


def test_random_routing_is_the_mean_over_all_ways_to_route() -> None:
    rng = np.random.default_rng(2)
    labels, weight = np.array([1, 0, 1, 0, 0]), rng.random(5)
    easy, hard = rng.integers(0, 4, (2, 5)) / 4
    expected = 0.0
    for way in itertools.product([False, True], repeat=5):
        chance = np.prod(np.where(way, 0.3, 0.7))
        expected += chance * WeightedAUC(labels, np.where(way, hard, easy))(weight)
    routed = RandomRouteAUC(labels, easy, hard, 0.3)
    assert routed(weight) == pytest.approx(expected, abs=1e-12)
    draws = auc_draws(
        labels, {"a": easy, "b": RandomRouteAUC(labels, easy, hard, 0)}, draws=9, seed=1
    )
    assert np.array_equal(draws["a"], draws["b"], equal_nan=True)


def test_draws_are_paired_so_equal_systems_never_differ() -> None:
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 300), rng.random(300)
    draws = auc_draws(labels, {"a": scores, "b": 2 * scores}, draws=20, seed=3)
    assert np.array_equal(draws["a"], draws["b"])
    assert draws["a"].std() > 0


def test_interval_holds_the_quantiles_of_the_draws() -> None:
    found = interval(0.5, np.arange(101) / 100)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.025, 0.975))


def test_a_paired_difference_is_far_surer_than_two_aucs() -> None:
    rng = np.random.default_rng(4)
    labels, weight = rng.integers(0, 2, 400), rng.integers(1, 4, 400)
    worse = labels + rng.normal(size=400)
    systems = {"worse": worse, "better": worse + 0.2 * labels, "same": 3 * worse}
    paired = PairedAUC(labels, systems, draws=100, seed=5, sample_weight=weight)
    for name, scores in systems.items():
        expected = roc_auc_score(labels, scores, sample_weight=weight)
        assert paired.value[name] == pytest.approx(expected, abs=1e-12)
    assert paired.difference("same", "worse") == {"value": 0.0, "low": 0.0, "high": 0.0}
    gain = paired.difference("better", "worse")
    assert 0 < gain["low"] < gain["value"] < gain["high"]
    draws = auc_draws(labels, {"a": worse}, draws=100, seed=5, sample_weight=weight)["a"]
    assert gain["high"] - gain["low"] < 0.5 * np.ptp(np.quantile(draws, [0.025, 0.975]))
