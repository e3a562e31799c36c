"""Lengths of time in several units, read alike alone and in columns."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynens.data.reading.lengths import LENGTHS, length_s
from dynens.data.reading.numbers import number, to_numbers, unit_of
from dynens.errors import DataError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("45m", 2700),
        ("2d 3h", 183_600),
        ("2d3h", 183_600),
        ("3 Days ago", 259_200),
        ("an hour ago", 3600),
        ("2 hours and 5 minutes", 7500),
        ("1 year, 2 months ago", 425 * 86_400),
        ("1.5h", 5400),
        ("-5m", -300),
        ("just now", 0),
        ("yesterday", 86_400),
        ("2 hrs", 7200),
        ("25-35 min", 1800),
        ("1–2 days", 129_600),
        ("1-2d 3h", None),
        ("45ms", None),
        ("12A", None),
        ("3", None),
        ("3 bananas", None),
        ("5m5", None),
        ("", None),
    ],
)
def test_a_length_is_its_seconds(text, seconds):
    assert length_s(text) == seconds


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["45m", "2d 3h", "5h 10m", "3h", None], LENGTHS),
        (["3 days ago", "5 minutes ago", "just now"], LENGTHS),
        (["25-35 min", "2-4 hours", "2 hours"], LENGTHS),
        (["2 yrs 7 mos", "11 mos", "1 yr"], LENGTHS),
        (["5 days", "1 day", "20 days"], "day"),  # whose numbers say it all
        (["3h", "2h 50m", "5 min"], None),  # which are durations by themselves
        (["2y", "6m", "9m"], None),  # months
        (["1.2k", "3M", "2d", "4h"], None),
        (["3 days", "4 hours", "2 nights", "1 night"], None),
    ],
)
def test_several_units_of_time_are_read_in_seconds(texts, unit):
    assert unit_of(pa.array(texts)) == unit


@given(st.lists(st.text("0123456789.- hdmsyagon", max_size=12) | st.none(), max_size=8))
def test_a_text_alone_is_read_as_in_a_column(texts):
    read = to_numbers(pa.array(texts, pa.string()), unit=LENGTHS)
    for text, expected in zip(texts, read.values, strict=True):
        try:
            alone = number(text, "age", unit=LENGTHS)
        except DataError:
            alone = math.nan
        np.testing.assert_equal(alone, expected)
