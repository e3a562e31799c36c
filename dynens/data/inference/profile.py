"""What a column of a sample looks like: the evidence that schema inference decides on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    NumberFacts,
    currencies_in,
    enough_numbers,
    mostly_numbers,
    number_facts,
    numbers_among_words,
    numbers_in,
    spelled_numbers,
)
from dynens.data.inference.evidence import (
    COPY_AUC,
    ENOUGH_ROWS,
    LabelFacts,
    Labels,
    absence_facts,
    label_facts,
    never_positive,
)
from dynens.data.inference.separators import (
    MAX_ORDERED,
    TOKEN_COMES_BACK,
    ListFacts,
    list_facts,
    ordered_numbers,
    share_of,
    sizes_tell,
)
from dynens.data.inference.worded import worded
from dynens.data.names import is_id_name
from dynens.data.reading.lists import (
    CHARACTERS,
    PIECES,
    spaced_column,
    split_lists,
    takes_beginnings,
    unbracketed_column,
)
from dynens.data.reading.numbers import Numbers, to_numbers
from dynens.data.reading.values import canonical_codes, is_list_type, plain

_MAX_TEXTS = 20_000
_SELDOM, _FEW_ROWS = 5.0, 20.0  # rows per text
_LINK, _LINKED = r"(?i)\w://|\bwww\.", 0.02  # share of the texts
_FEW_WORDS, _OFTEN, _RARE_WORDS = 2.0, 5, 0.03
_FRACTIONS = (
    "lists of fractions that hardly come back; give their mean, largest or last one as a number"
)


@dataclass(frozen=True)
class TextFacts:
    """The texts of a column.

    Attributes:
        mean_words: words per text.
        shares_words: whether texts have few words among them, half as many as there are texts.
        has_pieces: whether the words that are rare have parts that mostly are not (user agents), or
            texts have links among their words, of which the parts come back.
        unspaced: whether words are characters of a script without spaces between them.
        mean_chars: characters per text.
        max_lines: lines of the longest text.
        parts: a separator (`/` of URLs, `.` of IP addresses) that splits texts which seldom repeat
            into parts of which many do, `DOTTED`, `PREFIXES` (of codes of digits, too), or None.
    """

    mean_words: float = 1.0
    shares_words: bool = False
    has_pieces: bool = False
    unspaced: bool = False
    mean_chars: float = 0.0
    max_lines: int = 1
    parts: str | None = None


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
        is_list: whether values are Arrow lists.
        is_temporal: whether the Arrow type is a date or time.
        unusable: why no field can be made of the values, or None.
        numbers, texts, lists: what is known of the values as such.
        label: what they tell of the label.
    """

    name: str
    num_rows: int
    num_known: int
    num_distinct: int
    rows_per_sampled: float = 1.0
    is_number: bool = False
    is_list: bool = False
    is_temporal: bool = False
    unusable: str | None = None
    numbers: NumberFacts = field(default_factory=NumberFacts)
    texts: TextFacts = field(default_factory=TextFacts)
    lists: ListFacts = field(default_factory=ListFacts)
    label: LabelFacts = field(default_factory=LabelFacts)

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
        integers = self.is_number and self.numbers.is_integer
        return integers and self.unique_share > 0.95 and self.numbers.span < 1.1 * rows

    @property
    def has_sizes(self) -> bool:
        """Whether numbers among words are amounts: they tell the label, or hardly come back.

        Those that number the rows, and ids, are none.
        """
        numbers, rows = self.numbers, self.num_known * self.rows_per_sampled
        is_unique = self.unique_share > 0.95
        if not numbers.ways or is_id_name(self.name) or (numbers.sequential and is_unique):
            return False
        is_numbering = is_unique and numbers.is_integer and numbers.span < 1.1 * rows
        return self.label.size_tells or (self.repeats < 2.0 and not is_numbering)

    @property
    def tells_by_absence(self) -> bool:
        """Whether it is filled exactly where rows have one label, as after the outcome."""
        fewest = min(self.num_known, self.num_rows - self.num_known)
        return self.label.auc_by_absence >= COPY_AUC and fewest >= ENOUGH_ROWS

    @property
    def may_number_rows(self) -> bool:
        """Whether integers hardly repeat, or only grow: the numbers of these rows or of others."""
        integers = self.is_number and self.numbers.is_integer
        return integers and (self.numbers.sequential or self.unique_share > 0.5)

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
    numbers, unit = (None, None) if is_temporal else numbers_in(array)
    if numbers is not None and mostly_numbers(numbers):
        seen = _look_at_numbers(name, array, numbers.values, unit, labels)
    else:
        seen = _look_at_texts(array, numbers, unit, labels)
    label = LabelFacts()
    if labels is not None and seen.known.any():
        label = replace(
            label_facts(seen.codes, seen.sizes if seen.values is None else seen.values, labels),
            auc_by_part=seen.auc_by_part,
            ruled_out=_in_words(never_positive(seen.codes, labels), seen.codes, array),
        )
    return ColumnProfile(
        name,
        len(array),
        int(seen.known.sum()),
        len(np.unique(seen.codes[seen.known])),
        rows_per_sampled,
        is_number=seen.values is not None,
        is_temporal=is_temporal,
        numbers=seen.numbers,
        texts=seen.texts,
        lists=seen.lists,
        label=label,
    )


