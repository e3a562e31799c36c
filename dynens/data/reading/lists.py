"""Columns whose values are lists, whether stored as Arrow lists or as separated text."""

from __future__ import annotations

import re
import string
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.reprs import unwrapped, unwrapped_column
from dynens.data.reading.values import canonical_texts, is_number_type, plain
from dynens.data.reading.worded import NUMBERS, lists_of_numbers, split_numbers

_GAP = r"[ \t\n\f\r]*"  # \s is another class in Arrow than in Python
_BRACKETED = rf"(?s)^{_GAP}(\[.*\]|\{{.*\}}){_GAP}$"
_BRACKETS = r"[\[\]{}'\"]"
_NUMBER = r"[-+.0-9eE]+"
_COORDINATES = (  # (40.7, -74.0), POINT (-74.0 40.7): single numbers in parentheses are amounts
    rf"^{_GAP}(?:(?i:POINT) ?Z? ?)?\({_GAP}({_NUMBER}(?:[ \t\n\f\r,;]+{_NUMBER})+){_GAP}\){_GAP}$"
)
CHARACTERS = ""
"""The separator of texts in scripts that leave no space between words."""
ADDRESS = "/?&#"
"""The separator of addresses with queries: each of these characters is one."""
PREFIXES = "^"
"""The separator of codes whose beginnings tell: their first one to four characters are values.

A number behind it says how many characters come before these, in (nearly) all codes the same:
`^9` of `SKU-2024-17…`, whose first ten to thirteen characters are values."""
DOTTED = "^."
"""The separator of numbers with dots (IP addresses, versions): what stands before each of the first
three dots is a value, the dot included, and so is the whole."""
CARET = r"\^"
"""The separator of lists between carets, as a bare one stands for beginnings."""
_WITHOUT_WEIGHTS = re.compile(r"(?s)\\(.)(.)")
PIECES = r"\W"
"""The separator of texts whose words have parts (`Chrome/120.0`): any punctuation and space."""
_MARKS = " \t\n\r\f\v" + string.punctuation
_MARKS_PATTERN = "[" + re.escape(_MARKS) + "]+"
_LONGEST_PREFIX = 4
_SKIPS = re.compile(re.escape(PREFIXES) + "([0-9]{0,4})")
# Those of most dots first; what was written begins with the mark between values, and so is not
# found again.
_BEFORE_DOTS = (
    (r"(?s)^((([^.\x1f]*\.)[^.\x1f]*\.)[^.\x1f]*\.)(.*)", "\x1f\\3\x1f\\2\x1f\\1\x1f\\1\\4"),
    (r"(?s)^(([^.\x1f]*\.)[^.\x1f]*\.)(.*)", "\x1f\\2\x1f\\1\x1f\\1\\3"),
    (r"(?s)^([^.\x1f]*\.)(.*)", "\x1f\\1\x1f\\1\\2"),
)
# Thai to Myanmar, Khmer, Japanese and Chinese
_SCRIPTS = (
    *((0x0E00, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x3400, 0x4DBF)),
    *((0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2FFFF)),
)
_AROUND_WORDS = " .,;:!?\"'`()[]{}<>|*_-–—…«»“”‘’„¡¿、。，！？・「」"
_UNSPACED = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in _SCRIPTS) + "]")


def prefixes_after(common: int) -> str:
    """`PREFIXES` of codes that have so many first characters in common."""
    return f"{PREFIXES}{common}" if common else PREFIXES


@cache
def prefix_lengths(separator: str | None) -> range | None:
    """How long the beginnings are that are values; None: the separator is none of `PREFIXES`."""
    found = None if separator is None else _SKIPS.fullmatch(separator)
    if found is None:
        return None
    common = int(found[1] or 0)
    return range(common + 1, common + _LONGEST_PREFIX + 1)


def without_weights(between: str, mark: str) -> str:
    """The separator of values that have a weight each, behind a mark, which is left out.

    `\\,:` of `12:0.53,184:0.10`, whose values are 12 and 184.
    """
    return f"\\{between}{mark}"


@cache
def weights_of(separator: str | None) -> tuple[str, str] | None:
    """What stands between values, and a pattern of a weight with what ends it, its group 1."""
    found = None if separator is None else _WITHOUT_WEIGHTS.fullmatch(separator)
    if found is None:
        return None
    between, mark = map(re.escape, found.groups())
    return found[1], f"{mark}[^{mark}{between}]*({between}|$)"


def takes_beginnings(separator: str | None) -> bool:
    """Whether values are beginnings of a text, of which each says what the shorter ones do."""
    return separator == DOTTED or prefix_lengths(separator) is not None


def unbracketed(text: str) -> str:
    """A list as JSON, Python or PostgreSQL write it, without brackets and quotes.

    So are several numbers in parentheses, as of a point. Other texts stay as they are.
    """
    text = re.sub(_COORDINATES, r"\1", unwrapped(text))
    return re.sub(_BRACKETS, "", text) if re.match(_BRACKETED, text) else text


