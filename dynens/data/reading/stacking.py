"""Tables of one dataset laid one under the other, whatever types their files have."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dynens.data.reading.values import canonical_texts, is_number_type, plain, widen
from dynens.errors import DataError

_TEXTS = (pa.string(), pa.large_string())


def stack(tables: Sequence[pa.Table], name: str) -> pa.Table:
    """All rows as one table; a column whose types no integer type holds becomes text.

    Args:
        tables: in order.
        name: of the files, for messages.

    Raises:
        DataError: a column changes between types that have nothing in common.
    """
    tables = [_without_dictionaries(table) for table in tables]
    mixed = _mixed_numbers(tables)
    try:
        alike = [_with_texts(table, mixed) for table in tables] if mixed else tables
        return pa.concat_tables(alike, promote_options="permissive").combine_chunks()
    except pa.ArrowException as e:
        detail = str(e).splitlines()[0]
        raise DataError(f"the files of {name} do not fit together ({detail}).") from e


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Values in place of codes: what one file writes as categories may be texts in another."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table[i].cast(field.type.value_type))
    return table


def _mixed_numbers(tables: Sequence[pa.Table]) -> list[str]:
    """Columns that hold numbers of several types, or numbers and texts."""
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = []
    for name, found in kinds.items():
        found.discard(pa.null())
        usable = all(is_number_type(kind) or kind in _TEXTS for kind in found)
        if len(found) > 1 and usable and widen(found) is None:
            mixed.append(name)
    return mixed


def _with_texts(table: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        if name in table.column_names and is_number_type(table[name].type):
            position = table.column_names.index(name)
            table = table.set_column(position, name, canonical_texts(plain(table[name])))
    return table
