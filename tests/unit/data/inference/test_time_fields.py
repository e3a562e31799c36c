from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.encoding.fields import derived, derived_values
from dynens.data.inference.decide import decide
from dynens.data.inference.profile import profile_column
from dynens.data.inference.roles import find_timestamp
from dynens.data.inference.time_fields import date_fields, row_time_fields
from dynens.data.reading.times import to_seconds
from dynens.schema import FieldSpec

MIDNIGHT = datetime(2024, 6, 1, tzinfo=UTC)  # a Saturday


def test_hours_are_those_of_where_the_row_happened():
    zones = [timezone(timedelta(hours=h)) for h in (-5, 0, 2)]
    texts = [
        (MIDNIGHT + timedelta(hours=hour)).astimezone(zones[hour % 3]).isoformat()
        for hour in range(200)
    ]
    hour, weekday = row_time_fields("at", "auto", pa.chunked_array([texts]))
    assert hour.local
    assert weekday.local
    assert texts[:3] == [
        "2024-05-31T19:00:00-05:00",
        "2024-06-01T01:00:00+00:00",
        "2024-06-01T04:00:00+02:00",
    ]
    assert derived(pa.array(texts), hour).to_pylist()[:3] == [19, 1, 4]
    assert derived(pa.array(texts), weekday).to_pylist()[:3] == [4, 5, 5]
    assert derived_values(texts[:3], hour) == [19, 1, 4]


def test_times_without_offsets_are_as_they_were():
    texts = [(MIDNIGHT + timedelta(hours=hour)).isoformat() for hour in range(48)]
    assert not any(f.local for f in row_time_fields("at", "auto", pa.chunked_array([texts])))


@pytest.mark.parametrize(
    ("hours", "parts"),
    [(6, []), (24, ["at.hour"]), (120, ["at.hour"]), (168, ["at.hour", "at.weekday"])],
)
def test_parts_of_the_time_are_those_that_a_log_goes_round(hours, parts):
    texts = [(MIDNIGHT + timedelta(hours=hour)).isoformat() for hour in range(hours)]
    fields = row_time_fields("at", "auto", pa.chunked_array([texts]))
    assert [f.name for f in fields] == parts


MONTHS = {
    "named": [f"{month}-{year}" for year in (2014, 2015) for month in ("Jan", "Mar", "Jun", "Jul")],
    "on the 28th": [f"2015-{month:02}-28" for month in range(1, 13)],
    "on the last": ["2015-01-31", "2015-02-28", "2015-03-31", "2015-04-30", "2016-02-29"],
}


@pytest.mark.parametrize("texts", MONTHS.values(), ids=MONTHS)
def test_the_weekday_of_a_month_is_none(texts):
    column = pa.chunked_array([texts * 200])
    assert list(row_time_fields("at", "auto", column)) == []
    rng = np.random.default_rng(0)
    late = np.isin(np.arange(len(column)) % len(texts), (0, 1))
    labels = (rng.random(len(column)) < np.where(late, 0.9, 0.1)).astype(float)
    date = FieldSpec(name="at", kind="numeric", derive="epoch_days")
    assert [f.derive for f in date_fields(date, column, labels) if f.derive != "month"] == []
    days = pa.chunked_array([column.to_pylist() + ["2015-01-05"] * len(column)])
    labels = np.concatenate([labels, np.zeros(len(column))])
    assert "weekday" in [f.derive for f in date_fields(date, days, labels)]


@pytest.mark.parametrize(
    ("layout", "time_format"),
    [
        ("%Y. %m. %d. %H:%M", "auto"),  # and no vector of numbers
        ("%a %b %d %Y %H:%M:%S GMT+0200 (Central European Summer Time)", "auto"),
        (None, "excel"),
    ],
)
def test_dates_of_spreadsheets_and_browsers_are_dates(layout, time_format):
    moments = [MIDNIGHT + timedelta(hours=h * h % 9973) for h in range(300)]
    values = [45_444 + (m - MIDNIGHT) / timedelta(days=1) for m in moments]
    if layout is not None:
        values = [m.strftime(layout) for m in moments]
    column = pa.chunked_array([values])
    profile = profile_column("signed_up_at", column)
    (field,) = decide(profile, column, is_key=False)
    assert (field.derive, field.time_format) == ("epoch_days", time_format)
    now = pa.table(
        {"event_time": sorted(values, key=lambda v: to_seconds(pa.array([v]), time_format)[0])}
    )
    profile = profile_column("event_time", now["event_time"])
    assert find_timestamp(now, {"event_time": profile}) == ("event_time", time_format)
    if layout is None:
        assert decide(profile_column("price", column), column, is_key=False)[0].derive is None


@pytest.mark.parametrize("layout", ["{}Q{}", "{}-Q{}", "Q{1} {0}"])
def test_a_quarter_comes_back(layout):
    rng = np.random.default_rng(0)
    year, quarter = rng.integers(2018, 2024, 2000), rng.integers(1, 5, 2000)
    column = pa.chunked_array([[layout.format(*q) for q in zip(year, quarter, strict=True)]])
    labels = (rng.random(2000) < np.where(quarter == 4, 0.7, 0.3)).astype(float)
    (date,) = decide(profile_column("period", column, labels), column, is_key=False)
    assert date.derive == "epoch_days"
    (month,) = date_fields(date, column, labels)
    assert month.derive == "month"
    np.testing.assert_array_equal(derived(column, month), 3 * quarter - 2)
