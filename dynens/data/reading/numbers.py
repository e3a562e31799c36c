"""Numbers as people and files write them, read alike from a column and from one value."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import (
    MISSING_SPELLINGS,
    NON_FINITE_SPELLINGS,
    NULL_SPELLINGS,
    PER_SECOND,
    SPACE,
    TRUTH_WORDS,
    one_line,
    plain,
)
from dynens.errors import DataError
from dynens.schema import Decimal

MAX_UNREADABLE_SHARE = 0.01  # of a column's values, beyond which it is not what it was taken for
_MISSING = frozenset(MISSING_SPELLINGS)
_NULL_ARRAY = pa.array(NULL_SPELLINGS)
_NON_FINITE_ARRAY = pa.array(NON_FINITE_SPELLINGS)
_CURRENCY = (
    r"[$€£¥₹₩₽₺₪฿₫₴₦]|USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|BRL|RUB|AUD|CAD|CHF|SEK|NOK|DKK|PLN|CZK|HUF|"
    r"TRY|MXN|ZAR|SGD|HKD|TWD|THB|IDR|VND|MYR|PHP|AED|SAR|ILS|kr|zł|Rs\.?|R\$|US\$"
)
_DECORATED = re.compile(  # $1,200.50, -12 EUR, (5.00), +45%, 3.5 MB, 1.2k
    r"(?P<open>\()?(?P<sign>[-+−]?)\s?(?:(?:" + _CURRENCY + r")\s?)?(?P<inner>[-+−]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:[\u00a0\u202f ][0-9]{3})+|[0-9]+)"
    r"(?P<rest>\.[0-9]+)?\s?(?:(?P<times>[kKMGT])(?:i?B)?|%|" + _CURRENCY + r")?(?P<close>\))?"
)
# 1.234.567,89 €
_GAP = r"[ \x{a0}\x{202f}]?"  # \s is another class in Arrow than in Python
_AROUND = _GAP + r"(?:%|" + _CURRENCY + r")?" + _GAP
COMMA_NUMBER = (
    rf"^[-+−]?{_AROUND}([0-9]+|[0-9]{{1,3}}([. \x{{a0}}][0-9]{{3}})+)(,[0-9]+)?{_AROUND}$"
)
_COMMA_NUMBER = re.compile(COMMA_NUMBER.replace("\\x{a0}", "\u00a0").replace("\\x{202f}", "\u202f"))
_TIMES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_CLOCK = re.compile(  # 1:02:03, 12:30, 0 days 00:51:25.5
    r"(?P<sign>-?)(?:(?P<days>[0-9]+) days?,? \+?)?(?P<hours>[0-9]{1,3}):(?P<minutes>[0-5][0-9])"
    r"(?::(?P<seconds>[0-5][0-9](?:\.[0-9]+)?))?(?:\s?(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_DURATION = re.compile(  # PT1H2M3S
    r"(?P<sign>-?)P(?=.)(?:(?P<days>[0-9]+)D)?(?:T(?=.)(?:(?P<hours>[0-9]+)H)?"
    r"(?:(?P<minutes>[0-9]+)M)?(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?)S)?)?"
)
_PARTS_S = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MEASURED = re.compile(r"(?P<amount>.*[0-9)]) +(?P<unit>[A-Za-zµ°][A-Za-zµ°²³/.]{0,11})")
# Behind these the amount alone would be another number.
_NO_UNITS = frozenset(
    {"dozen", "hundred", "thousand", "million", "billion", "trillion", "mn", "bn"}
)
_NO_UNITS |= {"lakh", "lac", "crore", "am", "pm"}
_MOSTLY = 0.5
_SHORT = 3  # letters: `ms` is no two `m`


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers.

    Attributes:
        values: (B,) float64, NaN where missing.
        num_non_finite: NaN or infinite numbers among them (treated as missing).
        num_infinite: infinite numbers among them.
        num_unreadable: texts that are no numbers (treated as missing).
        example: the first such text.
    """

    values: npt.NDArray[np.float64]
    num_non_finite: int = 0
    num_infinite: int = 0
    num_unreadable: int = 0
    example: str | None = None


