"""Dates and times, however they are written, as seconds since 1970 (UTC)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.numbers import MAX_UNREADABLE_SHARE, to_numbers
from dynens.data.reading.spelled import parse_number
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
_MAX_KNOWN = 20_000
_FIRST = 50
# Texts of requests that were read before, which come back: (text, format, local) → seconds.
_known: dict[tuple[str, TimeFormat, bool], float] = {}


def to_seconds(
    column: pa.Array | pa.ChunkedArray, time_format: TimeFormat = "auto", *, local: bool = False
) -> Floats:
    """(B,) float64 seconds since 1970 UTC, NaN where missing or not a time.

    `auto` reads Arrow times and dates, ISO texts, the layouts of `_DATES`, `_CLOCKS` and `_LOGS`,
    also as `_REWRITTEN` makes them of others (months of `_MONTH_NAMES`, weekdays in English),
    months alone (2015-12, Dec-2015, 12/2015), integers of 1900 to 2100 that begin with yyyymmdd,
    followed by nothing or hhmm, hhmmss or these and milliseconds, and Unix times in s, ms, us or
    ns, told apart by size. `day_first` reads 3/4/2024 as a day of April, and is `auto` otherwise.
    `count` is numbers of any unit from any start, which tell an order. Where times have an offset
    from UTC, `local` reads the clock that they show: 10:00+02:00 is ten o'clock.
    """
    column = plain(column)
    kind = column.type
    if local and has_offsets(column):
        return to_seconds(_clocks(column), time_format)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return to_numbers(seconds).values / 1e6
    if pa.types.is_string(kind):
        numbers = to_numbers(column)
        if numbers.is_plain:
            return _from_numbers(numbers.values, time_format)
        return _from_texts(column, time_format)
    return _from_numbers(to_numbers(column).values, time_format)


def has_offsets(column: pa.Array | pa.ChunkedArray) -> bool:
    """Whether times are written with an offset from UTC that is not 0, or in a zone's time."""
    column = plain(column)
    if pa.types.is_timestamp(column.type):
        zone: str | None = column.type.tz
        return zone not in (None, "UTC", "+00:00")
    if not pa.types.is_string(column.type):
        return False
    return bool(pc.any(pc.match_substring_regex(column, _AWAY.pattern)).as_py())


def _clocks(column: pa.Array) -> pa.Array:
    """Times without their offsets, which leaves what the clock shows."""
    if pa.types.is_timestamp(column.type):
        return pc.local_timestamp(column)
    return pc.replace_substring_regex(column, _OFFSET.pattern, r"\1\3")


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


def _from_texts(column: pa.Array, time_format: TimeFormat) -> Floats:
    bare = pc.replace_substring_regex(column, _ZULU.pattern, "")
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):  # without or with an offset
        try:
            return to_seconds(bare.cast(kind))
        except pa.ArrowInvalid:
            continue
    encoded = bare.dictionary_encode()
    layouts = list(_LAYOUTS[time_format == "day_first"])
    texts = encoded.dictionary.to_pylist()
    seconds = np.array([_from_text(text, layouts, time_format) for text in texts] + [np.nan])
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    result: Floats = seconds[codes]
    return result


