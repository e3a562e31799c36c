from datetime import UTC, date, datetime
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.reading import times
from dynens.data.reading.times import (
    has_offsets,
    seconds_of,
    seconds_of_values,
    text_format,
    time_part,
    to_seconds,
)
from dynens.schema import TimeFormat

MOMENT = datetime(2022, 5, 3, 17, 30, tzinfo=UTC)
SECONDS = MOMENT.timestamp()


@pytest.mark.parametrize(
    "value",
    [
        int(SECONDS),
        int(SECONDS * 1000),
        int(SECONDS * 10**6),
        int(SECONDS * 10**9),
        "2022-05-03 17:30:00",
        "2022-05-03T17:30:00Z",
        "05/03/2022 17:30",
        "2022/05/03 17:30:00",
        "2022-05-03 17:30:00 UTC",
        "2022-05-03 17:30:00.000000 UTC",
        "2022-05-03T19:30:00+02:00",
        "05/03/22 5:30 PM",
        "05/03/2022 05:30:00 pm",
        "3-May-2022 17:30",
        "03.05.2022 17:30:00.0",
        "Tue May  3 17:30:00 2022",
        "03/May/2022:19:30:00 +0200",
        "Tue, 03 May 2022 17:30:00 GMT",
        "Tue, 3 May 2022 19:30:00 +0200",
        "Tue May 03 17:30:00 +0000 2022",
        "May 3, 2022 5:30 PM",
        "May 03 2022 17:30",
        "05 3, 2022 17:30",
        "Tuesday, 03 May 2022 17:30",
        "5/3/2022, 5:30:00 PM",
        "5/3/2022, 5:30:00\u202fPM",  # browsers since 2023
        "03.05.2022, 17:30",
        "May 3, 2022, 5:30 p.m.",
        "May 3rd, 2022 at 5:30pm",
        "2022-05-03 5:30 PM",
        "2022-5-3 17:30",
        "May 03, 2022 12:30 PM CDT",
        "2022-05-03 09:30:00 PST",
        "Tue May 03 13:30:00 EDT 2022",
        "Tue May 03 17:30:00 UTC 2022",
        "05/03/2022 07:30 PM +0200",
        "05-03-2022 17:30",
        "5-3-2022 5:30:00 PM",
        "2022.05.03 17:30:00",
        "03MAY2022:17:30:00",
        "03MAY2022 17:30",
        "3 May, 2022 17:30",
        "2022年5月3日 17:30",
        "2022/05/03 17:30:00+0000",
        "03-MAY-22 05.30.00.000000000 PM",
        "03-MAY-22 01.30.00.000000 PM AMERICA/NEW_YORK",
        "2022-05-03-17.30.00.000000",
        "2022-05-03 19:30:00.000 Europe/Berlin",
        "2022-05-03 17:30:00.000 Etc/UTC",
        "Tue May 03 2022 19:30:00 GMT+0200 (Central European Summer Time)",
        f"/Date({int(SECONDS * 1000)})/",
        f"/Date({int(SECONDS * 1000)}+0200)/",
        "2022. 05. 03. 17:30",
        "2022. 5. 3. 오후 5:30:00",
        "2022年05月03日 17時30分",
        "2022年5月3日 17時30分00秒",
        "05/03/2022 à 17:30",
        "3 mai 2022 à 17h30",
        "2022-05-03 17:30–17:59",
        "2022-05-03 17:30-17:59",
        "2022-05-03 17:30 - 18:30",
        "2022-123 17:30",
        20220503173000,
        202205031730,
        20220503173000000,
        str(int(SECONDS)),
    ],
)
def test_one_moment_in_many_spellings(value):
    assert seconds_of(value) == pytest.approx(SECONDS)
    assert to_seconds(pa.array([value, value]))[1] == pytest.approx(SECONDS)


