"""Decimal commas in texts: finding them out."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.spelled import COMMA_NUMBER, with_points
from dynens.data.reading.values import canonical_texts, plain
from dynens.schema import DatasetConfig, SourceOptions

_COMMA = r",[0-9]+([eE][+-]?[0-9]+)?\D*$"
_THOUSANDS = r"^\D*[1-9][0-9]{0,2}(,[0-9]{3})+\D*$"  # 1,234: maybe no decimal comma
_MILLIONS = r"^\D*[1-9][0-9]{0,2}(\.[0-9]{3}){2,}\D*$"  # 1.234.567, which points cannot part
_CENTS = r",[0-9]{2}\D*$"
_THOUSAND = r"^\D*[1-9][0-9]{0,2}(\.[0-9]{3})+\D*$"  # 1.158, which a point may part, too
_HUNDREDS = r"^\D*([1-9][0-9]{0,2}|0)\D*$"
_POINT = r"^[^.,]*[0-9]\.[0-9]{1,2}[^.,0-9]*$"  # 12.5, no thousand
_BOTH = 0.05  # of the texts, where some have points and some commas
_COMMA_OR_POINTS = r",|\..*\."
_NO_THOUSAND = r"^[^.,]*[0-9]\.([0-9]{1,2}|[0-9]{4,})[^.,0-9]*$|^[^.,0-9]*0\.[0-9]"
_MIN_KNOWN, _MIN_PARTED, _FIRST = 20, 50, 50


def points_in(table: pa.Table, columns: Collection[str]) -> pa.Table:
    """The table with points for the decimal commas of the numbers in `columns`."""
    for i, field in enumerate(table.schema):
        if field.name in columns and _is_text(field.type):
            table = table.set_column(i, field.name, with_points(plain(table[i])))
    return table


def with_commas(names: Collection[str], options: SourceOptions) -> list[str]:
    """Those columns whose decimals are behind commas by the options; JSON's are behind points."""
    if options.decimal == ".":
        return []
    inside = {f"{name}.{key}" for name, keys in options.objects.items() for key in keys}
    return [name for name in names if name not in inside]


def outcomes_with_points(table: pa.Table, config: DatasetConfig) -> pa.Table:
    """The table with points in its label, weight and soft label (fields read their own commas)."""
    return points_in(table, with_commas(config.features.outcome_columns(), config.source))


def fields_with_commas(config: DatasetConfig) -> DatasetConfig:
    """The same, with the decimal sign of its text files in every numeric field."""
    features = config.features
    numeric = {f.source for f in features.fields if f.kind == "numeric"}
    commas = with_commas(numeric, config.source)
    fields = tuple(
        f.model_copy(update={"decimal": ","}) if f.kind == "numeric" and f.source in commas else f
        for f in features.fields
    )
    return config.model_copy(update={"features": features.model_copy(update={"fields": fields})})


def settled(config: DatasetConfig, sample: pa.Table) -> tuple[DatasetConfig, list[str]]:
    """(`config`, the columns whose decimals are behind commas), of a file that has such columns.

    Where others can only have points, and nothing but fields has commas, each field says its own.
    """
    commas = with_commas(sample.column_names, config.source)
    points = [name for name in commas if _has_points(sample[name])]
    outcomes = [name for name in config.features.outcome_columns() if name in commas]
    if not points or comma_columns(sample.select(outcomes)):
        return config, commas
    source = config.source.model_copy(update={"decimal": "."})
    return config.model_copy(update={"source": source}), [n for n in commas if n not in points]


def _has_points(column: pa.ChunkedArray) -> bool:
    """Whether texts are numbers whose decimals, if any, are behind points."""
    if not _is_text(column.type):
        return False
    texts = plain(column).drop_null()
    if not to_numbers(texts.slice(0, _FIRST)).is_plain or not to_numbers(texts).is_plain:
        return False
    if _has_thousands(texts, ","):
        return True
    commas, points = (
        pc.sum(pc.match_substring_regex(texts, pattern)).as_py() or 0
        for pattern in (",", _NO_THOUSAND)
    )
    return commas == 0 and points > _BOTH * len(texts)


def comma_columns(sample: pa.Table, *, cents: bool = False) -> list[str]:
    """Columns of texts that can only be numbers with decimal commas.

    Args:
        sample: rows.
        cents: two decimals are asked of nearly all, for where commas may also part the values of
            a list, or commas in some texts and points in others, which is no matter of a file.
    """
    found = []
    for name in sample.column_names:
        if not _is_text(sample.schema.field(name).type):
            continue
        column = plain(sample[name])
        if _has_thousands(column.drop_null()):  # canonical texts drop zeros
            found.append(name)
            continue
        if not pc.any(pc.match_substring_regex(column, _COMMA_OR_POINTS)).as_py():
            continue
        texts = canonical_texts(column).drop_null()
        if len(texts) < _MIN_KNOWN:
            continue
        numbers = pc.match_substring_regex(texts, COMMA_NUMBER)
        commas, unclear, exact, millions = (
            pc.sum(pc.and_(numbers, pc.match_substring_regex(texts, pattern))).as_py()
            for pattern in (_COMMA, _THOUSANDS, _CENTS, _MILLIONS)
        )
        enough = exact >= 0.95 * commas or not cents
        if cents and _mixed(texts, numbers) and not _unclear(column):  # canonical texts drop zeros
            found.append(name)
            continue
        if pc.sum(numbers).as_py() < 0.99 * len(texts):
            continue
        if (commas - unclear > 0.5 * len(texts) and enough) or 0 < millions < len(texts):
            found.append(name)
    return found


def _has_thousands(column: pa.Array, mark: str = ".") -> bool:
    """Whether a point, or another mark, parts thousands.

    Three digits stand behind each then, and there is none in what is below 1000. Of decimals some
    would be other than three, or three behind every number.
    """
    parted, below = (
        pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0
        for pattern in (_THOUSAND.replace(r"\.", f"[{mark}]"), _HUNDREDS)
    )
    return bool(parted >= _MIN_PARTED and below > 0 and parted + below == len(column))


def _mixed(texts: pa.Array, numbers: pa.Array) -> bool:
    """Whether texts are numbers whose decimals are behind a point in some, a comma in others.

    Args:
        texts: without missing ones.
        numbers: which of them are numbers whose decimals may be behind a comma.
    """
    commas = pc.and_(numbers, pc.match_substring_regex(texts, r",[0-9]{1,2}[^0-9]*$"))
    points = pc.match_substring_regex(texts, _POINT)
    whole = pc.and_(numbers, pc.invert(pc.match_substring_regex(texts, r"[.,]")))
    few = _BOTH * len(texts)
    counts = [pc.sum(each).as_py() for each in (commas, points, whole)]
    return bool(min(counts[:2]) > few and sum(counts) >= 0.99 * len(texts))


def _unclear(column: pa.Array) -> bool:
    """Whether three digits stand behind a point or comma, as in thousands."""
    return bool(pc.any(pc.match_substring_regex(column, r"[.,][0-9]{3}[^0-9]*$")).as_py())


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
