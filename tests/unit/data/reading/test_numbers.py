"""Numbers as people write them: alone, with units, as ranges, in columns."""

import math
from time import process_time

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.reading.numbers import number, to_numbers, unit_of
from dynens.data.reading.spelled import parse_number
from dynens.errors import DataError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$1,200.50", 1200.5),
        ("1,200.50 USD", 1200.5),
        ("EUR 12", 12),
        ("₹1,299.00", 1299),
        ("1 299.50 kr", 1299.5),
        ("($5.00)", -5),
        ("$-5.00", -5),
        ("-$5.00", -5),
        ("−5", -5),
        ("+12.3%", 12.3),
        ("3.5 MB", 3.5e6),
        ("900 KiB", 9e5),
        ("1.2k", 1200),
        ("₹1,39,900", 139_900),
        ("-4,26,973.50", -426_973.5),
        ("12,34,56,789", 123_456_789),
        ("45.3 Lac", 4.53e6),
        ("₹1.25 crore", 1.25e7),
        ("3 Cr.", 3e7),
        ("2 lakhs", 2e5),
        ("1.2B", 1.2e9),
        ("$3B", 3e9),
        ("1.5 million", 1.5e6),
        ("3 Thousand", 3000),
        ("4 bn USD", 4e9),
        ("1.5万", 15_000),
        ("2億", 2e8),
        ("10:22:32", 37352),
        ("01:02", 3720),
        ("1 days, 0:00:01", 86401),
        ("0 days 00:51:25.5", 3085.5),
        ("-0:00:10", -10),
        ("PT1H2M3S", 3723),
        ("2h 50m", 10_200),
        ("45 min", 2700),
        ("2 hr", 7200),
        ("CHF 3'117.33", 3117.33),
        ("-3’117", -3117),
        ("4,255円", 4255),
        ("1 hr, 5 min", 3900),
        ("24m52.5s", 1492.5),
        ("2 days 3 hours", 183_600),
        ("-19h", -68_400),
        ("12:05 AM", 300),
        ("12:05 pm", 43_500),
        ("3:02:01 p.m.", 54_121),
        ("P1DT1.5S", 86401.5),
        ("39.47-", -39.47),
        ("1,234.50- EUR", -1234.5),
        ("$12−", -12),
        ("2253,- €", 2253),
        ("CHF 20.–", 20),
        ("3'117.-- kr-", -3117),
    ],
)
def test_numbers_as_people_write_them(text, value):
    assert parse_number(text) == value
    assert to_numbers(pa.array([text, "x"])).values[0] == value


@pytest.mark.parametrize(
    "text",
    [
        "--5",
        "-5-",
        "5--",
        "5- -",
        "5m",
        "5m 2h",
        "2h 3",
        "3 h",
        "$-+5",
        "(5",
        "5)",
        "1,20",
        "12 3",
        "P",
        "PT",
        "1:2",
        "1:72",
        "M",
        "5X",
        "5B",  # a house, or bytes
        "5 B",
        "5crow",
        "1,39,90",
        "1,390,90,000",
        "USD",
        "5km",
        "5 km",
        "13:05 PM",
        "0:05 AM",
        "5 km h",
        "May 5",
        "a b",
        "5 12-b",
    ],
)
def test_what_only_looks_like_a_number(text):
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["1,582 CC", "998 cc", None], "cc"),
        (["1 guest", "2 Guests", "3", None], "guest"),
        (["-5 °C", "$12 °C", "1.2e3 °C "], "°c"),
        (["3 s", "200 ms", "5 ms"], "ms"),
        (["12 sq.ft.", "14 sq.ft"], "sq.ft"),
        (["3.5 MB", "850 KB"], None),
        (["12.34 USD", "5 EUR"], None),
        (["1.2 million", "3 million"], None),
        (["2 dozen", "3 dozen"], None),
        (["45.3 Lac", "1.2 Cr"], None),
        (["1.2K views", "523 views", "3.4M views", "1 view"], "view"),
        (["1.2k km", "12 km"], "km"),
        (["12", "12 A", "13", "14 B"], None),
        (["162cm", "170cm", "1cm"], "cm"),
        (["8.7°C", "-9°C"], "°c"),
        (["111.3m2", "80m2"], "m2"),
        (["12A", "14A", "30A"], None),
        (["007AB", "008AB"], None),
        (["1.2GHz", "900MHz", "3GHz"], "ghz"),
        (["300 ml", "1 l"], "l"),
        (["300 ml", "10 cl"], None),
        (["1.2 km", "3 km"], "km"),
        (["1.2 km", "3 km", "800 m"], "m"),
        (["3-5 years", "1 year"], "year"),
        (["3:45", "45:10", "1:02:03"], "m:ss"),
        (["3:45", "23:10", "1:02:03"], None),  # maybe times of the day
        (["3:45", "45:10"], None),
        (["5 AM", "6 AM"], None),
        (["a km", "b km"], None),
        ([None], None),
    ],
)
def test_the_unit_behind_most_numbers_of_a_column(texts, unit):
    assert unit_of(pa.array(texts, pa.string())) == unit


@pytest.mark.parametrize("decimal", [".", ","])
def test_any_number_of_spaces_parts_a_number_and_its_unit(decimal):
    texts = ["5 km", "5   km", " 5 \t km ", "5 KM.", "5000   m"]
    column = to_numbers(pa.array(texts), decimal, "m").values
    assert column.tolist() == [number(text, "f", decimal, "m") for text in texts] == [5000.0] * 5