@pytest.mark.parametrize(
    ("text", "is_away"),
    [
        ("2022-05-03T17:30:00+05:30", True),
        ("2022-05-03 17:30:00.000-0700", True),
        ("2022-05-03T17:30-00:30", True),
        ("03/May/2022:17:30:00 +0200", True),
        ("Tue, 3 May 2022 17:30:00 -0400", True),
        ("Tue May 03 17:30:00 -0400 2022", True),
        ("Tue May 03 17:30:00 PDT 2022", True),
        ("May 3, 2022 5:30 PM EST", True),
        ("03-MAY-22 05.30.00.000000 PM -07:00", True),
        ("2022-05-03 17:30:00.000 Asia/Kolkata", True),
        ("Tue May 03 2022 17:30:00 GMT-0700 (Pacific Daylight Time)", True),
        (f"/Date({int(SECONDS * 1000) - 7_200_000}+0200)/", True),
        ("2022-05-03 17:30-17:59", False),
        (f"/Date({int(SECONDS * 1000)})/", False),
        ("Tue May 03 17:30:00 UTC 2022", False),
        ("2022-05-03T17:30:00+00:00", False),
        ("2022-05-03T17:30:00Z", False),
        ("2022-05-03 17:30:00", False),
    ],
)
def test_the_clock_of_a_time_with_an_offset(text, is_away):
    column = pa.array([None, text])
    assert has_offsets(column) is is_away
    assert to_seconds(column, local=True)[1] == SECONDS
    assert seconds_of_values([None, text], local=True)[1] == SECONDS
    assert (seconds_of_values([text])[0] == SECONDS) is not is_away  # kept apart


@pytest.mark.parametrize(
    "text",
    [
        *("September 3, 2021", "3 Sept 2021", "Friday, September 3, 2021", "Fri 3 Sep 2021"),
        *("September 3rd, 2021", "3-SEP-21", "3 Sep 21", "03.09.21"),
        *("03SEP2021", "2021.09.03", "3 Sep, 2021", "2021年9月3日", "2021년 9월 3일"),
        *("3. September 2021", "3 septembre 2021", "3 de septiembre de 2021", "3 sept. 2021"),
    ],
)
def test_months_and_weekdays_in_full(text):
    assert seconds_of(text) == datetime(2021, 9, 3, tzinfo=UTC).timestamp()
    assert text_format(pa.array([text] * 3)) == "auto"


@pytest.mark.parametrize(
    ("texts", "month"),
    [
        (("1. Januar 2021", "1er janvier 2021", "1 janv. 2021", "1 de enero de 2021"), 1),
        (("1. Februar 2021", "1 février 2021", "1 févr. 2021", "1 feb. 2021"), 2),
        (("1. März 2021", "1 mars 2021", "1 marzo 2021", "1. Mrz. 2021"), 3),
        (("1. April 2021", "1 avril 2021", "1 avr. 2021", "1 abril 2021"), 4),
        (("1. Mai 2021", "1 mai 2021", "1 mayo 2021", "1 may 2021"), 5),
        (("1. Juni 2021", "1 juin 2021", "1 junio 2021"), 6),
        (("1. Juli 2021", "1 juillet 2021", "1 juil. 2021", "1 julio 2021"), 7),
        (("1. August 2021", "1 août 2021", "1 agosto 2021", "1 ago 2021"), 8),
        (("1. Oktober 2021", "1. Okt. 2021", "1 octobre 2021", "1 octubre 2021"), 10),
        (("1. November 2021", "1 novembre 2021", "1 noviembre 2021"), 11),
        (("1. Dezember 2021", "1 décembre 2021", "1 déc. 2021", "1 DICIEMBRE 2021"), 12),
    ],
)
def test_months_in_german_french_and_spanish(texts, month):
    for text in texts:
        assert seconds_of(text) == datetime(2021, month, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["3.9.21", "3.10.21", "10.3.21", "03.09.2", "3th 2021"])
def test_versions_are_no_days(text):
    assert np.isnan(seconds_of(text))


@pytest.mark.parametrize(
    "text", ["Mayor 3, 2021", "Sunny, 3, 2021", "Marching 3, 2021", "3 marche 2021", "12ABC2021"]
)
def test_other_words_are_no_months(text):
    assert np.isnan(seconds_of(text))


def test_the_clock_of_times_in_a_zone():
    moment = datetime(2022, 5, 3, 15, 30, tzinfo=UTC)
    berlin = pa.array([moment], pa.timestamp("s", "Europe/Berlin"))
    assert has_offsets(berlin)
    assert to_seconds(berlin, local=True)[0] == SECONDS
    assert not has_offsets(berlin.cast(pa.timestamp("s", "UTC")))
    assert seconds_of(datetime.fromisoformat("2022-05-03T17:30+02:00"), local=True) == SECONDS


