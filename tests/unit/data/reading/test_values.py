import math
from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynens.data.reading.numbers import number, to_numbers
from dynens.data.reading.values import canonical, canonical_codes, canonical_texts
from dynens.errors import DataError


@pytest.mark.parametrize("value", [5, 5.0, "5", "5.0", " 5 ", b"5", np.int64(5), np.float32(5)])
def test_one_category_in_every_type(value):
    assert canonical(value) == "5"


@pytest.mark.parametrize("value", [None, "", "nan", math.nan, math.inf, "NULL", "?", "  ", "N/A"])
def test_missing_in_every_spelling(value):
    assert canonical(value) is None


@pytest.mark.parametrize(
    "text", ["#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "#N/A"]
)
def test_what_a_spreadsheet_could_not_calculate_is_missing(text):
    assert canonical(text) is None
    assert np.isnan(number(text, "f"))
    numbers = to_numbers(pa.array([text, "5"]))
    assert (numbers.num_unreadable, numbers.values[1]) == (0, 5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "1"),
        ("False", "0"),
        ("-0.0", "0"),
        (-0.0, "0"),
        ("1.50", "1.5"),
        (1.5, "1.5"),
        (10**30, "1" + "0" * 30),
        (date(2024, 2, 29), "2024-02-29"),
        (Decimal("3.10"), "3.1"),
        ("Ünïcode 日本", "Ünïcode 日本"),
        ("05", "05"),
    ],
)
def test_canonical_text(value, text):
    assert canonical(value) == text


def decoded(array):
    texts, codes = canonical_codes(array)
    return [texts[int(code)].as_py() if code >= 0 else None for code in codes]


@pytest.mark.parametrize(
    ("kind", "far", "epoch"),
    [
        (pa.timestamp("us"), 2**62, "1970-01-01 00:00:00"),
        (pa.timestamp("us", "Europe/Berlin"), 2**62, "1970-01-01 01:00:00+01:00"),
        (pa.date32(), 2**30, "1970-01-01"),
    ],
)
def test_times_beyond_pythons_range_are_missing(kind, far, epoch):
    assert decoded(pa.array([far, 0, None], kind)) == [None, epoch, None]


def test_lists_are_no_categories():
    with pytest.raises(TypeError, match="a list is no category"):
        canonical(["a"])
    for read in (canonical_codes, canonical_texts):
        with pytest.raises(DataError, match="cannot be read as categories"):
            read(pa.array([["a"]]))


TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["5", "5.0", "-0.0", "0.50", " 7", "nan", "True", "\t", "1e5", "00.10"]),
    st.floats().map(str),
    st.none(),
)


@given(st.lists(TEXTS, max_size=20))
def test_texts_read_alike_alone_and_in_a_column(values):
    assert decoded(pa.array(values, pa.string())) == [canonical(v) for v in values]


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=20))
def test_integers_read_alike_alone_and_in_a_column(values):
    assert decoded(pa.array(values, pa.int64())) == [canonical(v) for v in values]


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=20))
def test_floats_read_alike_alone_and_in_a_column(values):
    assert decoded(pa.array(values, pa.float64())) == [canonical(v) for v in values]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_every_size_read_alike_alone_and_in_a_column(dtype):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=4000) * 10.0 ** rng.integers(-9, 19, 4000)
    edges = [1e-4, np.nextafter(1e-4, 0), 1e10, np.nextafter(1e10, 0), 2.0**53, 65535.99609375]
    with np.errstate(over="ignore"):
        numbers = np.concatenate([numbers, np.round(numbers, 3), edges]).astype(dtype)
    alone = [canonical(v) for v in numbers]
    assert decoded(pa.array(numbers)) == alone
    if dtype != np.float16:
        texts = [None if v is None else repr(float(v)) for v in alone]
        assert decoded(pa.array(texts, pa.string())) == [canonical(v) for v in texts]


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["x", "y", None, "x"]).dictionary_encode(),
        pa.array(["x", "y", None, "x"], pa.large_string()),
        pa.array([b"x", b"y", None, b"x"]),
        pa.chunked_array([["x"], ["y", None, "x"]]),
    ],
)
def test_storage_does_not_matter(array):
    assert decoded(array) == ["x", "y", None, "x"]


@given(st.lists(st.one_of(st.none(), st.floats().map(str), st.sampled_from(["?", " 3 ", "+4"]))))
def test_numbers_read_alike_alone_and_in_a_column(values):
    alone = [number(v, "f") for v in values]
    np.testing.assert_array_equal(to_numbers(pa.array(values, pa.string())).values, alone)


@pytest.mark.parametrize("others", [[], ["12 EUR"], ["no number"], ["nan", ""]])
def test_money_reads_alike_alone_and_in_a_column(others):
    texts = ["$1,234.50", "€5", "£1,000,000", "12", " $7 ", "1,234", "$1234.5", "0.25", *others]
    numbers = to_numbers(pa.array(texts))
    known = [text for text in texts if text != "no number"]
    assert numbers.values[: len(known)].tolist() == pytest.approx(
        [number(text, "f") for text in known], nan_ok=True
    )
    assert numbers.values[:8].tolist() == [1234.5, 5, 1e6, 12, 7, 1234, 1234.5, 0.25]
    assert numbers.num_unreadable == len(texts) - len(known)


SINGLES = st.floats(width=32).filter(lambda value: "e" not in str(value))


@given(st.lists(st.one_of(st.none(), SINGLES), max_size=20))
def test_a_float32_is_one_category_as_a_double_a_text_and_in_a_column(values):
    alone = [canonical(v) for v in values]
    for kind in (pa.float32(), pa.float64()):
        assert decoded(pa.array(values, kind)) == alone
    assert decoded(pa.array([None if v is None else str(v) for v in values])) == alone
    assert (
        canonical(np.float32(0.1)) == canonical(float(np.float32(0.1))) == canonical(0.1) == "0.1"
    )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_durations_are_seconds_in_every_unit(unit):
    column = pa.array([90, None], pa.duration("s")).cast(pa.duration(unit))
    np.testing.assert_array_equal(to_numbers(column).values, [90, math.nan])
    assert decoded(column) == ["90", None]
    assert number(timedelta(seconds=90), "f") == 90
    assert canonical(timedelta(seconds=90)) == "90"
