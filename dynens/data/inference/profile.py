"""What a column of a sample looks like: the evidence that schema inference decides on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.encoding.fields import vectors
from dynens.data.inference.addresses import (
    may_be_code,
    part_auc,
    parts_separator,
    telling_beginnings,
)
from dynens.data.inference.amounts import (
    EXACT,
    FEW_TEXTS,
    enough_numbers,
    mostly_numbers,
    number_facts,
    numbers_in,
    spelled_numbers,
)
from dynens.data.inference.evidence import (
    COPY_AUC,
    ENOUGH_ROWS,
    Labels,
    auc_by_absence,
    auc_noise,
    halves,
    held_out_auc,
    implies,
    is_positive_only,
    never_positive,
    ranges,
    unusual,
)
from dynens.data.inference.separators import (
    MAX_ORDERED,
    TOKEN_COMES_BACK,
    list_facts,
    ordered_numbers,
    share_of,
    sizes_tell,
)
from dynens.data.reading.lists import (
    CHARACTERS,
    PIECES,
    spaced_column,
    split_lists,
    unbracketed_column,
)
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.values import canonical_codes, is_list_type, plain

_BUCKETS = 20
_MAX_TEXTS = 20_000
_SELDOM, _FEW_ROWS = 5.0, 20.0  # rows per text
_LINK, _LINKED = r"(?i)\w://|\bwww\.", 0.02  # share of the texts
_FEW_WORDS, _OFTEN, _RARE_WORDS = 2.0, 5, 0.03
_FRACTIONS = (
    "lists of fractions that hardly come back; give their mean, largest or last one as a number"
)


@dataclass(frozen=True)
class ColumnProfile:
    """Facts about one column.

    Attributes:
        name: of the column.
        num_rows: rows of the sample.
        num_known: rows with a value.
        num_distinct: distinct values.
        rows_per_sampled: rows of the whole table per row of the sample.
        is_number: whether (nearly) all values are numbers.
        is_integer: whether all numbers are whole.
        unit: what stands behind the numbers (`km` of `12 km`), or None.
        not_a_number: one of the few texts (at most a fifth) in a column of numbers, or None.
        holds_numbers: whether most of the rows or of the different texts are numbers, or ranges of
            them (`3-5`).
        unusable: why no field can be made of the values, or None.
        is_list: whether values are Arrow lists.
        list_length: the common length of all lists (or texts that are vectors), or None.
        list_of_floats: whether the lists (or texts) hold floating-point numbers.
        is_temporal: whether the Arrow type is a date or time.
        mean_words: words per text.
        shares_words: whether texts have few words among them, half as many as there are texts.
        has_pieces: whether the words that are rare have parts that mostly are not (user agents), or
            texts have links among their words, of which the parts come back.
        unspaced: whether they are characters of a script without spaces between words.
        mean_chars: characters per text.
        max_lines: lines of the longest text.
        separator: a separator that splits the values into a much smaller set of tokens, or None.
        parts: a separator (`/` of URLs, `.` of IP addresses) that splits texts which seldom repeat
            into parts of which many do, `DOTTED`, `PREFIXES` (of codes of digits, too), or None.
        ordered: separator and number of the few numbers that each text is, where the size of the
            first, say, tells the label.
        sequential: whether numbers only grow (or only fall) from row to row.
        span: largest number less the smallest.
        looks_hashed: whether integers are strewn evenly over a huge range, as hashes are.
        auc_by_value: AUC, on the other half of the rows, of the label rate per value.
        auc_by_bucket: the same of the label rate per quantile bucket (numbers only).
        auc_by_absence: the same of the label rate of missing and of known values.
        auc_by_usual: the same of the most common value (missing may be it) and of all others.
        auc_by_part: the same of one of the first parts, or the last one.
        num_positive: positive rows of the sample.
        implies_label: whether all values but the most common one go almost only with one class.
        is_positive_only: whether they all go with the positive class, in many rows.
        rules_out_label: the value of many rows of which none is positive, in words, or None.
    """

    name: str
    num_rows: int
    num_known: int
    num_distinct: int
    rows_per_sampled: float = 1.0
    is_number: bool = False
    is_integer: bool = False
    unit: str | None = None
    not_a_number: str | None = None
    holds_numbers: bool = False
    unusable: str | None = None
    is_list: bool = False
    list_length: int | None = None
    list_of_floats: bool = False
    is_temporal: bool = False
    mean_words: float = 1.0
    shares_words: bool = False
    has_pieces: bool = False
    unspaced: bool = False
    mean_chars: float = 0.0
    max_lines: int = 1
    separator: str | None = None
    parts: str | None = None
    ordered: tuple[str | None, int] | None = None
    sequential: bool = False
    span: float = math.inf
    looks_hashed: bool = False
    auc_by_value: float = 0.5
    auc_by_bucket: float = 0.5
    auc_by_absence: float = 0.5
    auc_by_usual: float = 0.5
    auc_by_part: float = 0.5
    num_positive: int = 0
    implies_label: bool = False
    is_positive_only: bool = False
    rules_out_label: str | None = None

    @property
    def repeats(self) -> float:
        """Rows per distinct value in the whole table.

        A sample of m rows of a table with K values, each equally often, meets about m² / 2K of them
        again; solved for K.
        """
        again = self.num_known - self.num_distinct
        if self.rows_per_sampled <= 1.0 or again == 0:
            return self.num_known / max(self.num_distinct, 1)
        distinct = max(self.num_distinct, self.num_known**2 / (2 * again))
        return self.num_known * self.rows_per_sampled / distinct

    @property
    def unique_share(self) -> float:
        """Distinct values per row of the whole table."""
        return 1.0 / max(self.repeats, 1.0)

    @property
    def numbers_rows(self) -> bool:
        """Whether integers take (nearly) every value of their range once, in whatever order."""
        rows = self.num_known * self.rows_per_sampled
        return self.is_integer and self.unique_share > 0.95 and self.span < 1.1 * rows

    @property
    def tells_by_absence(self) -> bool:
        """Whether it is filled exactly where rows have one label, as after the outcome."""
        fewest = min(self.num_known, self.num_rows - self.num_known)
        return self.auc_by_absence >= COPY_AUC and fewest >= ENOUGH_ROWS

    @property
    def may_number_rows(self) -> bool:
        """Whether integers hardly repeat, or only grow: the numbers of these rows or of others."""
        return self.is_integer and (self.sequential or self.unique_share > 0.5)

    @property
    def auc_noise(self) -> float:
        """Difference between two held-out AUCs that may be chance."""
        return auc_noise(self.num_positive)

    @property
    def missing_share(self) -> float:
        return 1.0 - self.num_known / max(self.num_rows, 1)


def profile_column(
    name: str,
    column: pa.ChunkedArray,
    labels: Labels | None = None,
    rows_per_sampled: float = 1.0,
) -> ColumnProfile:
    """Look at one column of a sample, against the labels where they are known."""
    array = plain(column)
    kind = array.type
    if is_nested(kind):
        return ColumnProfile(name, len(array), 0, 0, unusable="a list of maps")
    if is_list_type(kind):
        return _profile_lists(name, array, labels)
    is_temporal = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    facts: dict[str, object] = {
        "is_temporal": is_temporal,
        "rows_per_sampled": rows_per_sampled,
    }
    numbers, unit = (None, None) if is_temporal else numbers_in(array)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    if numbers is not None and mostly_numbers(numbers):
        known = np.isfinite(numbers.values)
        facts |= number_facts(numbers.values[known]) | {"unit": unit}
        codes = np.full(len(array), -1, np.int64)
        codes[known] = np.unique(numbers.values[known], return_inverse=True)[1]
        if may_be_code(name, array):
            facts["parts"] = telling_beginnings(*canonical_codes(array), labels)
        if np.abs(numbers.values[known]).max() > EXACT:  # neighbours look alike as floats
            codes = _merge_equal(*canonical_codes(array))
    else:
        amounts: dict[str, object] = {}
        if numbers is not None and numbers.num_unreadable < FEW_TEXTS * known.sum():
            facts["not_a_number"] = numbers.example
            amounts = enough_numbers(numbers.values, unit)
        numbers = None
        texts, text_codes = canonical_codes(array)
        codes = _merge_equal(texts, text_codes)
        known = codes >= 0
        if pa.types.is_string(kind):
            facts |= _text_facts(texts)
            if "separator" not in facts:
                facts |= amounts or spelled_numbers(texts)
            if labels is not None and "list_length" not in facts:
                facts["ordered"] = ordered_numbers(texts, text_codes, labels)
            often = known.sum() / max(len(texts), 1)
            if 0 < often < _FEW_ROWS and "separator" not in facts:
                seldom = often < _SELDOM
                parts = parts_separator(texts, text_codes, labels, seldom_repeat=seldom)
                facts["parts"] = parts
                if parts is not None and labels is not None:
                    facts["auc_by_part"] = part_auc(texts, parts, text_codes, labels)
    num_distinct = len(np.unique(codes[known]))
    if labels is not None and known.any():
        facts |= _label_facts(codes, numbers.values if numbers is not None else None, labels)
        facts["rules_out_label"] = _in_words(never_positive(codes, labels), codes, array)
    return ColumnProfile(name, len(array), int(known.sum()), num_distinct, **facts)  # type: ignore[arg-type]


def is_nested(kind: pa.DataType) -> bool:
    """Whether values have a structure that no kind of field takes."""
    return bool(pa.types.is_nested(kind.value_type if is_list_type(kind) else kind))


def _merge_equal(texts: pa.StringArray, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """Codes with equal texts made one."""
    encoded = texts.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.append(encoded, -1).astype(np.int64)[codes]


def _profile_lists(name: str, array: pa.Array, labels: Labels | None) -> ColumnProfile:
    values, lengths = split_lists(array, None)
    if values.null_count == len(values):
        return ColumnProfile(name, len(array), 0, 0, is_list=True)
    known = array.is_valid().to_numpy(zero_copy_only=False)
    inside = np.unique(lengths[known])
    num_distinct = int(pc.count_distinct(values).as_py())
    is_vector = len(inside) == 1 and inside[0] > 0
    floats = pa.types.is_floating(values.type)
    passing = floats and not is_vector and len(values) < TOKEN_COMES_BACK * num_distinct
    size = int(inside[0]) if is_vector else 0
    ordered = None
    if labels is not None and 2 <= size <= MAX_ORDERED and pa.types.is_integer(values.type):
        numbers = to_numbers(values).values
        ordered = (",", size) if sizes_tell(vectors(numbers, lengths, size), labels) else None
    return ColumnProfile(
        name,
        len(array),
        int(known.sum()),
        num_distinct,
        ordered=ordered,
        unusable=_FRACTIONS if passing else None,
        is_list=True,
        list_length=size or None,
        list_of_floats=floats,
        auc_by_absence=0.5 if labels is None else auc_by_absence(lengths > 0, labels),
    )


def _text_facts(texts: pa.StringArray) -> dict[str, object]:
    """Words, characters and separators of the distinct texts."""
    sample = texts.slice(0, _MAX_TEXTS)
    if not len(sample):
        return {}
    mean_chars = float(pc.mean(pc.utf8_length(sample)).as_py() or 0.0)
    spaced = spaced_column(sample)
    unspaced = float(pc.mean(pc.utf8_length(spaced)).as_py() or 0.0) > 2 * mean_chars
    words, lengths = split_lists(sample, CHARACTERS if unspaced else None, fold=True)
    pieces, numbers = split_lists(sample, PIECES, fold=True)
    has_pieces = (
        not unspaced
        and lengths.mean() >= _FEW_WORDS
        and (_are_clearer(pieces, words) or share_of(sample, _LINK) > _LINKED)
    )
    facts: dict[str, object] = {
        "mean_words": float((numbers if has_pieces else lengths).mean()),
        "shares_words": int(pc.count_distinct(words).as_py()) < 0.5 * len(sample),
        "has_pieces": has_pieces,
        "unspaced": unspaced,
        "mean_chars": mean_chars,
        "max_lines": 1 + int(pc.max(pc.count_substring(sample, "\n")).as_py() or 0),
    }
    return facts | list_facts(unbracketed_column(sample))


def _are_clearer(pieces: pa.StringArray, words: pa.StringArray) -> bool:
    """Whether words are rare whose pieces mostly are not."""
    rare = _share_of_rare(words)
    return rare > _RARE_WORDS and _share_of_rare(pieces) < 0.5 * rare


def _share_of_rare(values: pa.StringArray) -> float:
    counts = pc.value_counts(values).field("counts").to_numpy()
    return float(counts[counts < _OFTEN].sum() / max(counts.sum(), 1))


def _label_facts(
    codes: npt.NDArray[np.int64], numbers: npt.NDArray[np.float64] | None, labels: Labels
) -> dict[str, object]:
    half = halves(len(codes))
    by_value = held_out_auc(codes + 1, labels, half)
    by_bucket = 0.5
    if numbers is not None:
        by_bucket = held_out_auc(ranges(numbers, _BUCKETS), labels, half)
    return {
        "auc_by_value": by_value,
        "auc_by_bucket": by_bucket,
        "auc_by_absence": auc_by_absence(codes >= 0, labels),
        "auc_by_usual": held_out_auc(unusual(codes).astype(np.int64), labels, half),
        "num_positive": int(labels.sum()),
        "implies_label": implies(codes, labels),
        "is_positive_only": is_positive_only(codes, labels),
    }


def _in_words(code: int | None, codes: npt.NDArray[np.int64], array: pa.Array) -> str | None:
    """What rows with a code have for a value, and how many of the rows they are."""
    if code is None:
        return None
    at = codes == code
    value = "no value" if code < 0 else repr(array[int(at.argmax())].as_py())
    return f"{value} ({at.mean():.0%} of all)"
