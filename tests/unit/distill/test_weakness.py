"""Slices in which the student is far from its teacher, by hand, and what follows from them."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, rel_entr

from dynens.batch import PADDING, EncodedBatch, FeatureLayout, SparseField
from dynens.config.distill import DistillConfig
from dynens.distill.augment import make_rows, row_space
from dynens.distill.weakness import PRIOR_ROWS, Weakness, drawn, row_divergence
from tests.unit.distill.rows import missing_row, units

LAYOUT = FeatureLayout((), (SparseField("a", 3), SparseField("tags", 4, 2)))
IDS = np.array([[2, 2, 3], [2, 3, PADDING], [0, 2, PADDING], [0, 2, PADDING]], np.int32)
TEACHER = np.zeros(4, np.float32)
STUDENT = np.array([2.0, 0.0, 0.0, 0.0], np.float32)


def rows(ids: np.ndarray) -> EncodedBatch:
    return EncodedBatch(np.zeros((len(ids), 0), np.float32), ids)


def weakness(table: np.ndarray = IDS) -> Weakness:
    return Weakness(LAYOUT, rows(IDS), TEACHER, rows(table))


def test_divergence_is_the_kl_of_every_row() -> None:
    teacher, student = np.array([0.3, -2.0, 40.0]), np.array([0.1, -1.0, 38.0])
    p, q = expit(teacher), expit(student)
    by_hand = rel_entr(p, q) + rel_entr(expit(-teacher), expit(-student))
    np.testing.assert_allclose(row_divergence(teacher, student), by_hand, rtol=1e-6, atol=1e-12)
    assert not row_divergence(teacher, teacher).any()


def test_a_slice_is_as_weak_as_its_rows_shrunk_to_the_mean() -> None:
    found = weakness()
    found.update(5, STUDENT)
    d = rel_entr(0.5, expit(2)) + rel_entr(0.5, expit(-2))  # of the first row; 0 of the others
    mean = d / 4

    def by_hand(total: float, count: int) -> float:
        return (total + PRIOR_ROWS * mean) / (count + PRIOR_ROWS) / mean

    # padding, a = 0, 1, 2; padding (three times), tags = 0, 1, 2, 3
    expected = [1, by_hand(0, 2), 1, by_hand(d, 2)]
    expected += [by_hand(0, 3), 1, 1, by_hand(d, 3), by_hand(d, 2)]
    np.testing.assert_allclose(found.state()[5], expected, rtol=1e-6)


def test_a_row_weighs_the_mean_of_its_slices() -> None:
    found = weakness(np.array([[2, 3, PADDING], [0, 2, 2]], np.int32))
    found.update(5, STUDENT)
    slices = found.state()[5].astype(np.float64)
    expected = np.cumsum([(slices[3] + slices[8]) / 2, (slices[1] + 2 * slices[7]) / 3])
    cumulative = found.cumulative(6)
    assert cumulative is not None
    np.testing.assert_allclose(cumulative, expected, rtol=1e-6)


def test_only_what_was_known_before_a_step_counts() -> None:
    found = weakness()
    assert found.cumulative(100) is None
    found.update(5, STUDENT)
    assert found.cumulative(5) is None
    first = found.cumulative(6)
    found.update(9, -STUDENT[::-1])
    assert found.cumulative(9) is not None
    np.testing.assert_array_equal(found.cumulative(9), first)
    assert not np.array_equal(found.cumulative(10), first)
    again = weakness()
    again.restore(found.state())
    np.testing.assert_array_equal(again.cumulative(10), found.cumulative(10))


def test_rows_are_drawn_in_proportion() -> None:
    counts = np.bincount(drawn(np.cumsum([1.0, 0.0, 3.0]), 3, 40_000, np.random.default_rng(0)))
    assert counts / 40_000 == pytest.approx([0.25, 0, 0.75], abs=0.01)
    even = np.bincount(drawn(None, 3, 30_000, np.random.default_rng(0)))
    assert even / 30_000 == pytest.approx([1 / 3] * 3, abs=0.01)


def test_made_up_rows_start_where_the_weights_are() -> None:
    table = rows(np.repeat([[0, 2, 2], [2, 3, 3]], 50, axis=0).astype(np.int32))
    weights = np.cumsum([0.0] * 50 + [1.0] * 50)
    policies = DistillConfig.model_validate(
        {"augmentations": [{"kind": "id_dropout", "probability": 1e-9}]}
    ).augmentations
    space = row_space(LAYOUT, units(LAYOUT), np.ones(9, np.int64), missing_row(LAYOUT))
    made = make_rows(table, 300, policies, space, np.random.default_rng(0), weights)
    assert made.ids.tolist() == [[2, 3, 3]] * 300


@pytest.mark.parametrize("other", [{"augmented_per_row": 0}, {"stop_on": "labels"}])
def test_following_needs_made_up_rows_and_a_teacher_of_validation_rows(
    other: dict[str, object],
) -> None:
    with pytest.raises(ValidationError, match="follow_weakness is on but"):
        DistillConfig.model_validate({"follow_weakness": True, **other})
