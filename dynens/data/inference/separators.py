"""What stands between the values of lists that are written as texts, and what these are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.encoding.fields import vectors
from dynens.data.inference.amounts import are_lists, mostly_ranges
from dynens.data.inference.evidence import Labels, auc_noise, halves, held_out_auc, ranges
from dynens.data.reading.lists import CARET, split_lists, split_texts, without_weights
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.worded import NUMBERS

TOKEN_COMES_BACK = 4.0
"""Times, in lists that few rows tell apart (each user's history)."""
_RARE_SEPARATORS = (CARET, "#", "~")  # between single words; in texts they are something else
_SEPARATORS = ("|", ";", ",", *_RARE_SEPARATORS)  # which hardly stand in values
_THOUSANDS, _MOST = r"^[^0-9]*[0-9]{1,3}(,[0-9]{3})+[^0-9]*$", 0.95
_INTERVAL = r"^[\[(][-+.0-9eEinf]+, ?[-+.0-9eEinf]+[\])]$"
_SPACED = 0.2  # share of values with a space from which on they are texts
_SOME_LISTS = 0.2  # share of the texts that hold more values than one
_FRACTION = r"[.][0-9]+(e-?[0-9]+)?\s*$"
_WEIGHT = r"[-+]?[0-9]*[.]?[0-9]+(e-?[0-9]+)?%?"
_MARKS = (":", "=", " ")  # between a value and its weight
_NUMBER = r"[-+]?[0-9]+([.][0-9]+)?"
MAX_ORDERED = 4
_FEW_NUMBERS = (
    rf"^[\[({{]? *{_NUMBER}(( *[,;|/:x] *| +){_NUMBER}){{1,{MAX_ORDERED - 1}}} *[\])}}]?$"
)
_BETWEEN_NUMBERS = (",", ";", "|", "/", ":", "x", None)
_FIRST = 2000  # texts that tell whether others need to be looked at
_RANGES = 20
_OFTEN_ABSENT = 0.5  # of the distinct values, in a list


@dataclass(frozen=True)
class ListFacts:
    """The lists or vectors that values are, be it as texts.

    Attributes:
        length: the common one of all of them, or None.
        of_floats: whether they hold floating-point numbers.
        separator: one that splits texts into the numbers of vectors, or into a much smaller set of
            tokens, or None.
        of_phrases: whether most of these tokens are several words (`kids socks, black (size L)`).
        ordered: separator and number of the few numbers that each is, where the size of the first,
            say, tells the label.
    """

    length: int | None = None
    of_floats: bool = False
    separator: str | None = None
    of_phrases: bool = False
    ordered: tuple[str | None, int] | None = None


def list_facts(texts: pa.StringArray) -> ListFacts:
    """What lists or vectors texts are, without brackets."""
    if (vector := _vector_facts(texts)) is not None:
        return vector
    if (separator := _weights_separator(texts)) is not None:
        return ListFacts(separator=separator)
    return _tokens_facts(texts)


def ordered_numbers(
    texts: pa.StringArray, codes: npt.NDArray[np.int32], labels: Labels, *, among_words: bool
) -> tuple[str | None, int] | None:
    """Separator and number of the few numbers that each text is, where the size of one tells.

    As of `[2, 3]`, found useful by two of three, `126/83`, `2:1` and `40 (120%)`: what stands
    first means something else than what stands second.

    Args:
        texts: distinct ones.
        codes: (B,) each row's text, -1 where missing.
        labels: (B,).
        among_words: whether words stand around the numbers.
    """
    alone = share_of(texts.slice(0, _FIRST), _FEW_NUMBERS) >= _MOST
    in_words = (NUMBERS,) if among_words else ()
    for separator in (*_BETWEEN_NUMBERS, *in_words) if alone else in_words:
        values, lengths = split_lists(texts, separator)
        size = int(np.median(lengths))
        numbers = to_numbers(values)
        readable = numbers.num_unreadable <= (1 - _MOST) * len(values)
        if size < 2 or (lengths == size).mean() < _MOST or not readable:
            continue
        matrix = vectors(numbers.values, lengths, size)
        by_row = np.append(matrix, np.full((1, size), np.nan), axis=0)[codes]
        if sizes_tell(by_row, labels):
            return separator, size
    return None


def sizes_tell(matrix: npt.NDArray[np.float64], labels: Labels) -> bool:
    """Whether the size of one of each row's numbers tells the label on rows held out."""
    half, enough = halves(len(matrix)), 0.5 + 2 * auc_noise(int(labels.sum()))
    return any(held_out_auc(ranges(column, _RANGES), labels, half) > enough for column in matrix.T)


def share_of(tokens: pa.StringArray, pattern: str) -> float:
    """Of tokens that hold a pattern."""
    return float(pc.mean(pc.match_substring_regex(tokens, pattern)).as_py() or 0.0)


def _vector_facts(texts: pa.StringArray) -> ListFacts | None:
    """Separator and length where all texts are equally many numbers, most of them fractions."""
    for separator in (",", ";", "|", None):
        values, lengths = split_lists(texts, separator)
        if lengths.min() < 2 or lengths.min() != lengths.max():
            continue
        fractions = pc.mean(pc.match_substring(values, ".").cast(pa.float64())).as_py()
        if fractions > 0.5 and to_numbers(values).is_plain:
            return ListFacts(int(lengths[0]), of_floats=True, separator=separator)
    return None


def _weights_separator(texts: pa.StringArray) -> str | None:
    """The separator of values with weights, fractions mostly, that the lists do not all have."""
    if share_of(texts, _FRACTION) < _SOME_LISTS:
        return None
    for between, mark in product((",", ";", "|", " "), _MARKS):
        b, m = re.escape(between), re.escape(mark)
        one = rf"[^{b}{m}]+{m} *{_WEIGHT}"
        if between == mark or share_of(texts, rf"^{one}({b} *{one})*$") < _MOST:
            continue
        weighted = split_texts(texts, between).flatten()
        separator = without_weights(between, mark)
        tokens, lengths = split_lists(texts, separator)
        has_fractions = share_of(weighted, _FRACTION) > 0.5 > share_of(tokens, _FRACTION)
        num_tokens = pc.count_distinct(pc.utf8_trim_whitespace(tokens)).as_py()
        vary = lengths.mean() < _OFTEN_ABSENT * num_tokens
        if has_fractions and vary and num_tokens < len(tokens) / TOKEN_COMES_BACK:
            return separator
    return None


def _tokens_facts(texts: pa.StringArray) -> ListFacts:
    """The separator that splits texts into a much smaller set of tokens, and what these are."""
    for separator in _SEPARATORS:
        parts = split_texts(texts, separator)
        share = float(np.mean(pc.list_value_length(parts).to_numpy(zero_copy_only=False) > 1))
        tokens = pc.utf8_trim_whitespace(parts.flatten())
        num_tokens, spaced = pc.count_distinct(tokens).as_py(), share_of(tokens, r"\s")
        if separator in _RARE_SEPARATORS and spaced > _SPACED:
            continue
        if separator == "," and _are_amounts(texts):
            continue
        come_back = num_tokens < max(len(texts) / 2, len(tokens) / TOKEN_COMES_BACK)
        if share > _SOME_LISTS and come_back and _are_words(tokens):
            return ListFacts(separator=separator, of_phrases=spaced > 0.5)
    return ListFacts()


def _are_amounts(texts: pa.StringArray) -> bool:
    """Whether commas part thousands, or the ends of intervals: 40,000-60,000; #1,234; [20,43)."""
    thousands = share_of(texts, _THOUSANDS) > _MOST and not are_lists(texts)
    return mostly_ranges(texts) or thousands or share_of(texts, _INTERVAL) > _MOST


def _are_words(tokens: pa.StringArray) -> bool:
    """Whether tokens are short labels rather than clauses of a sentence."""
    length = pc.mean(pc.utf8_length(tokens)).as_py()
    return length is not None and length < 30
