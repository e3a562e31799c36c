"""Dates and times, however they are written, as seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.values import parse_number, plain, to_numbers
from dynens.schema import TimeFormat, TimePart

Floats = npt.NDArray[np.float64]

_DAY_S = 86_400
# (upper bound of the absolute value, units per second): seconds, then ms, us, ns since 1970
_EPOCH_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (np.inf, 1e9))
_UNITS = [unit for _, unit in _EPOCH_UNITS]


def to_seconds(column: pa.Array | pa.ChunkedArray, time_format: TimeFormat = "auto") -> Floats:
    """(B,) float64 seconds since 1970 UTC, NaN where missing or not a time.

    `auto` reads Arrow times and dates, ISO texts, yyyymmdd integers (19000101 to 21001231) and
    Unix times in s, ms, us or ns, told apart by size.
    """
    column = plain(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return to_numbers(seconds).values / 1e6
    if pa.types.is_string(kind):
        numbers = to_numbers(column)
        if numbers.num_unreadable:
            return _from_texts(column)
        return _from_numbers(numbers.values, time_format)
    return _from_numbers(to_numbers(column).values, time_format)


def seconds_of(value: Any, time_format: TimeFormat = "auto") -> float:
    """One raw value as seconds since 1970 UTC (NaN when missing or not a time)."""
    if value is None:
        return float("nan")
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, (str, bytes)):
        return float(to_seconds(pa.array([value], pa.string()), time_format)[0])
    return float(_from_numbers(np.array([value], np.float64), time_format)[0])


def seconds_of_values(values: Sequence[Any], time_format: TimeFormat = "auto") -> Floats:
    """`to_seconds` for a few Python values."""
    if set(map(type, values)) <= {int, float}:
        numbers = np.array(values, np.float64)
        return _from_numbers(np.where(np.isfinite(numbers), numbers, np.nan), time_format)
    return np.array([seconds_of(value, time_format) for value in values])


def _from_numbers(numbers: Floats, time_format: TimeFormat) -> Floats:
    if time_format == "yymmddhh":
        days, hours = np.divmod(numbers, 100)
        return np.asarray(_from_yyyymmdd(days + 20_000_000) + hours * 3600)
    if time_format == "yyyymmdd":
        return _from_yyyymmdd(numbers)
    # Value by value, never by what else is in the column: the same in any chunk.
    size = np.abs(numbers)
    per_second = np.select([size < bound for bound, _ in _EPOCH_UNITS], _UNITS, 1.0)
    seconds: Floats = numbers / per_second
    like_date = (numbers >= 19_000_101) & (numbers <= 21_001_231)
    if like_date.any():
        dates = _from_yyyymmdd(np.where(like_date, numbers, np.nan))
        seconds = np.where(np.isfinite(dates), dates, seconds)
    return seconds


def _from_yyyymmdd(numbers: Floats) -> Floats:
    known = np.isfinite(numbers)
    whole = np.where(known, numbers, 19_700_101).astype(np.int64)
    years, months, days = whole // 10_000, whole // 100 % 100, whole % 100
    valid = known & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    years = np.where(valid, years, 1970)
    month_count = (years - 1970) * 12 + np.where(valid, months - 1, 0)
    first = month_count.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return np.where(valid, (first + np.where(valid, days, 1) - 1) * float(_DAY_S), np.nan)


def _from_texts(column: pa.Array) -> Floats:
    try:
        return to_seconds(column.cast(pa.timestamp("us")))
    except pa.ArrowInvalid:
        pass
    encoded = column.dictionary_encode()
    seconds = np.array([_from_text(t) for t in encoded.dictionary.to_pylist()] + [np.nan])
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    result: Floats = seconds[codes]
    return result


_DATES = ("%Y/%m/%d", "%m/%d/%Y", "%d.%m.%Y", "%d %b %Y", "%b %d, %Y")
_TEXT_FORMATS = tuple(date + clock for date in _DATES for clock in (" %H:%M:%S", " %H:%M", ""))


def _from_text(text: str | None) -> float:
    if text is None:
        return float("nan")
    text = text.strip()
    number = parse_number(text)
    if number is not None:
        return float(_from_numbers(np.array([number]), "auto")[0])
    try:
        return seconds_of(datetime.fromisoformat(text))
    except ValueError:
        pass
    for layout in _TEXT_FORMATS:
        try:
            return datetime.strptime(text, layout).replace(tzinfo=UTC).timestamp()
        except ValueError:
            continue
    return float("nan")


def time_part(seconds: Floats, part: TimePart) -> Floats:
    """(B,) float64: hour 0-23, weekday 0-6 (Monday 0), day 1-31, month 1-12, or days since 1970."""
    days: Floats = np.floor(seconds / _DAY_S)
    if part == "epoch_days":
        return seconds / _DAY_S
    if part == "hour":
        return np.asarray(np.floor((seconds - days * _DAY_S) / 3600))
    if part == "weekday":
        return np.asarray(np.mod(days + 3, 7))
    known = np.isfinite(days)
    dates = np.where(known, days, 0).astype(np.int64).astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if part == "month":
        numbers = months.astype(np.int64) % 12 + 1
    else:
        numbers = (dates - months.astype("datetime64[D]")).astype(np.int64) + 1
    return np.where(known, numbers.astype(np.float64), np.nan)


def parsable_share(column: pa.Array | pa.ChunkedArray) -> float:
    """Share of the non-missing texts that are dates or times."""
    known = pc.drop_null(plain(column))
    if not len(known) or pa.types.is_time(known.type) or pa.types.is_nested(known.type):
        return 0.0
    return float(np.isfinite(to_seconds(known)).mean())
