"""Dates and times, however they are written, as seconds since 1970 (UTC)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.numbers import MAX_UNREADABLE_SHARE, to_numbers
from dynens.data.reading.spelled import parse_number
from dynens.data.reading.spelled_times import (
    AWAY,
    LAYOUTS,
    OFFSET,
    RANGE,
    ZULU,
    spelled_seconds,
)
from dynens.data.reading.values import canonical_texts, plain
from dynens.schema import TimeFormat, TimePart

TEXT_FORMATS: tuple[TimeFormat, ...] = ("auto", "day_first")
NUMBER_FORMATS: tuple[TimeFormat, ...] = ("yyyymmddhh", "auto", "yymmddhh", "count")
"""The strictest first: yyyymmddhh would pass for Unix times of the year 2034."""

Floats = npt.NDArray[np.float64]

_DAY_S = 86_400
# (upper bound of the absolute value, units per second): seconds, then ms, us, ns since 1970
_EPOCH_UNITS = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (np.inf, 1e9))
_UNITS = [unit for _, unit in _EPOCH_UNITS]
_EXCEL_1970, _EXCEL_DAYS = 25_569, (20_000, 60_000)  # of 1954 to 2064
_MAX_KNOWN = 20_000
_FIRST = 50
# Texts of requests that were read before, which come back: (text, format, local) → seconds.
_known: dict[tuple[str, TimeFormat, bool], float] = {}


def to_seconds(
    column: pa.Array | pa.ChunkedArray, time_format: TimeFormat = "auto", *, local: bool = False
) -> Floats:
    """(B,) float64 seconds since 1970 UTC, NaN where missing or not a time.

    `auto` reads Arrow times and dates, ISO texts and those that `spelled_times` knows, integers of
    1900 to 2100 that begin with yyyymmdd, followed by nothing or hhmm, hhmmss or these and
    milliseconds, and Unix times in s, ms, us or ns, told apart by size. `day_first` reads 3/4/2024
    as a day of April, and is `auto` otherwise. `excel` is days as spreadsheets count them, `count`
    numbers of any unit from any start, which tell an order. Where times have an offset from UTC,
    `local` reads the clock that they show: 10:00+02:00 is ten o'clock.
    """
    column = plain(column)
    kind = column.type
    if local and has_offsets(column):
        column = _clocks(column)
        kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return to_numbers(seconds).values / 1e6
    numbers = read_once(column)
    if pa.types.is_string(numbers.type):
        return _from_texts(column, time_format, local)
    return _from_numbers(to_numbers(numbers).values, time_format)


def read_once(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The numbers that all texts of a column are, or the column: to be tried as times of any kind.

    Most other texts are told from numbers by the first few, and reading all takes long.
    """
    column = plain(column)
    if pa.types.is_string(column.type) and to_numbers(column.slice(0, _FIRST)).is_plain:
        numbers = to_numbers(column)
        return pa.array(numbers.values) if numbers.is_plain else column
    return column