def test_days():
    start = datetime(2022, 5, 3, tzinfo=UTC).timestamp()
    assert seconds_of(20220503) == start
    assert seconds_of("2022-05-03") == start
    assert seconds_of(date(2022, 5, 3)) == start
    assert to_seconds(pa.array([date(2022, 5, 3)]))[0] == start


@pytest.mark.parametrize(
    "text", ["2022-05", "2022/05", "05/2022", "5/2022", "May-2022", "may 2022"]
)
def test_months_begin_with_their_first_day(text):
    first = datetime(2022, 5, 1, tzinfo=UTC).timestamp()
    assert seconds_of(text) == first
    assert to_seconds(pa.array([text, "2022-05-01", None]))[0] == first
    assert text_format(pa.array([text, None])) == "auto"


@pytest.mark.parametrize("text", ["2022Q2", "2022-Q2", "2022 q2", "Q2 2022", "Q2-2022"])
def test_quarters_begin_with_their_first_month(text):
    assert seconds_of(text) == datetime(2022, 4, 1, tzinfo=UTC).timestamp()
    assert to_seconds(pa.array([text, "2022-05-01", None]))[0] == seconds_of(text)
    assert text_format(pa.array([text, None])) == "auto"
    assert np.isnan(seconds_of(text.replace("2022", "1234")))
    assert np.isnan(seconds_of(text.upper().replace("Q2", "Q5")))


@pytest.mark.parametrize(
    "text",
    [
        "2022-13",
        "1234-05",
        "3/22",
        "May-22",
        "2022-5-",
        "ABC-2022",
        "2022 km",
        "9 May",
        "5-2030000000",
        "10:00–11:00",
        "2022-05-03 17:30:00 Middle/Earth",
        "2022-366 17:30",
        "/Date(1)",
        f"/Date({'9' * 400})/",
        "0000-123 10:00",
        "9999-999 10:00",
        "2 10.15.20",
    ],
)
def test_codes_and_ranges_are_no_times(text):
    assert np.isnan(seconds_of(text))
    assert np.isnan(to_seconds(pa.array([text, "12"]))[0])


def test_milliseconds_behind_the_seconds():
    assert seconds_of("20220503173000250") == pytest.approx(SECONDS + 0.25, abs=0.005)
    assert np.isnan(seconds_of(1e30)) or abs(seconds_of(1e30)) > 1e15  # no date, and no warning


def test_the_day_before_the_month():
    for text in ("03/05/2022 17:30", "3/5/2022 5:30 PM", "03-05-2022 17:30:00", "3.5.2022 17:30"):
        assert seconds_of(text, "day_first") == SECONDS
        assert to_seconds(pa.array([text, "31/12/2020"]), "day_first")[0] == SECONDS
    assert text_format(pa.array(["3/5/2022", "13/5/2022", None])) == "day_first"
    for mark in "/-":
        assert text_format(pa.array([f"5{mark}3{mark}2022", f"5{mark}13{mark}2022"])) == "auto"
        assert text_format(pa.array([f"3{mark}5{mark}2022", f"13{mark}5{mark}2022"])) == "day_first"
    assert text_format(pa.array(["2022-05-03", "3-D printer", "10-4"])) is None


@pytest.mark.parametrize(
    ("layout", "time_format"),
    [
        ("{:02}/05/2024", "day_first"),
        ("05/{:02}/2024", "auto"),
        ("{:02}-05-2024 13:05", "day_first"),
        ("05-{:02}-2024 13:05", "auto"),
    ],
)
def test_days_up_to_the_12th_are_read_so_that_they_lie_together(layout, time_format):
    assert text_format(pa.array([layout.format(day) for day in range(1, 13)])) == time_format


def test_a_truth_value_is_no_time():
    with pytest.raises(TypeError):
        seconds_of_values([True])


def test_texts_of_requests_are_read_together_and_remembered():
    texts = ["11/15/2019 10:22:32 AM", "11/15/2019 10:22:33 AM", "not a time"]
    for _ in range(2):
        found = seconds_of_values([*texts, texts[0]])
        np.testing.assert_array_equal(found, to_seconds(pa.array([*texts, texts[0]])))


