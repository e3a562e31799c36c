"""Decimal commas in text files: finding them out, and turning them into points."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.values import canonical_texts

_BEFORE, _BEHIND = r"^[+-]?[$€£¥]?\s?", r"\s?[%$€£¥]?$"
_NUMBER = _BEFORE + r"([0-9]+|[0-9]{1,3}(\.[0-9]{3})+)(,[0-9]+)?" + _BEHIND  # 1.234.567,89 €
_COMMA = _BEFORE + r"[0-9.]+,[0-9]+" + _BEHIND
_THOUSANDS = _BEFORE + r"[1-9][0-9]{0,2}(,[0-9]{3})+" + _BEHIND  # 1,234: maybe no decimal comma
_MIN_KNOWN = 20


def with_points(table: pa.Table) -> pa.Table:
    """The table with its numbers written as elsewhere: 1.234,5 becomes 1234.5."""
    for i, field in enumerate(table.schema):
        if not pa.types.is_string(field.type):
            continue
        column = table[i]
        found = pc.match_substring_regex(column, r"[.,]").fill_null(False)
        if not pc.any(found).as_py():
            continue
        numbers = pc.and_(found, pc.match_substring_regex(column, _NUMBER).fill_null(False))
        plain = pc.replace_substring(pc.replace_substring(column, ".", ""), ",", ".")
        table = table.set_column(i, field.name, pc.if_else(numbers, plain, column))
    return table


def comma_column(sample: pa.Table) -> str | None:
    """A column of texts that can only be numbers with decimal commas, or None."""
    names: list[str] = sample.column_names
    for name in names:
        if not pa.types.is_string(sample.schema.field(name).type):
            continue
        texts = canonical_texts(sample[name].combine_chunks()).drop_null()
        if len(texts) < _MIN_KNOWN:
            continue
        numbers, commas, unclear = (
            pc.sum(pc.match_substring_regex(texts, pattern)).as_py()
            for pattern in (_NUMBER, _COMMA, _THOUSANDS)
        )
        if numbers >= 0.99 * len(texts) and commas - unclear > 0.5 * len(texts):
            return name
    return None
