"""One reading of raw values: the same category or number whatever type it arrives in.

The integer 5, the float 5.0 and the text "5" are one category; True, 1 and "true" are one; None,
NaN, infinities, empty text and the usual spellings of "no value" are missing. Every rule exists
twice, for one Python value and for an Arrow column, and tests hold the two together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.errors import DataError
from dynens.schema import Decimal as DecimalSign

MAX_UNREADABLE_SHARE = 0.01  # of a column's values, beyond which it is not what it was taken for
NULL_SPELLINGS = (
    *("", "null", "NULL", "Null", "None", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaT"),
    *("?", "\\N", "-", "--", "na", "n.a.", "unknown", "Unknown", "UNKNOWN", "missing", "Missing"),
)
NON_FINITE_SPELLINGS = (
    *("nan", "NaN", "NAN", "-nan", "inf", "-inf", "Inf", "-Inf", "Infinity", "-Infinity"),
    *("infinity", "-infinity", "+inf"),
)
MISSING_SPELLINGS = NULL_SPELLINGS + NON_FINITE_SPELLINGS
_MISSING = frozenset(MISSING_SPELLINGS)
_MISSING_ARRAY = pa.array(MISSING_SPELLINGS)
_NULL_ARRAY = pa.array(NULL_SPELLINGS)
_NON_FINITE_ARRAY = pa.array(NON_FINITE_SPELLINGS)
_SPACE = " \t\r\n\x0b\x0c"
_WORDS = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+")
_LONG_FRACTION = 8  # digits: fewer are no float32 written as a double
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
_AROUND = r"\s?(?:%|" + _CURRENCY + r")?\s?"
COMMA_NUMBER = (
    rf"^[-+−]?{_AROUND}([0-9]+|[0-9]{{1,3}}([. \x{{a0}}][0-9]{{3}})+)(,[0-9]+)?{_AROUND}$"
)
_COMMA_NUMBER = re.compile(COMMA_NUMBER.replace("\\x{a0}", "\u00a0"))
_TIMES = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_CLOCK = re.compile(  # 1:02:03, 12:30, 0 days 00:51:25.5
    r"(?P<sign>-?)(?:(?P<days>[0-9]+) days?,? \+?)?(?P<hours>[0-9]{1,3}):(?P<minutes>[0-5][0-9])"
    r"(?::(?P<seconds>[0-5][0-9](?:\.[0-9]+)?))?"
)
_DURATION = re.compile(  # PT1H2M3S
    r"(?P<sign>-?)P(?=.)(?:(?P<days>[0-9]+)D)?(?:T(?=.)(?:(?P<hours>[0-9]+)H)?"
    r"(?:(?P<minutes>[0-9]+)M)?(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?)S)?)?"
)
_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_PARTS_S = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def canonical(value: Any) -> str | None:
    """The category a raw value stands for, or None when it is missing.

    Raises:
        TypeError: it is a list or mapping.
    """
    if isinstance(value, str):
        return _canonical_text(value)
    if value is None or value is pa.NA:
        return None
    if isinstance(value, bytes):
        return _canonical_text(value.decode("utf-8", "replace"))
    if isinstance(value, (bool, np.bool_)):
        return "1" if value else "0"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return _canonical_float(value)
    if isinstance(value, timedelta):
        return _canonical_float(value.total_seconds())
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _canonical_text(format(value, "f"))
    if isinstance(value, (list, tuple, dict, set, np.ndarray)):
        raise TypeError(f"a {type(value).__name__} is no category")
    return _canonical_text(str(value))


def _canonical_float(value: float | np.floating[Any]) -> str | None:
    if not math.isfinite(value):
        return None
    if value == int(value):
        return str(int(value))
    text = repr(float(value))
    if len(text.partition(".")[2]) < _LONG_FRACTION:
        return text
    # A float32 .1 is .1, though as a double, or in JSON, it is 0.10000000149011612.
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return str(single) if float(single) == float(value) else text


def _canonical_text(text: str) -> str | None:
    text = text.strip(_SPACE)
    if text in _MISSING:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        text = text.rstrip("0").rstrip(".")
        if len(text.partition(".")[2]) >= _LONG_FRACTION and repr(float(text)) == text:
            return _canonical_float(float(text))
        return "0" if text == "-0" else text
    return text


def canonical_codes(column: pa.Array | pa.ChunkedArray) -> tuple[pa.StringArray, npt.NDArray[Any]]:
    """A column as (distinct canonical values, codes), codes -1 where missing.

    Two codes may stand for the same text (`5` and `5.0` in one text column).
    """
    column = plain(column)
    if pa.types.is_null(column.type):
        return pa.array([], pa.string()), np.full(len(column), -1, np.int32)
    _refuse_nested(column.type)
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    texts = canonical_texts(encoded.dictionary)
    if texts.null_count:
        absent = texts.is_null().to_numpy(zero_copy_only=False)
        codes = np.where(np.append(absent, True)[codes], -1, codes)
        texts = texts.fill_null("")
    return texts, codes


def canonical_texts(values: pa.Array) -> pa.StringArray:
    """`canonical` of every value, null where missing."""
    kind = values.type
    _refuse_nested(kind)
    if pa.types.is_integer(kind):
        return values.cast(pa.string())
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.string())
    if pa.types.is_string(kind):
        return _canonical_strings(values)
    if pa.types.is_floating(kind):
        return _canonical_floats(values)
    return pa.array([canonical(v) for v in _python_values(values)], pa.string())


def _refuse_nested(kind: pa.DataType) -> None:
    if pa.types.is_nested(kind):
        raise DataError(
            f"a column of type {kind} cannot be read as categories; convert it to values."
        )


def _python_values(values: pa.Array) -> list[Any]:
    """Values as Python has them; times beyond its years 1 to 9999 are missing."""
    try:
        return list(values.to_pylist())
    except (OverflowError, ValueError):
        return [_python_value(value) for value in values]


def _python_value(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return None


def is_number_type(kind: pa.DataType) -> bool:
    """Whether values are integers, floats or booleans."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    return any(check(kind) for check in checks)


