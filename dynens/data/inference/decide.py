"""What kind of field a column becomes, given its profile."""

from __future__ import annotations

import pyarrow as pa

from dynens.data.inference.profile import ColumnProfile
from dynens.data.names import MOMENT, is_id_name, plain_name
from dynens.data.reading.lists import (
    CHARACTERS,
    PIECES,
    prefix_lengths,
    takes_beginnings,
    weights_of,
)
from dynens.data.reading.times import are_excel_days, are_yyyymmdd, text_format
from dynens.schema import FieldSpec, TimeFormat, VocabularyPolicy

BUCKETS = 32
TEXT_WORDS = 3.0
_QUERY_WORDS = 2.0  # from here on a category's words are a bag beside it
_SHARED_WORDS = 1.5  # the same where texts share their words: `jeans` beside `red jeans`
_MIN_TEXT_LEN, _MAX_TEXT_LEN = 16, 256  # words; what a review ends with tells, too
_SHARING_TEXTS = 20  # texts of words that others have, too, from which on words are looked at
_COMES_BACK = 2.0  # rows per text
_REPEATS = 1.1
_PLENTY = 100  # rows per integer
_LONGEST_TIME = 80  # characters, with a zone's name in full
_WORDS = VocabularyPolicy(min_count=5, max_size=20_000)


def decide(profile: ColumnProfile, column: pa.ChunkedArray, is_key: bool) -> list[FieldSpec]:
    """The field or fields that a column becomes."""
    name = profile.name
    time_format = "auto" if profile.is_temporal else _date_format(profile, column)
    if time_format is not None and not is_key:
        return [_date_field(name, time_format)]
    if profile.is_list or profile.lists.length:
        fields = [_list_field(profile)]
        if profile.lists.ordered is not None:
            fields.append(_beside(_ordered_field(profile, *profile.lists.ordered), "numbers"))
        return fields
    if is_key:
        return [_categorical(profile, "identifies a user or item")]
    if profile.is_number and profile.num_distinct > 2:
        parts = profile.texts.parts is not None and profile.num_distinct > 200
        fields = _number_fields(profile)
        fields += [_beside(_parts(profile), "parts")] if parts else []
        return [*fields, *([_words_around(profile)] if len(profile.numbers.currencies) > 1 else [])]
    fields = _text_fields(profile)
    if profile.lists.ordered is not None:
        vector = _ordered_field(profile, *profile.lists.ordered)
        if fields[0].kind == "categorical" and len(fields) == 1 and profile.repeats < _REPEATS:
            return [vector]
        return [*fields, _beside(vector, "numbers")]
    if not (profile.numbers.among_texts or profile.has_sizes) or _is_id(profile):
        return fields
    if profile.repeats < _COMES_BACK:  # the texts among the numbers come back
        fields = [f.model_copy(update={"vocabulary": _WORDS}) for f in fields]
    if profile.numbers.ways > 1 and all(f.kind != "multi_valued" for f in fields):
        fields.append(_words_around(profile))
    return [*fields, _size(profile)]


def _text_fields(profile: ColumnProfile) -> list[FieldSpec]:
    if profile.lists.separator is not None and profile.num_distinct > 10:
        why = f"values are lists of few tokens, separated by {profile.lists.separator!r}"
        if weights := weights_of(profile.lists.separator):
            why = f"values are lists of few tokens between {weights[0]!r}, without their weights"
        tokens = _tokens_field(profile.name, profile.lists.separator, why)
        if not profile.lists.of_phrases:
            return [tokens]
        return [tokens, _beside(_bag(profile), _kind_of_words(profile))]
    shared = profile.texts.shares_words and not profile.texts.unspaced
    words, enough = (_SHARED_WORDS, _SHARING_TEXTS) if shared else (_QUERY_WORDS, 200)
    if profile.texts.mean_words >= words and profile.num_distinct > enough:
        return _word_fields(profile)
    if profile.texts.parts is not None and profile.num_distinct > 200:
        return _parts_fields(profile)
    if not profile.is_number:
        return [_categorical(profile, "text")]
    return [_categorical(profile, "two values" if profile.num_distinct > 1 else "a value or none")]


def _categorical(profile: ColumnProfile, why: str) -> FieldSpec:
    values = "value" if profile.num_distinct == 1 else "values"
    return FieldSpec(name=profile.name, why=f"{why}, {profile.num_distinct} distinct {values}")


def _list_field(profile: ColumnProfile) -> FieldSpec:
    if profile.lists.of_floats and profile.lists.length:
        why = f"lists of {profile.lists.length} floating-point numbers"
        return FieldSpec(
            name=profile.name,
            kind="dense_vector",
            length=profile.lists.length,
            separator="," if profile.is_list else profile.lists.separator,
            why=why,
        )
    return _tokens_field(profile.name, ",", f"lists over {profile.num_distinct} values")


def _ordered_field(profile: ColumnProfile, separator: str | None, length: int) -> FieldSpec:
    return FieldSpec(
        name=profile.name,
        kind="dense_vector",
        length=length,
        separator=separator,
        why=f"{length} numbers in their order, the size of one of which tells the label",
    )


def _tokens_field(name: str, separator: str, why: str) -> FieldSpec:
    """A list; of one too long to be kept the end, where histories have what is newest."""
    return FieldSpec(name=name, kind="multi_valued", separator=separator, keep="last", why=why)


def _word_fields(profile: ColumnProfile) -> list[FieldSpec]:
    """Bags of words; texts that come back (titles, paths) or are short: categories, too."""
    bag = _bag(profile)
    if profile.repeats < _COMES_BACK and profile.texts.mean_words >= TEXT_WORDS:
        return [bag]
    why = "texts that come back" if profile.repeats >= _COMES_BACK else "short texts"
    return [_categorical(profile, why), _beside(bag, _kind_of_words(profile))]


