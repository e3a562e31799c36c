"""Numbers as people and files write them, read alike from a column and from one value."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
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
    text_of_bytes,
)
from dynens.errors import DataError
from dynens.schema import Decimal

MAX_UNREADABLE_SHARE = 0.01  # of a column's values, beyond which it is not what it was taken for
_MISSING = frozenset(MISSING_SPELLINGS)
_NULL_ARRAY = pa.array(NULL_SPELLINGS)
_NON_FINITE_ARRAY = pa.array(NON_FINITE_SPELLINGS)
_CURRENCY = (
    r"[$€£¥￥円元원₹₩₽₺₪฿₫₴₦]|USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|BRL|RUB|AUD|CAD|CHF|SEK|NOK|DKK|PLN|CZK|HUF|"
    r"TRY|MXN|ZAR|SGD|HKD|TWD|THB|IDR|VND|MYR|PHP|AED|SAR|ILS|kr|zł|Rs\.?|R\$|US\$"
)
_DECORATED = re.compile(  # $1,200.50, -12 EUR, (5.00), +45%, 3.5 MB, 1.2k
    r"(?P<open>\()?(?P<sign>[-+−]?)\s?(?:(?:" + _CURRENCY + r")\s?)?(?P<inner>[-+−]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?:[\u00a0\u202f '’][0-9]{3})+|[0-9]+)"
    r"(?P<rest>\.[0-9]+)?\s?(?:(?P<times>[kKMGT])(?:i?B)?|%|" + _CURRENCY + r")?(?P<close>\))?"
)
_UNIT = r"[A-Za-zµ°][A-Za-zµ°²³/.]{0,11}[23]?"
# 1.234.567,89 €
_GAP = r"[ \x{a0}\x{202f}]?"  # \s is another class in Arrow than in Python
_AROUND = _GAP + r"(?:%|" + _CURRENCY + r")?" + _GAP
COMMA_NUMBER = (
    rf"^[-+−]?{_AROUND}([0-9]+|[0-9]{{1,3}}([. \x{{a0}}\x{{202f}}][0-9]{{3}})+)(,[0-9]+)?"
    rf"([eE][-+]?[0-9]+)?{_AROUND}( ?{_UNIT})?$"
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
_SPOKEN = re.compile(  # 2h 50m, 1 hour 5 min, 24m52s, 3h, 5 min; no 5m: metres or millions
    r"(?P<sign>-?)(?=[0-9]+(?:h| ?hrs?| ?min)$|[0-9]+ ?[a-z]+,? ?[0-9])"
    r"(?:(?P<days>[0-9]+) ?d(?:ays?)?,? ?)?(?:(?P<hours>[0-9]+) ?h(?:(?:ou)?rs?)?,? ?)?"
    r"(?:(?P<minutes>[0-9]+) ?m(?:in(?:ute)?s?)?,? ?)?"
    r"(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?) ?s(?:ec(?:ond)?s?)?)?"
)
_BOUND = re.compile(r"(?:[<>≤≥~]=?\s?(?P<end>.*[0-9].*)|(?P<start>.*[0-9].*)\+)")  # <0.05, 65+
_BEFORE_BOUND, _DASHES = "<>≤≥~", "-–—"
_LONGEST_RANGE = 60  # characters
_RANGE = re.compile(  # 3-5, $40,000 – $60,000, 40-60k
    r"(?P<low>[^-–—]*[0-9][^-–—]*?)\s?(?:[-–—]|\bto\b)\s?(?P<high>[^-–—]*[0-9][^-–—]*)"
)
_PARTS_S = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_NUMBER = re.compile(r"[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MEASURED = re.compile(r"(?P<amount>.*[0-9)])(?P<gap> *)(?P<unit>" + _UNIT + ")")
# Behind these the amount alone would be another number.
_NO_UNITS = frozenset(
    {"dozen", "hundred", "thousand", "million", "billion", "trillion", "mn", "bn"}
)
_NO_UNITS |= {"lakh", "lac", "crore", "am", "pm"}
MINUTES = "m:ss"  # the unit of clocks without hours, where others of the column have them
_SHORT_CLOCK = r"^(-?)([0-9]{1,3}):([0-5][0-9])$"
_TO_MINUTES = (_SHORT_CLOCK, r"\1PT\2M\3S")
_LONG_CLOCK = r"^-?[0-9]{1,3}:[0-5][0-9]:[0-5][0-9]$"
_DAY_H = 24
_RELATED = {  # to a unit, in which all of them are then read
    "m": {"km": 1e3, "cm": 1e-2, "mm": 1e-3},
    "g": {"kg": 1e3, "mg": 1e-3},
    "l": {"cl": 1e-2, "ml": 1e-3},
}
_MOSTLY, _SHORT = 0.5, 3  # letters: `ms` is no two `m`


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers.

    Attributes:
        values: (B,) float64, NaN where missing.
        num_non_finite: NaN or infinite numbers among them (treated as missing).
        num_infinite: infinite numbers among them.
        num_unreadable: texts that are no numbers (treated as missing).
        example: the first such text.
        num_ranges: texts that are not one number but a range or a bound.
    """

    values: npt.NDArray[np.float64]
    num_non_finite: int = 0
    num_infinite: int = 0
    num_unreadable: int = 0
    example: str | None = None
    num_ranges: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether every text that is there is one number."""
        return not self.num_unreadable and not self.num_ranges


def with_points(column: pa.Array) -> pa.Array:
    """Texts that are numbers with a decimal comma, with a point: 1.234,5 becomes 1234.5."""
    found = pc.match_substring_regex(column, r"[.,]").fill_null(False)
    if not pc.any(found).as_py():
        return column
    texts = pc.utf8_trim(column, characters=SPACE)  # as one value is, before it is looked at
    numbers = pc.and_(found, pc.match_substring_regex(texts, COMMA_NUMBER).fill_null(False))
    pointed = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
    return pc.if_else(numbers, pointed, column)


def column_with_points(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`with_points` of any column; numbers stay as they are."""
    column = plain(column)
    return with_points(column) if pa.types.is_string(column.type) else column