def has_offsets(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether times are written with an offset from UTC that is not 0, or in a zone's time."""
    column = plain(column)
    if pa.types.is_timestamp(column.type):
        zone: str | None = column.type.tz
        return zone not in (None, "UTC", "+00:00")
    if not pa.types.is_string(column.type):
        return False
    return bool(pc.any(pc.match_substring_regex(_starts(column), AWAY.pattern)).as_py())


def _clocks(column: pa.Array) -> pa.Array:
    """Times without most of their offsets, which leaves what the clock shows."""
    if pa.types.is_timestamp(column.type):
        return pc.local_timestamp(column)
    return pc.replace_substring_regex(_starts(column), OFFSET.pattern, r"\1\3")


def _starts(column: pa.Array) -> pa.Array:
    """Texts of ranges of hours without their ends."""
    return pc.replace_substring_regex(column, RANGE.pattern, r"\1")


def seconds_of(value: Any, time_format: TimeFormat = "auto", *, local: bool = False) -> float:
    """One raw value as seconds since 1970 UTC (NaN when missing or not a time).

    Raises:
        TypeError: it is a truth value, or no single value.
    """
    if value is None:
        return float("nan")
    if isinstance(value, bool):
        raise TypeError("a truth value is no time")
    if isinstance(value, datetime):
        is_clock = local or value.tzinfo is None
        moment: datetime = value.replace(tzinfo=UTC) if is_clock else value
        return moment.timestamp()
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
    if isinstance(value, (str, bytes)):
        return float(to_seconds(pa.array([value], pa.string()), time_format, local=local)[0])
    return float(_from_numbers(np.array([float(value)]), time_format)[0])


def seconds_of_values(
    values: Sequence[Any], time_format: TimeFormat = "auto", *, local: bool = False
) -> Floats:
    """`to_seconds` for a few Python values."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds <= {int, float}:
        numbers = np.array(values, np.float64)  # None becomes NaN
        return _from_numbers(np.where(np.isfinite(numbers), numbers, np.nan), time_format)
    if kinds == {str}:
        # Apart from `_known`, which may be emptied here or by another thread meanwhile.
        texts = {text for text in values if text is not None}
        found = {text: _known.get((text, time_format, local)) for text in texts}
        new = [text for text, seconds in found.items() if seconds is None]
        if new:
            if len(_known) + len(new) > _MAX_KNOWN:
                _known.clear()
            read = to_seconds(pa.array(new, pa.string()), time_format, local=local).tolist()
            found.update(zip(new, read, strict=True))
            keys = ((text, time_format, local) for text in new)
            _known.update(zip(keys, read, strict=True))
        return np.array([found.get(text, np.nan) for text in values], np.float64)
    return np.array([seconds_of(value, time_format, local=local) for value in values])


def unreadable_times(column: pa.Array | pa.ChunkedArray, seconds: Floats) -> tuple[int, str | None]:
    """(texts that are neither missing nor, by `to_seconds`, a time; the first of them)."""
    column = plain(column)
    if not pa.types.is_string(column.type):
        return 0, None
    doubtful = np.flatnonzero(np.isnan(seconds))
    texts = canonical_texts(column.take(pa.array(doubtful))).drop_null()
    return len(texts), texts[0].as_py() if len(texts) else None


def _from_numbers(numbers: Floats, time_format: TimeFormat) -> Floats:
    if time_format == "count":
        return numbers
    if time_format == "excel":
        return np.asarray(np.round((numbers - _EXCEL_1970) * _DAY_S, 3))
    if time_format == "yymmddhh":
        return _from_clock(numbers + 2_000_000_000, 100, 1)
    if time_format == "yyyymmddhh":
        return _from_clock(numbers, 100, 1)
    if time_format == "yyyymmdd":
        return _from_yyyymmdd(numbers)
    # Value by value, never by what else is in the column: the same in any chunk.
    size = np.abs(numbers)
    per_second = np.select([size < bound for bound, _ in _EPOCH_UNITS], _UNITS, 1.0)
    seconds: Floats = numbers / per_second
    seconds = _dates_among(seconds, numbers, 1, _from_yyyymmdd)
    for scale, read in _CLOCK_DIGITS.items():
        seconds = _dates_among(seconds, numbers, scale, read)
    return seconds


def _dates_among(
    seconds: Floats, numbers: Floats, scale: int, read: Callable[[Floats], Floats]
) -> Floats:
    """`seconds`, but of the `numbers` that spell a date followed by log10(scale) digits."""
    like_date = (numbers >= 19_000_101 * scale) & (numbers < 21_001_232 * scale)
    if not like_date.any():
        return seconds
    dates = read(np.where(like_date, numbers, np.nan))
    return np.where(np.isfinite(dates), dates, seconds)


def _from_clock(numbers: Floats, per_day: int, per_hour: int) -> Floats:
    """yyyymmdd with the hour, or hour, minute and second, behind it."""
    days, clock = np.divmod(numbers, per_day)
    hours, rest = np.divmod(clock, per_hour)
    minutes, seconds = np.divmod(rest, 100) if per_hour > 1 else (0.0 * rest, 0.0 * rest)
    valid = (hours < 24) & (minutes < 60) & (seconds < 61)
    return np.where(valid, _from_yyyymmdd(days) + hours * 3600 + minutes * 60 + seconds, np.nan)


# By the power of ten of the digits behind yyyymmdd: minutes, seconds and milliseconds.
_CLOCK_DIGITS: dict[int, Callable[[Floats], Floats]] = {
    10**4: lambda n: _from_clock(100 * n, 10**6, 10**4),
    10**6: lambda n: _from_clock(n, 10**6, 10**4),
    10**9: lambda n: _from_clock(n // 1000, 10**6, 10**4) + n % 1000 / 1000,
}


def are_excel_days(column: pa.ChunkedArray) -> bool:
    """Whether all numbers of a column may be times as spreadsheets count, not all midnights."""
    numbers = to_numbers(column).values
    numbers = numbers[np.isfinite(numbers)]
    first, last = _EXCEL_DAYS
    in_range = len(numbers) > 0 and first <= numbers.min() and numbers.max() <= last
    return bool(in_range and (numbers != np.trunc(numbers)).any())


def are_yyyymmdd(column: pa.ChunkedArray) -> bool:
    """Whether (nearly) all numbers of a column are days of 1900 to 2100, as yyyymmdd."""
    numbers = to_numbers(column).values
    numbers = numbers[np.isfinite(numbers)]
    in_range = (numbers >= 19_000_101) & (numbers < 21_001_232)
    is_day = in_range & np.isfinite(_from_yyyymmdd(np.where(in_range, numbers, np.nan)))
    return len(numbers) > 0 and bool(is_day.mean() > 1 - MAX_UNREADABLE_SHARE)


def _from_yyyymmdd(numbers: Floats) -> Floats:
    known = np.abs(numbers) < 10**9
    whole = np.where(known, numbers, 19_700_101).astype(np.int64)
    years, months, days = whole // 10_000, whole // 100 % 100, whole % 100
    valid = known & (months >= 1) & (months <= 12) & (days >= 1) & (days <= 31)
    years = np.where(valid, years, 1970)
    month_count = (years - 1970) * 12 + np.where(valid, months - 1, 0)
    first = month_count.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
    return np.where(valid, (first + np.where(valid, days, 1) - 1) * float(_DAY_S), np.nan)


def _from_texts(column: pa.Array, time_format: TimeFormat, local: bool) -> Floats:
    bare = pc.replace_substring_regex(_starts(column), ZULU.pattern, "")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # without or with an offset
        try:
            return to_seconds(bare.cast(kind))
        except pa.ArrowInvalid:
            continue
    encoded = bare.dictionary_encode()
    layouts = list(LAYOUTS[time_format == "day_first"])
    texts = encoded.dictionary.to_pylist()
    read = [_from_text(text, layouts, time_format, local) for text in texts]
    seconds = np.array([*read, np.nan])
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    result: Floats = seconds[codes]
    return result


def _from_text(text: str | None, layouts: list[str], time_format: TimeFormat, local: bool) -> float:
    """Seconds of one text."""
    if text is None:
        return float("nan")
    text = text.strip()
    number = parse_number(text)
    if number is not None:
        return float(_from_numbers(np.array([number]), time_format)[0])
    return spelled_seconds(text, layouts, local=local)


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


def text_format(column: pa.Array | pa.ChunkedArray) -> TimeFormat | None:
    """The format in which nearly all of the non-missing texts are dates or times, or None.

    Texts that are all numbers are none of dates, whatever these may stand for.
    Where no day is above the 12th, both orders of day and month can be read: then the one whose
    times lie closer together is meant. Twelve days of May, read the other way, are a year.
    """
    known = pc.drop_null(plain(column))
    if not len(known) or pa.types.is_time(known.type) or pa.types.is_nested(known.type):
        return None
    if pa.types.is_string(known.type) and to_numbers(known).is_plain:
        return None
    spans: dict[TimeFormat, float] = {}
    for time_format in TEXT_FORMATS:
        first = to_seconds(known.slice(0, _FIRST), time_format)  # other texts take long to refuse
        if np.isnan(first).sum() > MAX_UNREADABLE_SHARE * len(known):
            continue
        seconds = to_seconds(known, time_format)
        if np.isfinite(seconds).mean() > 1 - MAX_UNREADABLE_SHARE:
            spans[time_format] = float(np.nanmax(seconds) - np.nanmin(seconds))
    return min(((span, name) for name, span in spans.items()), default=(0.0, None))[1]
