"""Numbers among words, read alike alone and in columns."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynens.data.reading.lengths import LENGTHS
from dynens.data.reading.lists import split_lists, split_text
from dynens.data.reading.numbers import number, to_numbers, unit_of
from dynens.data.reading.worded import NUMBERS, WORDS
from dynens.errors import DataError

ALPHABET = "0123456789,.-−+ °SWNkM$£%()[]'\"#/:abth\u00a0\n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("577 sq. ft", 577),
        ("2,253 sq m", 2253),
        ("£660 pcm", 660),
        ("$2,253/mo", 2253),
        ("up to 67", 67),
        ("66.56 (USD)", 66.56),
        ("#2,253 in Books", 2253),
        ("Score: -67", -67),
        ("$1.2k per month", 1200),
        ("about 1.5 million users", 1.5e6),
        ("a 5-star hotel", 5),
        ('7"', 7),
        ("67", 67),
        ("3-5", 4),
        ("1h 5m", 3900),
        ("POA", None),
        ("7 of 60", None),
        ("A123", None),
    ],
)
def test_the_one_number_among_words(text, value):
    read = to_numbers(pa.array([text]), unit=WORDS)
    if value is None:
        assert (np.isnan(read.values[0]), read.num_unreadable) == (True, 1)
        with pytest.raises(DataError):
            number(text, "f", unit=WORDS)
    else:
        assert number(text, "f", unit=WORDS) == read.values[0] == value


def test_decimal_commas_among_words():
    texts = ["ab 1.234,50 € im Monat", "1.234 Bewertungen", "1,5", "7"]
    assert to_numbers(pa.array(texts), ",", WORDS).values.tolist() == [1234.5, 1234, 1.5, 7]
    assert [number(text, "f", ",", WORDS) for text in texts] == [1234.5, 1234, 1.5, 7]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1.7/5", [1.7, 5]),
        ("40 (120%)", [40, 120]),
        ("51.49034° N, 0.06728° W", [51.49034, -0.06728]),
        ("5'7\"", [5, 7]),
        ("5 yrs 7 mos", [5, 7]),
        ("321 weeks 6 days", [321, 6]),
        ("[20,43)", [20, 43]),
        ("[100,200)", [100, 200]),
        ("(24.999, 37.0]", [24.999, 37]),
        ("from $1,200 to $1,500", [1200, 1500]),
    ],
)
def test_the_numbers_of_a_text_in_their_order(text, values):
    assert to_numbers(pa.array(split_text(text, NUMBERS))).values.tolist() == values
    found, lengths = split_lists(pa.array([text, None, "no number"]), NUMBERS)
    assert lengths[1:].tolist() == [0, 1]
    assert found.to_pylist()[:-1] == split_text(text, NUMBERS)


@given(st.lists(st.text(ALPHABET, max_size=14), min_size=1, max_size=6), st.sampled_from(".,"))
def test_columns_are_read_as_single_texts_are(texts, decimal):
    column = to_numbers(pa.array(texts), decimal, WORDS).values
    for text, read in zip(texts, column, strict=True):
        try:
            alone = number(text, "f", decimal, WORDS)
        except DataError:
            alone = math.nan
        np.testing.assert_equal(alone, read)
    values, _ = split_lists(pa.array(texts), NUMBERS)
    assert values.to_pylist() == [v for text in texts for v in split_text(text, NUMBERS)]


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["1080p", "720p", "480p", None], "p"),
        (["1080p", "720p", "480x"], None),
        (["12a", "12b", "14a"], None),
        (["012p", "720p", "480p"], None),
        (["1p", "1p", "2p"], None),
        ([*(f"{i}k" for i in range(1, 60)), "2M"], None),  # sizes
        ([*(f"{i}k" for i in range(1, 60)), "500"], None),
        ([*(f"{i}h" for i in range(1, 60)), "1h 30m"], None),  # and durations
        ([*(f"{i}m" for i in range(1, 60)), "1h"], LENGTHS),
        ([*(f"{i}p" for i in range(1, 60)), "500", "1,080"], "p"),
    ],
)
def test_a_letter_behind_all_numbers_is_their_unit(texts, unit):
    assert unit_of(pa.array(texts)) == unit
