"""The rule that turns a validation curve into a threshold."""

import numpy as np
import pytest

from dynens.metrics import auc, sigmoid
from dynens.routing.threshold import (
    ThresholdCurve,
    cautious_maximum,
    choose_fraction,
    fitted_fraction,
    fraction_for_cost,
    routed,
    share_at_least,
    threshold_at,
    threshold_curve,
)


def curve(gap: list[float]) -> ThresholdCurve:
    fractions, values = np.linspace(0, 0.5, len(gap)), np.array(gap)
    return ThresholdCurve(fractions, values, values - values[0], values, values, np.zeros(len(gap)))


def test_smallest_fraction_that_reaches_the_trio_wins() -> None:
    assert choose_fraction(curve([-0.01, -0.002, 0.0, 0.001, 0.002, 0.002]), maximum=0.3) == 0.2


def test_a_trio_that_stays_ahead_gets_the_rows_that_bring_the_system_nearer() -> None:
    rising = [-0.01, -0.004, -0.003, -0.002, 1, 1]
    assert choose_fraction(curve(rising), maximum=0.3, tolerance=1e-4) == pytest.approx(0.3)
    level = [-0.01, -0.002, -0.0021, -0.00195, 1, 1]
    assert choose_fraction(curve(level), maximum=0.3, tolerance=1e-4) == pytest.approx(0.1)
    nothing_gained = [-0.0003, -0.0003, -0.00025, -0.0003, 1, 1]
    assert choose_fraction(curve(nothing_gained), maximum=0.3, tolerance=1e-4) == 0.0


def test_a_tolerance_saves_rows() -> None:
    gap = [-0.0009, -0.0001, -0.00005, 0.0, 1, 1]
    assert choose_fraction(curve(gap), maximum=0.3) == pytest.approx(0.3)
    assert choose_fraction(curve(gap), maximum=0.3, tolerance=1e-4) == pytest.approx(0.1)


def test_hard_rows_that_add_next_to_nothing_are_not_worth_a_call() -> None:
    """Less than the tolerance between the student alone and what the rule would take."""
    gap = [-0.00023, -0.00017, -0.0002, -0.00008, 1, 1]
    assert choose_fraction(curve(gap), maximum=0.3, tolerance=1e-4) == 0.0
    assert choose_fraction(curve([-0.00029, *gap[1:]]), maximum=0.3, tolerance=1e-4) == 0.1
    reached = [-0.00015, -0.00008, 0.0, 0.0, 0.0, 0.0]
    assert choose_fraction(curve(reached), maximum=0.3, tolerance=1e-4) == 0.0


def test_a_student_that_reaches_the_trio_needs_no_routing() -> None:
    assert choose_fraction(curve([0.0001, 0.001, 0.001, 0.0, 0.0, 0.0]), maximum=0.3) == 0.0


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


def test_threshold_lies_between_rows_that_differ_by_more_than_rounding() -> None:
    difficulty = np.repeat(np.array([0.9, 0.7, 0.4], np.float32), [10, 40, 50])
    served = np.nextafter(difficulty, np.float32(1))
    for fraction, hard in ((0.05, 0), (0.1, 10), (0.3, 10), (0.5, 50), (0.8, 50)):
        threshold = threshold_at(difficulty, fraction)
        assert (difficulty > threshold).sum() == (served > threshold).sum() == hard
    assert threshold_at(np.ones(9), 0.3) == np.inf


