"""The rule that turns a validation curve into a threshold."""

import numpy as np
import pytest

from dynens.metrics import auc
from dynens.routing.threshold import (
    ThresholdCurve,
    choose_fraction,
    fraction_for_cost,
    routed,
    threshold_at,
    threshold_curve,
)


def curve(gap: list[float], error: float = 0.0001) -> ThresholdCurve:
    fractions = np.linspace(0, 0.5, len(gap))
    return ThresholdCurve(fractions, np.array(gap), np.full(len(gap), error))


def test_smallest_fraction_that_reaches_the_trio_wins() -> None:
    assert choose_fraction(curve([-0.01, -0.002, 0.0, 0.001, 0.002, 0.002]), maximum=0.3) == 0.2


def test_a_trio_that_is_clearly_better_gets_all_rows_allowed() -> None:
    gap = [-0.01, -0.002, -0.003, -0.004, 1, 1]
    assert choose_fraction(curve(gap), maximum=0.3) == pytest.approx(0.3)


def test_a_gap_within_noise_is_not_worth_more_rows() -> None:
    gap = [-0.0009, -0.0002, -0.00025, -0.00015, 1, 1]
    assert choose_fraction(curve(gap, error=0.00095), maximum=0.3) == pytest.approx(0.1)


def test_a_student_that_reaches_the_trio_needs_no_routing() -> None:
    assert choose_fraction(curve([0.0001, 0.001, 0.001, 0.0, 0.0, 0.0]), maximum=0.3) == 0.0


def test_validation_too_small_to_tell_routes_nothing() -> None:
    gap = [-0.004, 0.001, 0.002, 0.0, 0.0, 0.0]
    assert choose_fraction(curve(gap, error=0.01), maximum=0.3) == 0.0
    assert choose_fraction(curve(gap, error=0.0005), maximum=0.3) == pytest.approx(0.1)


def test_routed_takes_the_hardest_rows_from_the_ensemble() -> None:
    easy, hard = np.zeros(5), np.ones(5)
    difficulty = np.array([0.1, 0.9, 0.3, 0.8, 0.2])
    assert routed(easy, hard, difficulty, 0.4).tolist() == [0, 1, 0, 1, 0]
    assert routed(easy, hard, difficulty, 0.0).tolist() == [0] * 5


def test_threshold_separates_exactly_the_fraction() -> None:
    difficulty = np.array([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (difficulty > threshold_at(difficulty, 0.4)).sum() == 2
    assert threshold_at(difficulty, 0.0) == np.inf
    assert threshold_at(difficulty, 1.0) == -np.inf


def test_curve_ends_at_the_true_differences() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 3000).astype(float)
    easy = labels + rng.normal(size=3000) * 2
    hard = labels + rng.normal(size=3000)
    found = threshold_curve(
        labels,
        np.ones(3000),
        easy,
        hard,
        hard,
        rng.random(3000),
        seed=0,
        fractions=np.array([0.0, 1.0]),
        draws=200,
    )
    mean_gap = (auc(labels, easy) - auc(labels, hard)) / 2  # the smoothing averages both ends
    assert found.gap == pytest.approx([mean_gap, mean_gap], abs=0.002)
    assert found.standard_error[1] == 0.0


def test_cost_sets_the_fraction() -> None:
    assert fraction_for_cost(3.0, 1.0, 10.0, maximum=1.0) == pytest.approx(0.2)
    assert fraction_for_cost(0.5, 1.0, 10.0, maximum=1.0) == 0.0
