"""Admission and the ensemble's allowance, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.admission import Verdict, admit, ensemble_seconds


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