def simulated(num_rows: int, student_noise: float, seed: int = 0, fractions: tuple = (0.0, 1.0)):
    """A calibrated ensemble, and a student that is its logit plus noise."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(size=num_rows) * 1.2
    labels = (rng.random(num_rows) < sigmoid(hard)).astype(float)
    easy = hard + rng.normal(size=num_rows) * student_noise
    gap = np.abs(sigmoid(hard) - sigmoid(easy))
    weight = np.ones(num_rows)
    return threshold_curve(
        labels, weight, easy, hard, hard, gap, seed=0, fractions=np.array(fractions), draws=200
    ), auc(labels, easy) - auc(labels, hard)


def test_both_accounts_find_a_true_difference() -> None:
    found, gap = simulated(40_000, student_noise=1.0)
    assert found.label_gap == pytest.approx([gap / 2, gap / 2], abs=0.002)  # smoothing: both ends
    assert found.expected_gap == pytest.approx([gap, 0.0], abs=0.006)
    assert found.standard_error[1] == 0.0


def test_on_few_rows_the_ensembles_account_decides() -> None:
    """500 labels cannot tell that a faithful student is a little worse, whatever their draw."""
    curves = [simulated(500, student_noise=0.15, seed=seed)[0] for seed in range(8)]
    by_labels = [c.label_gap[0] for c in curves]
    assert min(by_labels) < -0.002
    assert max(by_labels) > 0.0
    assert all(-0.004 < c.gap[0] < 0.0 for c in curves)


@pytest.mark.parametrize("positives", [0, 1, 4])
def test_resamples_without_a_positive_do_not_send_every_row_to_the_ensemble(positives: int) -> None:
    rng = np.random.default_rng(0)
    labels, logits = np.zeros(2000), rng.normal(size=2000)
    labels[:positives] = 1
    same = threshold_curve(
        labels, np.ones(2000), logits, logits, logits, rng.random(2000), seed=0, draws=40
    )
    assert np.abs(same.gap).max() == 0.0
    assert choose_fraction(same, maximum=0.3) == 0.0
    assert np.isinf(same.standard_error).all() == (positives == 0)


def test_a_class_that_is_seldom_drawn_counts_by_the_draws_that_have_it() -> None:
    rng = np.random.default_rng(0)
    labels, worse, better = np.zeros(500), rng.normal(size=500), rng.normal(size=500)
    labels[:2], better[:2] = 1, 4.0
    found = threshold_curve(labels, np.ones(500), worse, better, better, -worse, seed=0, draws=40)
    assert np.isfinite(found.label_gap).all()
    assert found.label_gap[0] < -0.1


def test_a_gap_that_is_undefined_leaves_the_student_alone() -> None:
    assert choose_fraction(curve([float("nan")] * 6), maximum=0.3) == 0.0


def test_on_many_rows_the_labels_overrule_the_ensemble() -> None:
    """The student is the truth and the ensemble the noisy one: its account is wrong."""
    rng = np.random.default_rng(0)
    easy = rng.normal(size=40_000)
    labels = (rng.random(40_000) < sigmoid(easy)).astype(float)
    hard = easy + rng.normal(size=40_000) * 0.3
    found = threshold_curve(labels, np.ones(40_000), easy, hard, hard, -easy, seed=0)
    assert found.expected_gap[0] < 0 < found.label_gap[0]
    assert choose_fraction(found, maximum=0.3) == 0.0


def test_cost_sets_the_fraction() -> None:
    def fraction(mean_cost_us: float, call_us: float, maximum: float = 1.0) -> float:
        return fraction_for_cost(mean_cost_us, 1.0, call_us, 10.0, rows=100, maximum=maximum)

    assert fraction(3.0, call_us=0.0) == pytest.approx(0.2)
    assert fraction(0.5, call_us=0.0) == 0.0
    # One row in a hundred: 1 - 0.99^100 of the requests call the ensemble, 1 µs per row each.
    assert fraction(1.0 + 0.63397 + 0.1, call_us=100.0) == pytest.approx(0.01, rel=1e-4)
    assert fraction(12.0, call_us=100.0) == pytest.approx(1.0)
    assert fraction(50.0, call_us=100.0, maximum=0.5) == 0.5


def test_the_maximum_is_lower_where_few_rows_set_the_threshold() -> None:
    assert cautious_maximum(0.28, 10_000) == 0.28
    # 0.28 + 0.02 - 1.645 · √(2 · 0.28 · 0.72 / 220)
    assert cautious_maximum(0.28, 220) == pytest.approx(0.2296, abs=1e-4)
    assert cautious_maximum(0.28, 5) == 0.0
    assert cautious_maximum(1.0, 5) == 1.0


def test_rows_on_another_scale_than_the_fitted_ones_are_not_called_hard_too_often() -> None:
    fitted_on = np.arange(100.0)
    others = fitted_on + 20  # all others look harder: 20 % more of them pass any threshold
    inside = fitted_fraction(share_at_least(fitted_on, others), 0.25, 0.3)
    assert inside == pytest.approx(0.1, abs=0.02)
    assert np.mean(others > threshold_at(fitted_on, inside)) == pytest.approx(0.3, abs=0.02)
    assert fitted_fraction(share_at_least(fitted_on, fitted_on - 20), 0.25, 0.3) == 0.25


def test_labels_tell_what_hard_rows_add_better_than_the_gap_to_the_trio() -> None:
    """The student is the truth; the hard route adds noise to it, and the trio more of its own."""
    rng = np.random.default_rng(0)
    easy = rng.normal(size=10_000) * 1.2
    labels = (rng.random(10_000) < sigmoid(easy)).astype(float)
    hard = easy + rng.normal(size=10_000) * 0.15
    static = hard + rng.normal(size=10_000) * 0.15
    moved = np.abs(sigmoid(hard) - sigmoid(easy))
    found = threshold_curve(labels, np.ones(10_000), easy, hard, static, moved, seed=0)
    assert found.gap[20] - found.gap[0] > 1e-3
    assert found.gain[0] == 0.0
    assert found.gain[20] < -1e-3
