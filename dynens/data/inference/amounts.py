"""Whether texts and other values of a column are numbers, and what kind of numbers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.numbers import Numbers, to_numbers, unit_of
from dynens.data.reading.spelled import CURRENCY
from dynens.data.reading.values import canonical_texts
from dynens.data.reading.worded import WORDS
from dynens.schema import FieldSpec

EXACT = 2**53  # beyond, a float is not one integer
_EXACT_FLOATS = {pa.float64(): EXACT, pa.float32(): 2**24}
FEW_TEXTS = 0.2
_MIN_KNOWN = 20
_MIN_NUMBERS = 10  # fewer are categories and no more
_UNIT_ROWS = 2000
_CURRENCY, _SELDOM = re.compile(CURRENCY), 0.01
_THREES, _NEARLY = r"^[0-9]{3}([, ][0-9]{3})*$", 0.95


@dataclass(frozen=True)
class NumberFacts:
    """The numbers of a column.

    Attributes:
        unit: what stands behind them (`km` of `12 km`), or None.
        is_integer: whether (nearly) all values are numbers, and all of these whole.
        sequential: whether they only grow (or only fall) from row to row.
        span: largest number less the smallest.
        looks_hashed: whether integers are strewn evenly over a huge range, as hashes are.
        among_texts: whether most of the rows or of the different texts are numbers, or ranges of
            them (`3-5`), but not nearly all.
        not_a_number: one of the few texts (at most a fifth) in a column of numbers, or None.
        ways: in how many words that come back the numbers stand; 0: alone.
        currencies: the different ones that they are amounts of.
    """

    unit: str | None = None
    is_integer: bool = False
    sequential: bool = False
    span: float = math.inf
    looks_hashed: bool = False
    among_texts: bool = False
    not_a_number: str | None = None
    ways: int = 0
    currencies: tuple[str, ...] = ()


def numbers_in(array: pa.Array) -> tuple[Numbers | None, str | None]:
    """(the column as numbers, their unit).

    (None, None) where the first texts show that a fifth or more are no numbers, or that they are
    lists.
    """
    unit = None
    if pa.types.is_string(array.type):
        head = array.slice(0, len(array) // 4 + 1)
        if are_lists(head):
            return None, None
        unit = unit_of(head.slice(0, _UNIT_ROWS))
        numbers = to_numbers(head, unit=unit)
        if numbers.num_unreadable + numbers.num_ranges > FEW_TEXTS * len(array):
            return None, None
    return to_numbers(array, unit=unit), unit


def are_lists(texts: pa.StringArray) -> bool:
    """Whether texts of digits in threes are lists of codes (`254,203,267`, `118`), no thousands.

    Of numbers, many would begin with fewer digits, or nearly all would be equally long.
    """
    sample = canonical_texts(pc.unique(texts.slice(0, _UNIT_ROWS))).drop_null()
    codes = sample.filter(pc.match_substring_regex(sample, _THREES))
    if len(sample) < _MIN_KNOWN or len(codes) < _NEARLY * len(sample):
        return False
    usual = pc.value_counts(pc.utf8_length(codes)).field("counts").to_numpy().max()
    return bool(usual < _NEARLY * len(codes))


def mostly_numbers(numbers: Numbers) -> bool:
    """Whether nearly all values that are there (the odd typing error aside) are numbers."""
    finite = int(np.isfinite(numbers.values).sum())
    return finite > 0 and numbers.num_unreadable + numbers.num_ranges <= 0.01 * finite


def mostly_ranges(texts: pa.StringArray) -> bool:
    """Whether more than half of the texts (the first of many) are ranges such as "18-24"."""
    sample = texts.slice(0, _UNIT_ROWS)
    return to_numbers(sample, unit=unit_of(sample)).num_ranges > len(sample) / 2


def number_facts(values: npt.NDArray[np.float64], unit: str | None) -> NumberFacts:
    """What a column of numbers looks like.

    Args:
        values: (N,) finite values in the order of the table, N at least 1.
        unit: of them.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.diff(values)
        span = values.max() - values.min()
        middle = (np.median(values) - values.min()) / span if span > 0 else 0.0
    sparse = len(np.unique(values)) < 0.01 * span
    is_integer = bool((values == np.trunc(values)).all())
    strewn = span > 1e6 and sparse and 0.25 < middle < 0.75
    return NumberFacts(
        unit,
        is_integer,
        sequential=bool(len(steps) and ((steps > 0).all() or (steps < 0).all())),
        span=float(span),
        looks_hashed=is_integer and bool(values.max() > EXACT or strewn),
    )


def currencies_in(array: pa.Array) -> tuple[str, ...]:
    """The currencies of a column of amounts, those in a hundredth of the first texts and more."""
    if not pa.types.is_string(array.type):
        return ()
    texts = array.slice(0, _UNIT_ROWS).drop_null().to_pylist()
    found = Counter(mark[0] for text in texts if (mark := _CURRENCY.search(text)))
    return tuple(sorted(mark for mark, count in found.items() if count > _SELDOM * len(texts)))


def told_currencies(columns: Mapping[str, NumberFacts]) -> list[str]:
    """What is wrong with columns of amounts in several currencies."""
    return [
        f"{name} has amounts in several currencies ({', '.join(facts.currencies)}), which are read "
        "as if they were one; convert them to one"
        for name, facts in columns.items()
        if len(facts.currencies) > 1
    ]


def inexact_ids(table: pa.Table, fields: Iterable[FieldSpec]) -> list[str]:
    """Columns of categories that are floats too large for an integer to be told from the next."""
    categories = {
        f.source for f in fields if f.kind == "categorical" and f.is_read and not f.derive
    }
    found = []
    for name in sorted(categories.intersection(table.column_names)):
        exact = _EXACT_FLOATS.get(table.schema.field(name).type)
        if exact is not None and (np.abs(to_numbers(table[name]).values) > exact).any():
            found.append(name)
    return found


def told_inexact(name: str) -> str:
    """What is wrong with one of `inexact_ids`."""
    return (
        f"{name} holds floating-point numbers so large that ids close to one another are the same; "
        "write them as integers or texts"
    )


def spelled_numbers(texts: pa.StringArray) -> NumberFacts | None:
    """Whether most of the distinct texts are numbers or ranges of them: `enough_numbers`."""
    sample = texts.slice(0, _UNIT_ROWS)
    if are_lists(sample):
        return None
    unit = unit_of(sample)
    values = to_numbers(sample, unit=unit).values
    if np.isfinite(values).sum() < (1 - FEW_TEXTS) * len(values):
        return None
    return enough_numbers(values, unit)


def numbers_among_words(
    texts: pa.StringArray, codes: npt.NDArray[np.int32], ways: int
) -> tuple[NumberFacts, npt.NDArray[np.float64]] | None:
    """What texts of one number among words hold, and (B,) the number of each row.

    Args:
        texts: distinct ones.
        codes: (B,) each row's text, -1 where missing.
        ways: different words around the numbers.
    """
    values = np.append(to_numbers(texts, unit=WORDS).values, np.nan)[codes]
    found = enough_numbers(values, WORDS)
    if found is None:
        return None
    facts = number_facts(values[np.isfinite(values)], WORDS)
    return replace(facts, looks_hashed=False, ways=ways), values


def enough_numbers(values: npt.NDArray[np.float64], unit: str | None) -> NumberFacts | None:
    """That a column of texts holds numbers, where these are no mere categories."""
    if len(np.unique(values[np.isfinite(values)])) < _MIN_NUMBERS:
        return None
    return NumberFacts(unit, among_texts=True)