def with_point(text: str) -> str:
    """`with_points` of one text."""
    if _COMMA_NUMBER.match(text.strip(SPACE)):
        return text.replace(".", "").replace(",", ".")
    return text


def unit_of(texts: pa.Array) -> str | None:
    """The unit that most of a column's texts have behind a number (`km` of `1,582 km`), or None.

    Lower case, of one or many without the s. `MINUTES` where texts have one colon or two (`3:45`,
    `1:02:03`), and too many hours for a day if those with one had any.
    """
    known = texts.drop_null().to_pylist()
    if _are_minutes(known):
        return MINUTES
    units = Counter(unit for text in known if (unit := _unit(text.strip(SPACE))))
    for unit, related in _RELATED.items():
        if unit in units:
            units[unit] += sum(units[other] for other in related)
    unit, count = max(units.items(), key=lambda item: item[1], default=("", 0))
    return unit if count > _MOSTLY * len(known) else None


def _are_minutes(texts: Sequence[str]) -> bool:
    firsts = [int(text.split(":")[0]) for text in texts if re.match(_SHORT_CLOCK, text)]
    longer = sum(re.match(_LONG_CLOCK, text) is not None for text in texts)
    enough = len(firsts) + longer > _MOSTLY * len(texts)
    return enough and longer > 0 and max(firsts, default=0) >= _DAY_H


def _unit(text: str) -> str | None:
    parts = _MEASURED.fullmatch(text)
    if parts is None or _read(text) is not None or _read(parts["amount"]) is None:
        return None
    unit = parts["unit"].lower().removesuffix(".")
    is_code = not parts["gap"] and (len(unit) == 1 or re.match("0[0-9]", text))  # 12A, 007AB
    unit = unit.removesuffix("s") if len(unit) > _SHORT else unit
    return None if is_code or unit in _NO_UNITS else unit


def _behind(unit: str) -> str:
    """A pattern, for Arrow and for `re`, of the unit behind a number, as `_unit` finds it."""
    many = "s?" if len(unit) >= _SHORT else ""
    return rf"(?i) ?{unit.replace('.', '[.]')}{many}[.]?$"


def _without_units(column: pa.Array, unit: str) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    """(the texts without units, (B,) what their numbers are to be multiplied by)."""
    column = pc.utf8_trim(column, characters=SPACE)
    factors = np.ones(len(column))
    if unit == MINUTES:
        return pc.replace_substring_regex(column, *_TO_MINUTES), factors
    amounts = pc.replace_substring_regex(column, _behind(unit), "")
    for other, factor in _RELATED.get(unit, {}).items():
        found = pc.match_substring_regex(column, _behind(other)).fill_null(False)
        factors[found.to_numpy(zero_copy_only=False)] = factor
        amounts = pc.if_else(found, pc.replace_substring_regex(column, _behind(other), ""), amounts)
    return amounts, factors


