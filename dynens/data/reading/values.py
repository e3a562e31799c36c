"""One reading of raw values: the same category or number whatever type it arrives in.

The integer 5, the float 5.0 and the text "5" are one category; True, 1 and "true" are one; None,
NaN, infinities, empty text and the usual spellings of "no value" are missing. Every rule exists
twice, for one Python value and for an Arrow column, and tests hold the two together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.reprs import unwrapped, unwrapped_column
from dynens.errors import DataError

NULL_SPELLINGS = (
    *("", "null", "NULL", "Null", "None", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaT"),
    *("?", "\\N", "-", "--", "na", "n.a.", "unknown", "Unknown", "UNKNOWN", "missing", "Missing"),
    *("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"),
)
NAN_SPELLINGS = ("nan", "NaN", "NAN", "-nan")
INFINITE_SPELLINGS = (
    *("inf", "-inf", "+inf", "Inf", "-Inf", "Infinity", "-Infinity", "infinity", "-infinity"),
)
MISSING_SPELLINGS = NULL_SPELLINGS + NAN_SPELLINGS + INFINITE_SPELLINGS
_MISSING = frozenset(MISSING_SPELLINGS)
_MISSING_ARRAY = pa.array(MISSING_SPELLINGS)
SPACE = " \t\r\n\x0b\x0c"
TRUTH_WORDS = {"true": "1", "True": "1", "TRUE": "1", "false": "0", "False": "0", "FALSE": "0"}
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]+")
_LONG_FRACTION = 8  # digits: fewer are no float32 written as a double
_MANY_DIGITS = rf"\.[0-9]{{{_LONG_FRACTION},}}\z"
_SPELLED_ALIKE = (1e-4, 1e10)  # sizes of numbers with a fraction that Arrow writes as Python does
PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}


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
        return _canonical_text(text_of_bytes(value))
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
    text = unwrapped(text.strip(SPACE))
    if text in _MISSING:
        return None
    if text in TRUTH_WORDS:
        return TRUTH_WORDS[text]
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
    """Whether values are integers, floats, decimals or booleans."""
    kinds = pa.types
    checks = (kinds.is_integer, kinds.is_floating, kinds.is_decimal, kinds.is_boolean)
    return any(check(kind) for check in checks)


def is_list_type(kind: pa.DataType) -> bool:
    """Whether values are lists, of one length or of any."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in lists)


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
    values = unwrapped_column(pc.utf8_trim(values, characters=SPACE))
    values = pc.if_else(pc.is_in(values, _MISSING_ARRAY), pa.scalar(None, pa.string()), values)
    words = pc.index_in(values, pa.array(list(TRUTH_WORDS)))
    if words.null_count < len(words):
        values = pc.coalesce(pc.take(pa.array(list(TRUTH_WORDS.values())), words), values)
    odd = rf"^-?[0-9]+\.([0-9]*0|[0-9]{{{_LONG_FRACTION},}})\z"
    padded = pc.match_substring_regex(values, odd).fill_null(False)
    if pc.any(padded).as_py():
        values = pc.replace_with_mask(values, padded, _shortened(values.filter(padded)))
    return values


def _shortened(decimals: pa.StringArray) -> pa.StringArray:
    """`_canonical_text` of texts that end in zeros or have many digits."""
    texts = pc.utf8_rtrim(pc.utf8_rtrim(decimals, "0"), ".")
    texts = pc.if_else(pc.equal(texts, "-0"), "0", texts)
    are_long = pc.match_substring_regex(texts, _MANY_DIGITS)
    numbers = pc.if_else(are_long, texts, "0.5").cast(pa.float64()).to_numpy()
    may_be_single = are_long.to_numpy(zero_copy_only=False) & (_singles(numbers) == numbers)
    if may_be_single.any():
        mask = pa.array(may_be_single)
        short = [_canonical_text(text) for text in texts.filter(mask).to_pylist()]
        texts = pc.replace_with_mask(texts, mask, pa.array(short, pa.string()))
    return texts


def _canonical_floats(values: pa.Array) -> pa.StringArray:
    numbers = values.to_numpy(zero_copy_only=False).astype(np.float64)
    singles, size = _singles(numbers), np.abs(numbers)
    whole = (size < 2**53) & (numbers == np.trunc(numbers))
    integers = pa.array(np.where(whole, numbers, 0.0).astype(np.int64)).cast(pa.string())
    if whole.all():
        return integers
    texts = pa.array(numbers).cast(pa.string())
    are_short = pc.and_(singles == numbers, pc.match_substring_regex(texts, _MANY_DIGITS))
    texts = pc.if_else(are_short, pa.array(singles).cast(pa.string()), texts)
    texts = pc.if_else(whole, integers, texts)
    low, high = _SPELLED_ALIKE
    others = ~(whole | (low <= size) & (size < high))
    spelled = [_canonical_float(number) for number in numbers[others]]
    return pc.replace_with_mask(texts, others, pa.array(spelled, pa.string()))


def _singles(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The nearest float32 of each."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


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
            column.cast(pa.int64()).cast(pa.float64(), safe=False), PER_SECOND[kind.unit]
        )
    if is_bytes(kind):
        texts = [None if v is None else text_of_bytes(v) for v in column.to_pylist()]
        return pa.array(texts, pa.string())
    return column


def text_of_bytes(value: bytes) -> str:
    """Bytes as text: UTF-8, or of what is none, such as digests, the hexadecimal digits."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values are bytes, read by `text_of_bytes`."""
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(check(kind) for check in checks) or kind == pa.binary_view()


def one_line(value: Any) -> str:
    """The beginning of a value as messages show it."""
    return repr(str(value)[:40])