def with_points(column: pa.Array) -> pa.Array:
    """Texts that are numbers with a decimal comma, with a point: 1.234,5 becomes 1234.5."""
    found = pc.match_substring_regex(column, r"[.,]").fill_null(False)
    if not pc.any(found).as_py():
        return column
    numbers = pc.and_(found, pc.match_substring_regex(column, COMMA_NUMBER).fill_null(False))
    pointed = pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".")
    return pc.if_else(numbers, pointed, column)


def column_with_points(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`with_points` of any column; numbers stay as they are."""
    column = plain(column)
    return with_points(column) if pa.types.is_string(column.type) else column


def with_point(text: str) -> str:
    """`with_points` of one text."""
    if _COMMA_NUMBER.match(text):
        return text.replace(".", "").replace(",", ".")
    return text


def unit_of(texts: pa.Array) -> str | None:
    """The unit that most of a column's texts have behind a number (`km` of `1,582 km`), or None.

    Lower case, of one or many without the s.
    """
    known = texts.drop_null().to_pylist()
    units = Counter(unit for text in known if (unit := _unit(text.strip(SPACE))))
    unit, count = max(units.items(), key=lambda item: item[1], default=("", 0))
    return unit if count > _MOSTLY * len(known) else None


def _unit(text: str) -> str | None:
    parts = _MEASURED.fullmatch(text)
    if parts is None or parse_number(text) is not None or parse_number(parts["amount"]) is None:
        return None
    unit = parts["unit"].lower().removesuffix(".")
    unit = unit.removesuffix("s") if len(unit) > _SHORT else unit
    return None if unit in _NO_UNITS else unit


def _behind(unit: str) -> str:
    """A pattern, for Arrow and for `re`, of the unit behind a number, as `_unit` finds it."""
    many = "s?" if len(unit) >= _SHORT else ""
    return rf"(?i) +{unit.replace('.', '[.]')}{many}[.]?$"


def to_numbers(
    column: pa.Array | pa.ChunkedArray, decimal: Decimal = ".", unit: str | None = None
) -> Numbers:
    """Read a column as numbers; NaN, infinities and missing values become NaN.

    Args:
        column: numbers, or texts of numbers.
        decimal: what stands before the decimals in texts.
        unit: what may stand behind the numbers in texts.
    """
    column = plain(column)
    kind = column.type
    unreadable, example = 0, None
    if pa.types.is_string(kind):
        if unit is not None:
            trimmed = pc.utf8_trim(column, characters=SPACE)
            column = pc.replace_substring_regex(trimmed, _behind(unit), "")
        column = with_points(column) if decimal == "," else column
        column, unreadable, example = _parse_strings(column)
    elif pa.types.is_null(kind):
        return Numbers(np.full(len(column), np.nan))
    elif not (pa.types.is_floating(kind) and kind != pa.float16()):
        column = _cast_to_double(column)
    numbers = column.cast(pa.float64())
    nulls = numbers.null_count
    values = numbers.to_numpy(zero_copy_only=False)
    finite = np.isfinite(values)
    if finite.all():
        return Numbers(values, num_unreadable=unreadable, example=example)
    infinite = int(np.isinf(values).sum())
    values = np.where(finite, values, np.nan)
    non_finite = int((~finite).sum()) - nulls
    return Numbers(values, non_finite, infinite, unreadable, example)


def _cast_to_double(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        width = 32 if pa.types.is_date32(kind) else 64
        column = column.cast(pa.int32() if width == 32 else pa.int64())
    if pa.types.is_time(kind):
        whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
        return pc.divide(whole.cast(pa.float64()), PER_SECOND[kind.unit])
    try:
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        return column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise DataError(
            f"a column of type {kind} cannot be read as numbers; convert it to numbers."
        ) from e


def _parse_strings(column: pa.Array) -> tuple[pa.Array, int, str | None]:
    """Texts as doubles: (numbers, how many texts are not numbers, the first of them)."""
    column = pc.utf8_trim(column, characters=SPACE)
    column = pc.if_else(pc.is_in(column, _NULL_ARRAY), pa.scalar(None, pa.string()), column)
    column = pc.if_else(pc.is_in(column, _NON_FINITE_ARRAY), pa.scalar("inf"), column)
    try:
        return column.cast(pa.float64()), 0, None
    except pa.ArrowInvalid:
        texts = column.to_pylist()
    numbers = [None if t is None else math.inf if t == "inf" else parse_number(t) for t in texts]
    unreadable = [t for t, n in zip(texts, numbers, strict=True) if t is not None and n is None]
    array = pa.array(numbers, pa.float64())
    return array, len(unreadable), unreadable[0] if unreadable else None


def parse_number(text: str) -> float | None:
    """The number a text spells, or None.

    `true` is 1, `$1,200.50` and `1,200.50 USD` are 1200.5, `(5)` is -5, `45%` is 45, `1.2k` is
    1200; times of the day and durations (`1:02:03`, `1:02 PM`, `0 days 01:02:03`, `PT1H2M3S`) are
    seconds.
    """
    text = text.strip(SPACE)
    if _NUMBER.fullmatch(text):
        return float(text)
    if text in TRUTH_WORDS:
        return float(TRUTH_WORDS[text])
    parts = _DECORATED.fullmatch(text)
    if parts is not None:
        return _decorated(parts)
    parts = _CLOCK.fullmatch(text)
    if parts is not None and parts["half"]:
        return _of_clock(parts)
    parts = parts or _DURATION.fullmatch(text)
    if parts is None:
        return None
    seconds = _seconds(parts)
    return -seconds if parts["sign"] else seconds


def _seconds(parts: re.Match[str]) -> float:
    return sum(float(parts[name] or 0) * unit for name, unit in _PARTS_S.items())


def _of_clock(parts: re.Match[str]) -> float | None:
    """Seconds of a clock with twelve hours."""
    if parts["sign"] or parts["days"] or not 1 <= int(parts["hours"]) <= 12:
        return None
    noon = 43_200
    return _seconds(parts) % noon + (noon if parts["half"] in "pP" else 0)


def _decorated(parts: re.Match[str]) -> float | None:
    signs = parts["sign"] + parts["inner"]
    if len(signs) > 1 or bool(parts["open"]) != bool(parts["close"]):
        return None
    whole = re.sub(r"[^0-9]", "", parts["whole"])
    size = float(whole + (parts["rest"] or "")) * _TIMES.get(parts["times"], 1.0)
    return -size if signs in ("-", "−") or parts["open"] else size


def number(value: Any, field: str, decimal: Decimal = ".", unit: str | None = None) -> float:
    """One raw value as a number, NaN when missing; texts are read as `to_numbers` reads them.

    Raises:
        DataError: it is a text that spells no number.
    """
    if value is None or value is pa.NA:
        return math.nan
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip(SPACE)
        if unit is not None:
            text = re.sub(_behind(unit), "", text)
        if text in _MISSING:
            return math.nan
        if decimal == ",":
            text = with_point(text)
        parsed = parse_number(text)
        if parsed is None:
            raise DataError(f"field {field!r} is numeric but was given {one_line(value)}.")
        return parsed if math.isfinite(parsed) else math.nan
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, time):
        clock = value.replace(tzinfo=None)
        return (datetime.combine(date.min, clock) - datetime.min).total_seconds()
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as e:
        raise DataError(f"field {field!r} is numeric but was given {one_line(value)}.") from e
    return result if math.isfinite(result) else math.nan
