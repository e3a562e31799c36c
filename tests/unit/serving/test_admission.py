"""Admission and the ensemble's allowance, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.admission import StandingQueue, Verdict, admit, ensemble_seconds


@pytest.mark.parametrize(
    ("in_flight", "seconds_left", "verdict"),
    [
        (0, 1e-2, Verdict.ACCEPT),
        (63, 1e-2, Verdict.ACCEPT),
        (64, 1e-2, Verdict.FULL),
        (0, 1e-4, Verdict.NO_TIME),
        (0, 0.0, Verdict.SPENT),
        (64, -1.0, Verdict.SPENT),
    ],
)
def test_admission(in_flight: int, seconds_left: float, verdict: Verdict) -> None:
    assert admit(in_flight, 64, seconds_left, 5e-4) is verdict


def test_alone_a_request_may_use_all_its_time() -> None:
    assert ensemble_seconds(7e-3, 0.0) == 7e-3


def test_with_half_the_time_promised_a_quarter_is_left() -> None:
    assert ensemble_seconds(8e-3, 4e-3) == pytest.approx(2e-3)


def test_pressure_takes_from_it_too() -> None:
    assert ensemble_seconds(8e-3, 0.0, 0.5) == pytest.approx(2e-3)
    assert ensemble_seconds(8e-3, 4e-3, 0.5) == pytest.approx(0.5e-3)
    assert ensemble_seconds(8e-3, 0.0, 1.0) == 0.0


def test_behind_a_full_backlog_there_is_nothing() -> None:
    assert ensemble_seconds(5e-3, 5e-3) == 0.0
    assert ensemble_seconds(-1e-3, 0.0) <= 0.0


@given(st.floats(1e-4, 1.0), st.floats(0, 1.0), st.floats(0, 0.5))
def test_the_allowance_shrinks_with_the_backlog_and_always_fits_behind_it(
    left: float, backlog: float, more: float
) -> None:
    allowance = ensemble_seconds(left, backlog)
    assert ensemble_seconds(left, backlog + more) <= allowance
    assert allowance + min(backlog, left) <= left * (1 + 1e-9)


BUDGET_S = 8e-3


def arrive(queue: StandingQueue, rate: float, waits_s: list[float], since_s: float) -> float:
    """Requests at a constant rate, each having waited; returns the time after the last one."""
    for i, wait_s in enumerate(waits_s):
        queue.observe(wait_s, BUDGET_S, since_s + i / rate)
    return since_s + len(waits_s) / rate


def test_a_queue_that_never_empties_is_kept_short() -> None:
    queue = StandingQueue()
    now = arrive(queue, 1000, [7e-3] * 101, 0.0)
    assert queue.pressure == 1  # hard rows give way first
    assert not queue.refuses(3e-3, BUDGET_S)
    now = arrive(queue, 1000, [7e-3] * 101, now)
    assert queue.refuses(3e-3, BUDGET_S)
    assert not queue.refuses(2e-3, BUDGET_S)  # a quarter of the budget
    assert not queue.refuses(3e-3, 2 * BUDGET_S)
    # While some have to be refused it stands, although others wait little.
    now = arrive(queue, 1000, [3e-3, 0.0] * 60, now)
    assert queue.refuses(3e-3, BUDGET_S)
    # An interval without any, and everyone gets in again; hard rows come back bit by bit.
    now = arrive(queue, 1000, [1e-4] * 220, now)
    assert not queue.refuses(7e-3, BUDGET_S)
    assert 0 < queue.pressure < 1
    queue.observe(0.0, BUDGET_S, now + 2)
    assert queue.pressure < 0.01


@pytest.mark.parametrize(
    ("rate", "wait_s", "pressure"),
    [
        (1000, 2e-3, 1.0),  # a quarter of the budget, two waiting at a time
        (1000, 1e-3, 0.25),  # half of that wait, and one waiting
        (500, 2e-3, 0.5),
        (100, 3e-3, 0.15),  # nobody waits behind anybody
        (1000, 0.0, 0.0),
    ],
)
def test_pressure_grows_with_the_wait_and_with_those_who_wait(
    rate: float, wait_s: float, pressure: float
) -> None:
    queue = StandingQueue()
    now = arrive(queue, rate, [wait_s] * int(0.11 * rate), 0.0)
    assert queue.pressure == 0  # one interval may be a burst
    arrive(queue, rate, [wait_s] * int(0.21 * rate), now)
    assert queue.pressure == pytest.approx(pressure, rel=0.02)


def test_a_few_clients_with_budgets_of_their_own_change_nothing_for_the_others() -> None:
    long, tiny = StandingQueue(), StandingQueue()
    for i in range(500):
        now = i / 1000
        long.observe(7e-3, 1.0 if i % 50 == 0 else BUDGET_S, now)
        tiny.observe(0.5e-3, 1e-5 if i % 100 == 0 else BUDGET_S, now)
    assert long.refuses(7e-3, BUDGET_S)
    # .5 of 2 ms by .5 of 2 waiting, as without them, and a hundredth of the largest share.
    assert tiny.pressure == pytest.approx(0.0625, abs=0.01)


def test_a_straggler_does_not_keep_a_queue_standing() -> None:
    queue = StandingQueue()
    now = arrive(queue, 1000, [7e-3] * 220, 0.0)
    assert queue.refuses(3e-3, BUDGET_S)
    now = arrive(queue, 1000, ([2.1e-3] + [1e-4] * 99) * 3, now)
    assert not queue.refuses(3e-3, BUDGET_S)


def test_a_burst_is_no_standing_queue() -> None:
    queue = StandingQueue()
    now = arrive(queue, 1000, [7e-3] * 80 + [1e-4] * 21, 0.0)
    arrive(queue, 1000, [7e-3] * 50, now)
    assert not queue.refuses(7e-3, BUDGET_S)


def test_a_slow_way_in_is_no_queue_unless_requests_wait_behind_each_other() -> None:
    """3 ms for everyone: at 500 a second 1.5 of them wait at a time, at 1000 three."""
    for rate, stands in ((500, False), (1000, True)):
        queue = StandingQueue()
        arrive(queue, rate, [3e-3] * int(0.3 * rate), 0.0)
        assert queue.refuses(3e-3, BUDGET_S) is stands
    # Once it stands, fewer requests are enough to end it.
    arrive(queue, 300, [3e-3] * 100, 0.3)
    assert not queue.refuses(3e-3, BUDGET_S)
