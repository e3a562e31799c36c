"""Arrival stamps, budgets and the reserve for the reply."""

import pytest

from serving.clock import budget_ms, queue_seconds
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


def test_a_header_is_quoted_as_it_was_sent() -> None:
    with pytest.raises(RequestError, match="the latency budget is '0'; it must"):
        budget_ms(b"0", 8.0, 1000.0)
