"""Numbers as people and files write them, read alike from a column and from one value."""

from __future__ import annotations

import contextlib
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

from dynens.data.reading.lengths import LENGTHS, all_in_seconds, are_lengths, in_seconds
from dynens.data.reading.reprs import unwrapped, unwrapped_column
from dynens.data.reading.spelled import (
    TIMES,
    UNIT,
    parse_number,
    parse_range,
    read_text,
    with_point,
    with_points,
)
from dynens.data.reading.values import (
    INFINITE_SPELLINGS,
    MISSING_SPELLINGS,
    NAN_SPELLINGS,
    NULL_SPELLINGS,
    PER_SECOND,
    SPACE,
    one_line,
    plain,
    text_of_bytes,
)
from dynens.data.reading.worded import WORDS, lone_number, lone_numbers
from dynens.errors import DataError
from dynens.schema import Decimal

MAX_UNREADABLE_SHARE = 0.01  # of a column's values, beyond which it is not what it was taken for
_MISSING = frozenset(MISSING_SPELLINGS)
_NULL_ARRAY = pa.array(NULL_SPELLINGS)
_NON_FINITE = {"nan": pa.array(NAN_SPELLINGS), "inf": pa.array(INFINITE_SPELLINGS)}
_MEASURED = re.compile(rf"(?P<amount>.*[0-9)](?: ?{TIMES}(?= ))?)(?P<gap> *)(?P<unit>{UNIT})")
# Behind these the amount alone would be another number.
_NO_UNITS = frozenset({"dozen", "am", "pm"})
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
_LETTERED = r"[1-9][0-9]*(?:\.[0-9]+)?([a-z])"
_PLAIN_NUMBER = r"[-+]?[0-9.,]+"
_MONEY, _MARKS = r"^[$€£]?([0-9]+|[0-9]{1,3}(,[0-9]{3})+)([.][0-9]+)?$", "[$€£,]"
_FEW, _NEARLY_ALL = 2, 0.95  # of the texts


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


def unit_of(texts: pa.Array) -> str | None:
    """The unit that most of a column's texts have behind a number (`km` of `1,582 km`), or None.

    Lower case, of one or many without the s. `MINUTES` where texts have one colon or two (`3:45`,
    `1:02:03`), and too many hours for a day if those with one had any; `LENGTHS` where texts are
    lengths of time in several units (`45m`, `2d 3h`).
    """
    known = texts.drop_null().to_pylist()
    if _are_minutes(known):
        return MINUTES
    if are_lengths(known) and any(read_text(text) is None for text in set(known)):
        return LENGTHS
    units = Counter(unit for text in known if (unit := _unit(text.strip(SPACE))))
    for unit, related in _RELATED.items():
        if unit in units:
            units[unit] += sum(units[other] for other in related)
    unit, count = max(units.items(), key=lambda item: item[1], default=("", 0))
    return unit if count > _MOSTLY * len(known) else _letter(known)


def _letter(texts: Sequence[str]) -> str | None:
    """The one small letter right behind nearly all numbers (`1080p`): not that of a house then.

    It is none where it is a size (`5k`) or a duration (`3h`, `45m` beside others) itself.
    """
    known = set(texts)
    counts = Counter(found[1] for text in known if (found := re.fullmatch(_LETTERED, text)))
    letter, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if not (count > _FEW and count > _NEARLY_ALL * len(known)):
        return None
    sized = any(
        read_text(text) is not None and not re.fullmatch(_PLAIN_NUMBER, text) for text in known
    )
    return None if sized else letter


def _are_minutes(texts: Sequence[str]) -> bool:
    firsts = [int(text.split(":")[0]) for text in texts if re.match(_SHORT_CLOCK, text)]
    longer = sum(re.match(_LONG_CLOCK, text) is not None for text in texts)
    enough = len(firsts) + longer > _MOSTLY * len(texts)
    return enough and longer > 0 and max(firsts, default=0) >= _DAY_H


def _unit(text: str) -> str | None:
    parts = _MEASURED.fullmatch(text)
    if parts is None or read_text(text) is not None or read_text(parts["amount"]) is None:
        return None
    unit = parts["unit"].lower().removesuffix(".")
    is_code = not parts["gap"] and (len(unit) == 1 or re.match("0[0-9]", text))  # 12A, 007AB
    unit = unit.removesuffix("s") if len(unit) > _SHORT else unit
    return None if is_code or unit in _NO_UNITS else unit


def _behind(unit: str) -> str:
    """A pattern, for Arrow and for `re`, of the unit behind a number, as `_unit` finds it."""
    many = "s?" if len(unit) >= _SHORT else ""
    return rf"(?i) ?{unit.replace('.', '[.]')}{many}[.]?$"


def _without_units(
    column: pa.Array, unit: str, decimal: Decimal
) -> tuple[pa.Array, npt.NDArray[np.float64]]:
    """(the texts without units, (B,) what their numbers are to be multiplied by)."""
    column = pc.utf8_trim(column, characters=SPACE)
    factors = np.ones(len(column))
    if unit == WORDS:
        return lone_numbers(column, decimal), factors
    if unit == MINUTES:
        return pc.replace_substring_regex(column, *_TO_MINUTES), factors
    if unit == LENGTHS:
        return all_in_seconds(column), factors
    amounts = pc.replace_substring_regex(column, _behind(unit), "")
    for other, factor in _RELATED.get(unit, {}).items():
        found = pc.match_substring_regex(column, _behind(other)).fill_null(False)
        factors[found.to_numpy(zero_copy_only=False)] = factor
        amounts = pc.if_else(found, pc.replace_substring_regex(column, _behind(other), ""), amounts)
    return amounts, factors


def _without_unit(text: str, unit: str, decimal: Decimal) -> tuple[str, float]:
    """`_without_units` of one text."""
    if unit == WORDS:
        return lone_number(text, decimal), 1.0
    if unit == MINUTES:
        return re.sub(*_TO_MINUTES, text), 1.0
    if unit == LENGTHS:
        return in_seconds(text), 1.0
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
            column, factors = _without_units(column, unit, decimal)
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
    with contextlib.suppress(pa.ArrowInvalid):  # what most columns of numbers are soonest read by
        return column.cast(pa.float64()), 0, None, 0
    column = unwrapped_column(column)
    column = pc.if_else(pc.is_in(column, _NULL_ARRAY), pa.scalar(None, pa.string()), column)
    for text, spellings in _NON_FINITE.items():
        column = pc.if_else(pc.is_in(column, spellings), pa.scalar(text), column)
    if pc.all(pc.match_substring_regex(column, _MONEY)).as_py():
        column = pc.replace_substring_regex(column, _MARKS, "")
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
        read = float(text) if text in _NON_FINITE else parse_number(text)
        if read is None:
            read = parse_range(text, decimal)
            is_range[i], is_none[i] = read is not None, read is None
        numbers[i] = math.nan if read is None else read
    no_numbers = np.append(is_none[:-1], True)
    array = pa.array(numbers[codes], mask=no_numbers[codes])
    example = texts[is_none.argmax()] if is_none.any() else None
    return array, int(counts[is_none].sum()), example, int(counts[is_range].sum())


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
            text, factor = _without_unit(text, unit, decimal)
            text = text.strip(SPACE)
        text = unwrapped(with_point(text) if decimal == "," else text)
        if text in _MISSING:
            return math.nan
        parsed = read_text(text, decimal)
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