@dataclass(frozen=True)
class _Seen:
    """Flat values.

    Attributes:
        known: (N,) which rows have one.
        codes: (N,) of the values.
        values: (N,) the numbers that they are, or None.
        sizes: (N,) the numbers that stand in them among words, or None.
        auc_by_part: of texts.
    """

    known: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64] | None = None
    numbers: NumberFacts = field(default_factory=NumberFacts)
    texts: TextFacts = field(default_factory=TextFacts)
    lists: ListFacts = field(default_factory=ListFacts)
    auc_by_part: float = 0.5
    sizes: npt.NDArray[np.float64] | None = None


def _look_at_numbers(
    name: str,
    array: pa.Array,
    values: npt.NDArray[np.float64],
    unit: str | None,
    labels: Labels | None,
) -> _Seen:
    known = np.isfinite(values)
    parts = None
    if may_be_code(name, array):
        parts = telling_beginnings(*canonical_codes(array), labels)
    if np.abs(values[known]).max() > EXACT:  # neighbours look alike as floats
        codes = _merge_equal(*canonical_codes(array))
    else:
        codes = np.full(len(array), -1, np.int64)
        codes[known] = np.unique(values[known], return_inverse=True)[1]
    facts = replace(number_facts(values[known], unit), currencies=currencies_in(array))
    return _Seen(known, codes, values, facts, TextFacts(parts=parts))


def _look_at_texts(
    array: pa.Array, read: Numbers | None, unit: str | None, labels: Labels | None
) -> _Seen:
    """Of texts, and of what is neither texts nor numbers.

    Args:
        array: (N,).
        read: its numbers, where most of it may be some.
        unit: of them.
        labels: (N,).
    """
    numbers, amounts = NumberFacts(), None
    if read is not None and read.num_unreadable < FEW_TEXTS * (len(array) - array.null_count):
        numbers = NumberFacts(not_a_number=read.example)
        amounts = enough_numbers(read.values, unit)
    distinct, text_codes = canonical_codes(array)
    codes = _merge_equal(distinct, text_codes)
    known = codes >= 0
    if not pa.types.is_string(array.type):
        return _Seen(known, codes, numbers=numbers)
    texts, lists, by_part, sizes = _text_facts(distinct), ListFacts(), 0.5, None
    if len(distinct):
        lists = list_facts(unbracketed_column(distinct.slice(0, _MAX_TEXTS)))
    is_list = lists.length is not None or lists.separator is not None
    if not is_list and (found := amounts or spelled_numbers(distinct)):
        numbers = replace(found, not_a_number=numbers.not_a_number)
    words = None if lists.length is not None or numbers.among_texts else worded(distinct)
    if words is not None and words.numbers == 1 and not is_list:
        in_words = numbers_among_words(distinct, text_codes, words.ways)
        numbers, sizes = in_words or (numbers, None)
    elif labels is not None and lists.length is None:
        among = words is not None and words.numbers > 1
        ordered = ordered_numbers(distinct, text_codes, labels, among_words=among)
        lists = replace(lists, ordered=ordered)
    often = known.sum() / max(len(distinct), 1)
    if 0 < often < _FEW_ROWS and not is_list:
        parts = parts_separator(distinct, text_codes, labels, seldom_repeat=often < _SELDOM)
        if sizes is not None and takes_beginnings(parts):
            parts = None  # the first digits of the numbers
        texts = replace(texts, parts=parts)
        if parts is not None and labels is not None:
            by_part = part_auc(distinct, parts, text_codes, labels)
    return _Seen(known, codes, None, numbers, texts, lists, by_part, sizes)


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
        is_list=True,
        unusable=_FRACTIONS if passing else None,
        lists=ListFacts(size or None, of_floats=floats, ordered=ordered),
        label=LabelFacts() if labels is None else absence_facts(lengths > 0, labels),
    )


def _text_facts(texts: pa.StringArray) -> TextFacts:
    """Words and characters of the distinct texts."""
    sample = texts.slice(0, _MAX_TEXTS)
    if not len(sample):
        return TextFacts()
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
    return TextFacts(
        float((numbers if has_pieces else lengths).mean()),
        shares_words=int(pc.count_distinct(words).as_py()) < 0.5 * len(sample),
        has_pieces=has_pieces,
        unspaced=unspaced,
        mean_chars=mean_chars,
        max_lines=1 + int(pc.max(pc.count_substring(sample, "\n")).as_py() or 0),
    )


def _are_clearer(pieces: pa.StringArray, words: pa.StringArray) -> bool:
    """Whether words are rare whose pieces mostly are not."""
    rare = _share_of_rare(words)
    return rare > _RARE_WORDS and _share_of_rare(pieces) < 0.5 * rare


def _share_of_rare(values: pa.StringArray) -> float:
    counts = pc.value_counts(values).field("counts").to_numpy()
    return float(counts[counts < _OFTEN].sum() / max(counts.sum(), 1))


def _in_words(code: int | None, codes: npt.NDArray[np.int64], array: pa.Array) -> str | None:
    """What rows with a code have for a value, and how many of the rows they are."""
    if code is None:
        return None
    at = codes == code
    value = "no value" if code < 0 else repr(array[int(at.argmax())].as_py())
    return f"{value} ({at.mean():.0%} of all)"