@pytest.mark.parametrize("values", [["2019-11-15 10:22:31", None, "2019-11-16"], [1.5e9, None]])
def test_missing_times_keep_none_from_being_read_together(monkeypatch, values):
    expected = [seconds_of(value) for value in values]
    calls = []
    monkeypatch.setattr(times, "seconds_of", lambda *value: calls.append(value))
    np.testing.assert_array_equal(seconds_of_values(values), expected)
    np.testing.assert_array_equal(seconds_of_values([None, None]), [np.nan, np.nan])
    assert not calls


def test_hours_behind_the_day():
    assert seconds_of(2022050317, "yyyymmddhh") == SECONDS - 1800
    hours = to_seconds(pa.array(["2022050324", "2022133100"]), "yyyymmddhh")
    assert np.isnan(hours).all()


def test_days_of_spreadsheets():
    days = [44_684.729166666664, 44_684.72917, 44_684.75]
    read = to_seconds(pa.array(days), "excel")
    np.testing.assert_allclose(read, [SECONDS, SECONDS + 0.288, SECONDS + 1800], atol=0.01)
    assert read[0] == SECONDS  # and no second before, which is another minute
    np.testing.assert_array_equal(seconds_of_values(days, "excel"), read)
    np.testing.assert_array_equal(to_seconds(pa.array(map(str, days)), "excel"), read)
    assert seconds_of("2022-05-03 17:30", "excel") == SECONDS


def test_avazu_hours():
    expected = datetime(2014, 10, 21, 23, tzinfo=UTC).timestamp()
    assert to_seconds(pa.array(["14102123"]), "yymmddhh")[0] == expected
    assert seconds_of(14102123, "yymmddhh") == expected


@pytest.mark.parametrize("time_format", get_args(TimeFormat))
def test_a_value_is_read_the_same_whatever_stands_beside_it(time_format):
    values = ["20220503", "1651600000", "2022050317", "14102123", "3/5/2022", "nonsense", None]
    values += ["2022-05-03 10:00:00", "$5"]
    together = to_seconds(pa.array(values, pa.string()), time_format)
    np.testing.assert_array_equal(together, [seconds_of(v, time_format) for v in values])


def test_few_values_and_columns_agree():
    values = [1_651_600_000, 20220503, float("nan")]
    np.testing.assert_array_equal(
        seconds_of_values(values), to_seconds(pa.array(values, from_pandas=True))
    )


def test_parts_against_datetime():
    moments = [datetime(1999, 12, 31, 23, tzinfo=UTC), MOMENT, datetime(2024, 2, 29, tzinfo=UTC)]
    seconds = np.array([m.timestamp() for m in moments] + [np.nan])
    np.testing.assert_array_equal(time_part(seconds, "hour")[:3], [m.hour for m in moments])
    np.testing.assert_array_equal(time_part(seconds, "weekday")[:3], [m.weekday() for m in moments])
    np.testing.assert_array_equal(time_part(seconds, "day")[:3], [m.day for m in moments])
    np.testing.assert_array_equal(time_part(seconds, "month")[:3], [m.month for m in moments])
    assert all(np.isnan(time_part(seconds, part)[3]) for part in ("hour", "weekday", "day"))


@pytest.mark.parametrize(
    ("first", "rest", "time_format"), [(60, 0, None), (30, 4000, "auto"), (50, 4000, None)]
)
def test_a_few_other_texts_hide_no_times(first, rest, time_format):
    texts = [f"ab:{i:02x}:cd" for i in range(first)] + ["2022-05-03"] * rest
    assert text_format(pa.array(texts)) == time_format
    assert text_format(pa.array(texts[::-1])) == time_format


def test_known_and_new_texts_are_read_together_when_memory_of_them_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(times, "_known", {})
    monkeypatch.setattr(times, "_MAX_KNOWN", 2)
    days = [f"1970-01-0{day}" for day in range(1, 5)]
    seconds_of_values(days[:2])
    assert seconds_of_values(days).tolist() == [0, 86_400, 2 * 86_400, 3 * 86_400]
    assert np.isnan(seconds_of_values(["x", days[3]])).tolist() == [True, False]