def _without_unit(text: str, unit: str) -> tuple[str, float]:
    """`_without_units` of one text."""
    if unit == MINUTES:
        return re.sub(*_TO_MINUTES, text), 1.0
    for other, factor in _RELATED.get(unit, {}).items():
        if re.search(_behind(other), text):
            return re.sub(_behind(other), "", text), factor
    return re.sub(_behind(unit), "", text), 1.0


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
    unreadable, example, ranges, factors = 0, None, 0, None
    if pa.types.is_string(kind):
        if unit is not None:
            column, factors = _without_units(column, unit)
        column = with_points(column) if decimal == "," else column
        column, unreadable, example, ranges = _parse_strings(column, decimal)
    elif pa.types.is_null(kind):
        return Numbers(np.full(len(column), np.nan))
    elif not (pa.types.is_floating(kind) and kind != pa.float16()):
        column = _cast_to_double(column)
    numbers = column.cast(pa.float64())
    nulls = numbers.null_count
    values = numbers.to_numpy(zero_copy_only=False)
    values = values if factors is None else values * factors
    finite = np.isfinite(values)
    if finite.all():
        return Numbers(values, 0, 0, unreadable, example, ranges)
    infinite = int(np.isinf(values).sum())
    values = np.where(finite, values, np.nan)
    non_finite = int((~finite).sum()) - nulls
    return Numbers(values, non_finite, infinite, unreadable, example, ranges)


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


def _parse_strings(column: pa.Array, decimal: Decimal) -> tuple[pa.Array, int, str | None, int]:
    """Texts as doubles: (numbers, how many texts are none, the first of them, how many ranges)."""
    column = pc.utf8_trim(column, characters=SPACE)
    column = pc.if_else(pc.is_in(column, _NULL_ARRAY), pa.scalar(None, pa.string()), column)
    column = pc.if_else(pc.is_in(column, _NON_FINITE_ARRAY), pa.scalar("inf"), column)
    try:
        return column.cast(pa.float64()), 0, None, 0
    except pa.ArrowInvalid:
        encoded = column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()  # each is parsed once, in the order they appear in
    codes = encoded.indices.fill_null(len(texts)).to_numpy()
    counts = np.bincount(codes, minlength=len(texts) + 1)
    numbers = np.full(len(texts) + 1, np.nan)
    is_range, is_none = np.zeros((2, len(texts) + 1), bool)
    for i, text in enumerate(texts):
        read = math.inf if text == "inf" else parse_number(text)
        if read is None:
            read = parse_range(text, decimal)
            is_range[i], is_none[i] = read is not None, read is None
        numbers[i] = math.nan if read is None else read
    array = pa.array(numbers[codes], from_pandas=True)
    example = texts[is_none.argmax()] if is_none.any() else None
    return array, int(counts[is_none].sum()), example, int(counts[is_range].sum())


def parse_number(text: str) -> float | None:
    """The number a text spells, or None.

    `true` is 1, `$1,200.50` and `1,200.50 USD` are 1200.5, `(5)` is -5, `45%` is 45, `1.2k` is
    1200; times of the day and durations (`1:02:03`, `1:02 PM`, `0 days 01:02:03`, `PT1H2M3S`,
    `2h 50m`) are seconds.
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
    parts = parts or _DURATION.fullmatch(text) or _SPOKEN.fullmatch(text)
    if parts is None:
        return None
    seconds = _seconds(parts)
    return -seconds if parts["sign"] else seconds


def _read(text: str, decimal: Decimal = ".") -> float | None:
    number = parse_number(text)
    return parse_range(text, decimal) if number is None else number


def parse_range(text: str, decimal: Decimal = ".") -> float | None:
    """The middle of a range (`3-5`, `$40k to $60k`), the end of one without (`65+`, `<0.05`)."""
    text = text.strip(SPACE)
    if not text or len(text) > _LONGEST_RANGE:
        return None
    if text[0] in _BEFORE_BOUND or text[-1] == "+":
        bound = _BOUND.fullmatch(text)
        return None if bound is None else _end(bound["end"] or bound["start"], decimal)
    dashes = sum(map(text.count, _DASHES))
    if dashes > 1 or not (dashes or "to" in text):  # which is found sooner than by the pattern
        return None
    parts = _RANGE.fullmatch(text)
    if parts is None:
        return None
    low, high = _end(parts["low"], decimal), _end(parts["high"], decimal)
    if low is None or high is None:
        return None
    shared = _DECORATED.fullmatch(parts["high"].strip(SPACE))
    if shared is not None and shared["times"] and not parts["low"][-1].isalpha():
        times = _TIMES[shared["times"]]
        low *= times if low * times <= high else 1.0  # 40-60k, and no 500-1k
    return None if low > high else (low + high) / 2


def _end(text: str, decimal: Decimal) -> float | None:
    """One end of a range."""
    return parse_number(with_point(text.strip(SPACE)) if decimal == "," else text)


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
        value = text_of_bytes(value)
    if isinstance(value, str):
        text, factor = value.strip(SPACE), 1.0
        if unit is not None:
            text, factor = _without_unit(text, unit)
            text = text.strip(SPACE)
        if text in _MISSING:
            return math.nan
        if decimal == ",":
            text = with_point(text)
        parsed = _read(text, decimal)
        if parsed is None:
            raise DataError(f"field {field!r} is numeric but was given {one_line(value)}.")
        return parsed * factor if math.isfinite(parsed) else math.nan
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