def unbracketed_column(texts: pa.Array) -> pa.Array:
    """`unbracketed` of every text."""
    texts = unwrapped_column(texts)
    if pc.any(pc.match_substring_regex(texts, _COORDINATES)).as_py():
        texts = pc.replace_substring_regex(texts, _COORDINATES, r"\1")
    lists = pc.match_substring_regex(texts, _BRACKETED).fill_null(False)
    if not pc.any(lists).as_py():
        return texts
    return pc.if_else(lists, pc.replace_substring_regex(texts, _BRACKETS, ""), texts)


def split_text(text: str, separator: str | None, *, fold: bool = False) -> list[str]:
    """The values of a list given as text, as `split_lists` reads them."""
    text = unbracketed(text)
    if fold:
        # Python knows capitals of more letters than Arrow does.
        text = text.lower() if text.isascii() else pc.utf8_lower(text).as_py()
    if separator == CHARACTERS:
        values = _UNSPACED.sub(r" \g<0> ", text).split()
    elif separator == ADDRESS:
        values = re.split(f"[{ADDRESS}]", text)
    elif separator == PIECES:
        values = re.split(_MARKS_PATTERN, text.strip(_MARKS))
    elif separator == DOTTED:
        for pattern, written in _BEFORE_DOTS:
            text = re.sub(pattern, written, text)
        values = text.removeprefix("\x1f").split("\x1f")
    elif separator == NUMBERS:
        values = split_numbers(text)
    elif weights := weights_of(separator):
        values = re.sub(weights[1], r"\1", text).split(weights[0])
    elif lengths := prefix_lengths(separator):
        values = [text[:length] for length in lengths]
    else:
        values = text.split("^" if separator == CARET else separator)
    return [value.strip(_AROUND_WORDS) for value in values] if fold else values


def most_values(text: str) -> int:
    """`split_text` makes no more values of a text than these, whatever the separator."""
    return len(text) + _LONGEST_PREFIX + 1


def spaced_column(texts: pa.Array) -> pa.Array:
    """Texts with spaces around the characters of scripts that leave none between words."""
    return pc.replace_substring_regex(texts, f"({_UNSPACED.pattern})", r" \1 ")


def split_texts(texts: pa.Array, separator: str) -> pa.Array:
    """Texts split at a separator, as lists."""
    if separator == ADDRESS:
        return pc.split_pattern_regex(texts, f"[{ADDRESS}]")
    if separator == PIECES:
        trimmed = pc.utf8_trim(texts, characters=_MARKS)
        return pc.split_pattern_regex(trimmed, _MARKS_PATTERN)
    if separator == DOTTED:
        for pattern, written in _BEFORE_DOTS:
            texts = pc.replace_substring_regex(texts, pattern, written)
        return pc.split_pattern(pc.replace_substring_regex(texts, "^\x1f", ""), "\x1f")
    if separator == NUMBERS:
        return lists_of_numbers(texts)
    if lengths := prefix_lengths(separator):
        parts = pa.concat_arrays([pc.utf8_slice_codeunits(texts, 0, k) for k in lengths])
        order = np.arange(len(parts)).reshape(_LONGEST_PREFIX, -1).T.ravel()
        offsets = pa.array(np.arange(len(texts) + 1, dtype=np.int32) * _LONGEST_PREFIX)
        return pa.ListArray.from_arrays(offsets, parts.take(pa.array(order)), mask=texts.is_null())
    if weights := weights_of(separator):
        texts = pc.replace_substring_regex(texts, weights[1], r"\1")
        return pc.split_pattern(texts, pattern=weights[0])
    return pc.split_pattern(texts, pattern="^" if separator == CARET else separator)


def split_lists(
    column: pa.Array | pa.ChunkedArray, separator: str | None, *, fold: bool = False
) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """A column of lists as (all values end to end, (B,) lengths); a missing list has length 0.

    Args:
        column: lists, or texts to split (in brackets or not), or plain values (lists of one).
        separator: of texts; None: runs of white space; `CHARACTERS`: those, and every character
            of a script that leaves no space between words is a value; `ADDRESS`: each of its
            characters; `PREFIXES`, `DOTTED`: texts are not split, but their beginnings are the
            values, and so are those of plain numbers; `NUMBERS`: the numbers among the words.
        fold: whether texts are read in lower case, without punctuation around their values; a value
            of nothing else becomes an empty text, which is missing.
    """
    column = plain(column)
    if takes_beginnings(separator) and is_number_type(column.type):
        column = canonical_texts(column)
    kind = column.type
    is_text = pa.types.is_string(kind)
    if is_text:
        column = unbracketed_column(column)
        column = pc.utf8_lower(column) if fold else column
        if separator == CHARACTERS:
            column, separator = spaced_column(column), None
        if separator is None:
            # Trimmed: Arrow reads beyond a text that ends in white space of several bytes.
            column = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(column))
        else:
            column = split_texts(column, separator)
    elif pa.types.is_fixed_size_list(kind):
        column = column.cast(pa.list_(kind.value_type))
    elif not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        known = column.is_valid().to_numpy(zero_copy_only=False)
        return column.drop_null(), known.astype(np.int64)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    values = plain(column.flatten())
    if fold and is_text:
        values = pc.utf8_trim(values, characters=_AROUND_WORDS)
    return values, lengths.astype(np.int64)
