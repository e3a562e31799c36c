"""Budget decisions against arithmetic by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynens.budget import CostModel, hardest_first, next_chunk


def chunk(rows_left: int, seconds_left: float | None, cost: CostModel, now: float = 0.0) -> int:
    return next_chunk(rows_left, seconds_left, cost, now, margin=0.0, chunk_s=1e-3, max_rows=512)


def test_fit_recovers_a_straight_line() -> None:
    rows = [1, 8, 64, 200]
    cost = CostModel.fit(rows, [2e-4 + 1e-5 * k for k in rows])
    assert cost.fixed_s == pytest.approx(2e-4)
    assert cost.per_row_s == pytest.approx(1e-5)


def test_fit_never_promises_negative_costs() -> None:
    falling = CostModel.fit([1, 100], [2e-3, 1e-3])
    assert falling.seconds(1, 0.0) > 0
    through_origin = CostModel.fit([10, 100], [1e-4, 2e-3])
    assert through_origin.fixed_s == 0.0
    assert through_origin.per_row_s > 0


def test_rows_within_inverts_the_prediction() -> None:
    cost = CostModel(fixed_s=1e-3, per_row_s=1e-4)
    assert cost.rows_within(2.05e-3, 0.0, margin=0.0) == 10
    assert cost.rows_within(0.9e-3, 0.0, margin=0.0) == 0
    assert cost.rows_within(2 * 2.05e-3, 0.0, margin=1.0) == 10


def test_a_slow_member_is_believed_within_a_few_chunks_and_forgiven_later() -> None:
    cost = CostModel(fixed_s=0.0, per_row_s=1e-5)
    now = 0.0
    for _ in range(8):
        now += 1e-2
        cost.observe(100, 1e-2, now)  # ten times the prediction
    assert cost.slowdown == pytest.approx(10.0, rel=0.15)
    assert cost.slowdown_at(now + 10.0) == pytest.approx(1.0, abs=0.02)
    for _ in range(40):
        now += 1e-3
        cost.observe(100, 1e-3, now)
    assert cost.slowdown == pytest.approx(1.0, abs=0.05)


def test_one_preempted_chunk_is_not_a_trend() -> None:
    cost = CostModel(fixed_s=0.0, per_row_s=1e-5)
    cost.observe(100, 1.0, 1.0)  # a thousand times the prediction, once
    assert cost.slowdown_at(1.0) == pytest.approx(2.0)


def test_hardest_first_orders_the_rows_above_the_threshold() -> None:
    difficulty = np.array([0.1, 0.9, 0.5, 0.9, 0.2], np.float32)
    assert hardest_first(difficulty, 0.2).tolist() == [1, 3, 2]
    assert hardest_first(difficulty, -np.inf).tolist() == [1, 3, 2, 4, 0]
    assert hardest_first(difficulty, np.inf).tolist() == []


def test_chunks_aim_at_the_chunk_duration_and_stop_when_nothing_fits() -> None:
    cost = CostModel(fixed_s=0.95e-4, per_row_s=1e-5)
    assert chunk(500, 1.0, cost) == 90  # (1 ms - 0.095 ms) / 10 us
    assert chunk(20, 1.0, cost) == 20
    assert chunk(500, 3.0e-4, cost) == 20  # what is left of the budget
    assert chunk(500, 1e-4, cost) == 0
    assert chunk(500, -1.0, cost) == 0
    assert chunk(5000, None, cost) == 512


def test_an_expensive_row_still_runs_when_the_budget_allows_it() -> None:
    cost = CostModel(fixed_s=0.0, per_row_s=5e-3)
    assert chunk(10, 6e-3, cost) == 1


def test_after_a_slow_spell_the_first_chunk_is_a_probe() -> None:
    cost = CostModel(fixed_s=0.0, per_row_s=1e-5, slowdown=10.0, updated_s=0.0)
    assert chunk(100, 1.0, cost, now=10.0) == 8
    cost.observe(8, 8e-5, 10.0)
    assert chunk(100, 1.0, cost, now=10.0) > 8


@given(
    st.integers(1, 2000),
    st.floats(0, 0.1),
    st.floats(1e-6, 1e-2),
    st.floats(1e-7, 1e-3),
    st.floats(0.5, 20),
)
def test_a_granted_chunk_always_fits_by_its_own_prediction(
    rows: int, left: float, fixed: float, per_row: float, slowdown: float
) -> None:
    cost = CostModel(fixed, per_row, slowdown, updated_s=0.0)
    granted = chunk(rows, left, cost)
    assert 0 <= granted <= rows
    if granted:
        assert cost.seconds(granted, 0.0) <= left * (1 + 1e-9)


def test_chunks_keep_their_size_on_an_ordinarily_slow_machine() -> None:
    """t(k) = s (1 + 0.1 k) ms: a 3 ms chunk holds 20 rows, up to s = 3; at s = 6 it lasts 9 ms."""
    sizes = {}
    for slowdown in (1.0, 3.0, 6.0):
        cost = CostModel(1e-3, 1e-4 * (1 + 1e-9), slowdown=slowdown, updated_s=0.0)
        sizes[slowdown] = next_chunk(
            100, 1.0, cost, 0.0, margin=0.0, chunk_s=3e-3 * (1 + 1e-6), max_rows=100
        )
    assert sizes == {1.0: 20, 3.0: 20, 6.0: 5}