@pytest.mark.parametrize(
    ("text", "unit", "decimal", "value"),
    [
        ("1,582 CC", "cc", ".", 1582),
        (" 2 Guests. ", "guest", ".", 2),
        ("3", "guest", ".", 3),
        ("-5 °C", "°c", ".", -5),
        ("1.234,5 km", "km", ",", 1234.5),
        ("1.234 km", "km", ",", 1234),
        ("12 sq.ft", "sq.ft", ".", 12),
        ("$12 sqxft", "sq.ft", ".", None),
        ("5 m", "km", ".", None),
        ("5 kms", "km", ".", None),
        ("5km", "km", ".", 5),
        ("2.5GHz", "ghz", ".", 2.5),
        ("-8.7°C", "°c", ".", -8.7),
        ("111,3m2", "m2", ",", 111.3),
        ("1.234km", "km", ",", 1234),
        ("NA km", "km", ".", math.nan),
        ("1,200 m", "m", ".", 1200),
        ("1,2 km", "m", ",", 1200),
        ("5 cm km", "m", ".", None),
        ("3:45", "m:ss", ".", 225),
        ("75:10", "m:ss", ".", 4510),
        ("1:02:03", "m:ss", ".", 3723),
        ("3-5 years", "year", ".", 4),
        ("1.2K views", "view", ".", 1200),
        ("40-60 Lac views", "view", ".", 5e6),
    ],
)
def test_a_fields_unit_may_stand_behind_its_numbers(text, unit, decimal, value):
    column = to_numbers(pa.array([text]), decimal, unit)
    assert column.num_unreadable == (value is None)
    if value is None:
        with pytest.raises(DataError, match="numeric but was given"):
            number(text, "f", decimal, unit)
        return
    np.testing.assert_array_equal(column.values, [value])
    np.testing.assert_array_equal(number(text, "f", decimal, unit), value)


@pytest.mark.parametrize(
    ("text", "middle"),
    [
        ("3-5", 4),
        ("40k–60k", 50_000),
        ("40-60k", 50_000),
        ("40-60 Lac", 5e6),
        ("25-35 min", 1800),
        ("1-2h", 5400),
        ("10 min - 2 hrs", 3900),
        ("500-1k", 750),
        ("$40,000 - $60,000", 50_000),
        ("10 to 20%", 15),
        ("<0.05", 0.05),
        (">= 3", 3),
        ("65+", 65),
        ("5-3", None),
        ("2024-05-06", None),
        ("a-b", None),
        ("C++", None),
        ("<b", None),
        ("<true", None),
        ("1-2-3", None),
    ],
)
def test_a_range_is_its_middle_and_a_bound_its_end(text, middle):
    assert parse_number(text) is None  # of labels and times they are no numbers
    column = to_numbers(pa.array([text, "7"]))
    assert (column.num_ranges, column.num_unreadable) == (int(middle is not None), middle is None)
    if middle is None:
        with pytest.raises(DataError, match="numeric but was given"):
            number(text, "f")
    else:
        assert column.values.tolist() == [number(text, "f"), 7] == [middle, 7]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,5-2,5", 2),
        ("1.000 - 2.000", 1500),
        ("1.000+", 1000),
        ("<1,5", 1.5),
        ("1.000 – 2.000 €", 1500),
        ("   1.000", 1000),
        ("\t1,5\n", 1.5),
    ],
)
def test_ranges_and_texts_between_spaces_have_decimal_commas_too(text, value):
    assert to_numbers(pa.array([text, "x"]), ",").values[0] == number(text, "f", ",") == value


def test_long_digits_that_are_no_number_are_refused_at_once():
    start = process_time()
    assert parse_number("1" * 50_000 + "x") is None
    assert process_time() - start < 1  # half a minute where digits can be parted in many ways


def test_what_stands_for_missing_may_have_a_unit_behind_any_space():
    assert np.isnan(number("NA\t m", "f", unit="m"))
    assert to_numbers(pa.array(["NA\t m"]), unit="m").num_unreadable == 0


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u202f", ""])
def test_spaces_that_do_not_break_stand_beside_a_comma_number_too(space):
    text = f"500,25{space}€"
    assert to_numbers(pa.array([text]), ",").values.tolist() == [500.25]
    assert number(text, "f", ",") == 500.25


def test_what_is_not_finite_or_not_a_number_is_counted():
    numbers = to_numbers(pa.array([1.0, None, math.nan, math.inf]))
    assert numbers.num_non_finite == 2
    texts = to_numbers(pa.array(["1", "", "nan", "-inf", "abc", "2"]))
    assert (texts.num_non_finite, texts.num_unreadable, texts.example) == (2, 1, "abc")
    np.testing.assert_array_equal(texts.values, [1, math.nan, math.nan, math.nan, math.nan, 2])


def test_texts_that_come_back_count_each_time():
    texts = ["abc", "3-5", None, "$2", "xyz", "abc", "3-5", "$2"]
    numbers = to_numbers(pa.array(texts))
    values = [math.nan, 4, math.nan, 2, math.nan, math.nan, 4, 2]
    np.testing.assert_array_equal(numbers.values, values)
    assert (numbers.num_unreadable, numbers.num_ranges, numbers.example) == (3, 2, "abc")


def test_one_value_that_is_no_number_is_refused():
    with pytest.raises(DataError, match="'price' is numeric but was given 'abc'"):
        number("abc", "price")
