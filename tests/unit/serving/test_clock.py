"""Arrival stamps, budgets and the reserve for the reply."""

import pytest

from serving.clock import ReplyReserve, budget_ms, queue_seconds
from serving.errors import RequestError


def test_the_stamp_tells_how_long_the_request_waited() -> None:
    assert queue_seconds(b"t=1700000000250000", 1_700_000_000.75) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "stamp", [None, b"", b"t=", b"t=-5", b"1700000000", b"t=abc", b"t=" + b"9" * 30, b"t=1e3"]
)
def test_a_stamp_without_sense_means_no_queue(stamp: bytes | None) -> None:
    assert queue_seconds(stamp, 1_700_000_000.0) == 0.0


@pytest.mark.parametrize("now", [1_699_999_999.0, 1_700_001_000.0])
def test_a_clock_that_was_set_is_not_a_queue(now: float) -> None:
    assert queue_seconds(b"t=1700000000000000", now) == 0.0


@pytest.mark.parametrize(
    ("given", "expected"), [(None, 8.0), (b"5", 5.0), ("2.5", 2.5), (3, 3.0), (b" 7 ", 7.0)]
)
def test_budgets_are_read(given: object, expected: float) -> None:
    assert budget_ms(given, 8.0, 1000.0) == expected


@pytest.mark.parametrize(
    "given", [b"", b"x", 0, -1, 1001, b"nan", float("nan"), "inf", True, [5], {}, 10**400]
)
def test_bad_budgets_are_refused(given: object) -> None:
    with pytest.raises(RequestError) as error:
        budget_ms(given, 8.0, 1000.0)
    assert error.value.status == 400


def test_the_reserve_rises_at_once_and_forgets_slowly() -> None:
    reserve = ReplyReserve(initial_s=1e-4, max_s=1e-3)
    reserve.observe(1e-3)
    assert reserve.seconds == pytest.approx(1e-4 + 0.3 * 9e-4)
    raised = reserve.seconds
    reserve.observe(1e-4)
    assert 0.95 * raised < reserve.seconds < raised
    for _ in range(100):
        reserve.observe(1.0)  # held up by something else
    assert reserve.seconds <= 1e-3