def widen(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """The integer type that holds several types of number as they are, None where only text does.

    A double would merge ids beyond 2^53, and int64 does not reach as far as uint64.
    """
    distinct = set(kinds)
    if len(distinct) == 1:
        return distinct.pop()
    fits = all(pa.types.is_integer(kind) and kind != pa.uint64() for kind in distinct)
    return pa.int64() if fits else None


def _canonical_strings(values: pa.StringArray) -> pa.StringArray:
    values = pc.utf8_trim(values, characters=_SPACE)
    values = pc.if_else(pc.is_in(values, _MISSING_ARRAY), pa.scalar(None, pa.string()), values)
    words = pc.index_in(values, pa.array(list(_WORDS)))
    if words.null_count < len(words):
        values = pc.coalesce(pc.take(pa.array(list(_WORDS.values())), words), values)
    odd = rf"^-?[0-9]+\.([0-9]*0|[0-9]{{{_LONG_FRACTION},}})\z"
    padded = pc.match_substring_regex(values, odd).fill_null(False)
    if pc.any(padded).as_py():
        texts = [_canonical_text(v) for v in values.filter(padded).to_pylist()]
        values = pc.replace_with_mask(values, padded, pa.array(texts, pa.string()))
    return values


def _canonical_floats(values: pa.Array) -> pa.StringArray:
    numbers = values.to_numpy(zero_copy_only=False)
    if numbers.dtype == np.float16:
        numbers = numbers.astype(np.float32)
    with np.errstate(invalid="ignore"):
        whole = np.isfinite(numbers) & (np.abs(numbers) < 2**53) & (numbers == np.trunc(numbers))
    if whole.all():
        return pa.array(numbers.astype(np.int64)).cast(pa.string())
    return pa.array([_canonical_float(v) for v in numbers], pa.string())


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array without dictionary, large, view or extension types, durations in s."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if isinstance(column, pa.ChunkedArray):  # no chunks at all
            column = pa.array([], column.type)
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    if kind == pa.uuid():
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return column.cast(pa.string())
    if pa.types.is_duration(kind):
        return pc.divide(
            column.cast(pa.int64()).cast(pa.float64(), safe=False), _PER_SECOND[kind.unit]
        )
    if is_bytes(kind):
        texts = [None if v is None else v.decode("utf-8", "replace") for v in column.to_pylist()]
        return pa.array(texts, pa.string())
    return column


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes, read as UTF-8 texts."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) or kind == pa.binary_view()


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


def to_numbers(column: pa.Array | pa.ChunkedArray, decimal: DecimalSign = ".") -> Numbers:
    """Read a column as numbers; NaN, infinities and missing values become NaN."""
    column = plain(column)
    kind = column.type
    unreadable, example = 0, None
    if pa.types.is_string(kind):
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
    try:
        if pa.types.is_boolean(kind):
            column = column.cast(pa.int8())
        return column.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise DataError(
            f"a column of type {kind} cannot be read as numbers; convert it to numbers."
        ) from e


def _parse_strings(column: pa.Array) -> tuple[pa.Array, int, str | None]:
    """Texts as doubles: (numbers, how many are not numbers, the first of them)."""
    column = pc.utf8_trim(column, characters=_SPACE)
    column = pc.if_else(pc.is_in(column, _NULL_ARRAY), pa.scalar(None, pa.string()), column)
    column = pc.if_else(pc.is_in(column, _NON_FINITE_ARRAY), pa.scalar("inf"), column)
    try:
        return column.cast(pa.float64()), 0, None
    except pa.ArrowInvalid:
        texts = column.to_pylist()
    numbers = [None if t is None else math.inf if t == "inf" else parse_number(t) for t in texts]
    unreadable = [t for t, n in zip(texts, numbers, strict=True) if t is not None and n is None]
    array = pa.array(numbers, pa.float64())
    return array, len(unreadable), (unreadable[0] if unreadable else None)


def parse_number(text: str) -> float | None:
    """The number a text spells, or None.

    `true` is 1, `$1,200.50` and `1,200.50 USD` are 1200.5, `(5)` is -5, `45%` is 45, `1.2k` is
    1200; times of the day and durations (`1:02:03`, `0 days 01:02:03`, `PT1H2M3S`) are seconds.
    """
    text = text.strip(_SPACE)
    if _NUMBER.fullmatch(text):
        return float(text)
    if text in _WORDS:
        return float(_WORDS[text])
    parts = _DECORATED.fullmatch(text)
    if parts is not None:
        return _decorated(parts)
    parts = _CLOCK.fullmatch(text) or _DURATION.fullmatch(text)
    if parts is None:
        return None
    seconds = sum(float(parts[name] or 0) * unit for name, unit in _PARTS_S.items())
    return -seconds if parts["sign"] else seconds


def _decorated(parts: re.Match[str]) -> float | None:
    signs = parts["sign"] + parts["inner"]
    if len(signs) > 1 or bool(parts["open"]) != bool(parts["close"]):
        return None
    whole = re.sub(r"[^0-9]", "", parts["whole"])
    size = float(whole + (parts["rest"] or "")) * _TIMES.get(parts["times"], 1.0)
    return -size if signs in ("-", "−") or parts["open"] else size


def one_line(value: Any) -> str:
    """The beginning of a value as messages show it."""
    return repr(str(value)[:40])


def number(value: Any, field: str, decimal: DecimalSign = ".") -> float:
    """One raw value as a number, NaN when missing; `decimal` is the sign in texts.

    Raises:
        DataError: it is a text that spells no number.
    """
    if value is None or value is pa.NA:
        return math.nan
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        text = value.strip(_SPACE)
        if text in _MISSING:
            return math.nan
        if decimal == "," and _COMMA_NUMBER.match(text):
            text = text.replace(".", "").replace(",", ".")
        parsed = parse_number(text)
        if parsed is None:
            raise DataError(f"field {field!r} is numeric but was given {one_line(value)}.")
        return parsed if math.isfinite(parsed) else math.nan
    if isinstance(value, timedelta):
        return value.total_seconds()
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError) as e:
        raise DataError(f"field {field!r} is numeric but was given {one_line(value)}.") from e
    return result if math.isfinite(result) else math.nan