def _kind_of_words(profile: ColumnProfile) -> str:
    return "characters" if profile.texts.unspaced else "words"


def _bag(profile: ColumnProfile) -> FieldSpec:
    words = _kind_of_words(profile)
    pieces = PIECES if profile.texts.has_pieces else None
    max_len = _text_length(profile.texts.mean_words)
    kept = "" if max_len is None else f", the first {max_len} of each"
    return FieldSpec(
        name=profile.name,
        kind="multi_valued",
        separator=CHARACTERS if profile.texts.unspaced else pieces,
        fold_words=True,
        max_len=max_len,
        vocabulary=_WORDS,
        why=f"free text, {profile.texts.mean_words:.0f} {words} on average: a bag of {words}{kept}",
    )


def _words_around(profile: ColumnProfile) -> FieldSpec:
    """What tells a rent by the week from one by the month."""
    words = FieldSpec(
        name=profile.name,
        kind="multi_valued",
        separator=PIECES,
        fold_words=True,
        vocabulary=_WORDS,
        why="the different words around its numbers",
    )
    return _beside(words, "words")


def _beside(spec: FieldSpec, what: str) -> FieldSpec:
    """The field as one of two of its column."""
    return spec.model_copy(update={"name": f"{spec.name}.{what}", "column": spec.name})


def _text_length(mean_words: float) -> int | None:
    """Words that are kept; None, the length of nearly all texts, where they are short."""
    if 2 * mean_words <= _MIN_TEXT_LEN:
        return None
    return int(min(2 * mean_words, _MAX_TEXT_LEN))


def _parts_fields(profile: ColumnProfile) -> list[FieldSpec]:
    """Lists of parts; texts that repeat at all: categories, too."""
    if profile.repeats < _REPEATS:
        return [_parts(profile)]
    return [_categorical(profile, "texts of parts"), _beside(_parts(profile), "parts")]


def _parts(profile: ColumnProfile) -> FieldSpec:
    why = f"texts that seldom repeat: their parts, between {profile.texts.parts!r}"
    if takes_beginnings(profile.texts.parts):
        why = "codes that seldom repeat: their beginnings"
        if (lengths := prefix_lengths(profile.texts.parts)) and lengths[0] > 1:
            why += f", behind {lengths[0] - 1} characters that they have in common"
    return FieldSpec(
        name=profile.name,
        kind="multi_valued",
        separator=profile.texts.parts,
        max_len=_MIN_TEXT_LEN,
        vocabulary=_WORDS,
        why=why,
    )


def _number_fields(profile: ColumnProfile) -> list[FieldSpec]:
    """Numeric or categorical, by kind of number, repetition and what predicts better.

    Integers that are no identifiers keep their size beside the category: alone it may tell nothing
    and yet tell a lot together with another column.
    """
    if not profile.numbers.is_integer:
        return [_numeric(profile, "fractions")]
    label, repeats = profile.label, profile.repeats
    by_value, by_bucket, noise = label.auc_by_value, label.auc_by_bucket, label.auc_noise
    if _is_id(profile):
        return [_categorical(profile, "an id by its name")]
    if profile.numbers.looks_hashed and repeats > 1.5 and not label.size_tells:
        return [_categorical(profile, "integers strewn over a huge range, as hashes are")]
    evidence = f"held-out AUC {by_value:.3f} by value, {by_bucket:.3f} by range"
    if profile.num_distinct <= 10:
        why = "few integers"
    elif by_bucket < 0.5 + noise and repeats >= 5:
        why = f"repeated integers whose size tells nothing by itself: {evidence}"
    elif by_value > by_bucket + noise and repeats >= 2:
        why = f"integers whose value matters more than their size: {evidence}"
    elif by_bucket < by_value + noise and repeats >= _PLENTY:
        why = f"integers of many rows each, whose size matters no more than they do: {evidence}"
    else:
        return [_numeric(profile, f"integers whose size matters: {evidence}")]
    return [_categorical(profile, why), _size(profile)]


def _is_id(profile: ColumnProfile) -> bool:
    return is_id_name(profile.name) and profile.repeats > 1.5


def _size(profile: ColumnProfile) -> FieldSpec:
    """The number itself, beside the category that its column is."""
    among = profile.numbers.ways > 0
    return FieldSpec(
        name=f"{profile.name}.size",
        column=profile.name,
        kind="numeric",
        unit=profile.numbers.unit,
        why="the size of the number among its words" if among else "its size, beside its value",
    )


def _numeric(profile: ColumnProfile, why: str) -> FieldSpec:
    return FieldSpec(
        name=profile.name,
        kind="numeric",
        unit=profile.numbers.unit,
        buckets=BUCKETS,
        why=f"{why}, {profile.num_distinct} distinct values",
    )


def _date_field(name: str, time_format: TimeFormat) -> FieldSpec:
    return FieldSpec(
        name=name,
        kind="numeric",
        derive="epoch_days",
        time_format=time_format,
        buckets=BUCKETS,
        why="a date or time",
    )


def _date_format(profile: ColumnProfile, column: pa.ChunkedArray) -> TimeFormat | None:
    if profile.is_number:
        if MOMENT.fullmatch(plain_name(profile.name)) and are_excel_days(column):
            return "excel"
        is_date = profile.numbers.is_integer and profile.num_distinct >= 10 and are_yyyymmdd(column)
        return "yyyymmdd" if is_date else None
    few_chars = 6 <= profile.texts.mean_chars <= _LONGEST_TIME
    if profile.is_list or profile.num_distinct < 3 or not few_chars:
        return None
    return text_format(column.slice(0, 1000))