_ZULU = re.compile(r"\s*(Z|UTC|GMT)\s*$")
# Hours from UTC: those of RFC 2822, section 4.3, and of Central Europe.
_ZONES = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_ZONES |= {"CET": 1, "CEST": 2}
_NAMED = "|".join(_ZONES)
_CLOCK = r":\d\d(?:\.\d+)?(?:\s?[ap]\.?m\.?)?"
_YEAR = r"(?: \d{4})?\s*$"  # behind the offset of what `date` prints
_OFFSET = re.compile(rf"(?i)({_CLOCK})\s?([-+](?:0\d|1[0-4])(?::?\d\d)?|UTC|GMT|{_NAMED})({_YEAR})")
_AWAY = re.compile(rf"(?i){_CLOCK}\s?(?:[-+](?:0?[1-9]|1\d|00:?[1-9])[\d:]*|{_NAMED}){_YEAR}")
_MONTH_FIRST = ("%m/%d/%Y", "%m/%d/%y", "%m-%d-%Y")
_DAY_FIRST = ("%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y")
_DATES = (
    *("%Y/%m/%d", "%d.%m.%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y"),
    *("%d.%m.%y", "%d %b %y", "%d-%b-%y", "%m %d, %Y", "%Y-%m-%d", "%Y.%m.%d"),
)
_CLOCKS = (" %H:%M:%S", " %H:%M", "", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p")
_LOGS = ("%b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S")
_LAYOUTS = [
    tuple(date + clock for date in (*_DATES, *dates) for clock in _CLOCKS) + _LOGS
    for dates in (_MONTH_FIRST, _DAY_FIRST)
]
_MONTHS = ["%Y-%m", "%Y/%m", "%m/%Y", "%b-%Y", "%b %Y"]
_REWRITTEN = [
    (re.compile(pattern, re.IGNORECASE), written)
    for pattern, written in (
        (r"(?<=\d)(?:,| at|, at) (?=\d\d?:\d\d)", " "),  # 5/3/2022, 17:30
        (r"(?<=\d)\s?([ap])\.?m\b\.?", r" \1m"),  # 5:30pm
        (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +", ""),  # Monday, May 6, 2024; Mon 6 May 2024
        (r"(?<=\d)(st|nd|rd|th|er)\b", ""),  # October 26th, 2019
        (r"\b(\d\d?)([A-Z]{3})(\d{4})\b:?", r"\1 \2 \3 "),  # 06MAY2013:17:30:00
        (r"(\d{4})[年년] ?(\d\d?)[月월] ?(\d\d?)[日일]", r"\1-\2-\3 "),
        (r"(?<=\d)\. (?=[^\W\d])| de ", " "),  # 6. Mai 2024, 6 de mayo de 2024
        (r"(?<=[^\W\d])\.?,? (?=\d{4}\b)", " "),  # 21 Aug, 2012; 21 sept. 2012
    )
]
_MONTH_NAMES = (  # in English, German, French and Spanish
    *("jan january januar janvier janv enero ene", "feb february februar février févr febrero"),
    *("mar march märz mär mrz mars marzo", "apr april avril avr abril abr", "may mai mayo"),
    *("jun june juni juin junio", "jul july juli juillet juil julio"),
    *("aug august août agosto ago", "sep sept september septembre septiembre"),
    *("oct october oktober okt octobre octubre", "nov november novembre noviembre"),
    "dec december dezember dez décembre déc diciembre dic",
)
_MONTH_OF = {name: names[:3] for names in _MONTH_NAMES for name in names.split()}
_WORD = re.compile(r"[^\W\d_]{3,}")
_VERSION = re.compile(r"(\d\.\d+|\d\d?\.\d)\.\d\d")  # 2.10.15, where 02.10.15 is a day
_DATE_LIKE = re.compile(r"([A-Za-z]{3} +|\d{1,4}[-/. ])\w{1,3}[-/., ].*\d")
_MONTH_LIKE = re.compile(r"(19|20)\d\d[-/]\d\d|(\d\d?/|[A-Za-z]{3}[- ])(19|20)\d\d")


def _from_text(text: str | None, layouts: list[str], time_format: TimeFormat) -> float:
    """Seconds of one text; the layout that fits moves to the front, for no two fit one text."""
    if text is None:
        return float("nan")
    text = text.strip()
    number = parse_number(text)
    if number is not None:
        return float(_from_numbers(np.array([number]), time_format)[0])
    try:
        return seconds_of(datetime.fromisoformat(text))
    except ValueError:
        pass
    text, ahead_s = _without_offset(text)
    for pattern, written in _REWRITTEN:
        text = pattern.sub(written, text)
    text = _WORD.sub(lambda word: _MONTH_OF.get(word[0].lower(), word[0]), text).strip()
    if _MONTH_LIKE.fullmatch(text):
        layouts = _MONTHS
    elif not _DATE_LIKE.match(text) or _VERSION.fullmatch(text):
        return float("nan")
    for i, layout in enumerate(layouts):
        try:
            seconds = seconds_of(datetime.strptime(text, layout))
        except ValueError:
            continue
        layouts.insert(0, layouts.pop(i))
        return seconds - ahead_s
    return float("nan")


def _without_offset(text: str) -> tuple[str, float]:
    """(the text without its offset from UTC, which may be a zone's name; seconds ahead of UTC)."""
    found = _OFFSET.search(text)
    if found is None:
        return text, 0.0
    clock, offset, year = found.groups()
    text = text[: found.start()] + clock + year
    if offset[0] not in "-+":
        return text, 3600.0 * _ZONES.get(offset.upper(), 0)
    digits = offset[1:].replace(":", "").ljust(4, "0")
    ahead_s = 3600.0 * int(digits[:2]) + 60.0 * int(digits[2:])
    return text, -ahead_s if offset[0] == "-" else ahead_s


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
