"""Tables of one dataset laid one under the other, whatever types their files have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from dynens.data.reading.values import (
    canonical_texts,
    is_list_type,
    is_number_type,
    plain,
    widen,
)
from dynens.errors import DataError

_TEXTS = (pa.string(), pa.large_string(), pa.string_view())


def common_type(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """A type that holds the values of several as they are; None where there is none.

    Whatever stands beside texts is texts, and so are numbers that no integer type holds and times
    in several zones, whose clocks would be lost.
    """
    found = {pa.string() if kind in _TEXTS else kind for kind in kinds} - {pa.null()}
    if len(found) < 2:
        return found.pop() if found else pa.null()
    if pa.string() in found:
        return None if any(map(pa.types.is_nested, found)) else pa.string()
    if all(map(is_number_type, found)):
        return widen(found) or pa.string()
    if all(map(is_list_type, found)):
        element = _common_element({kind.value_type for kind in found})
        return None if element is None else pa.list_(element)
    if all(map(_is_moment, found)):
        zones = {kind.tz if pa.types.is_timestamp(kind) else None for kind in found}
        return pa.timestamp("us", zones.pop()) if len(zones) == 1 else pa.string()
    if all(map(pa.types.is_duration, found)):
        return pa.duration("us")
    return pa.time64("us") if all(map(pa.types.is_time, found)) else None


def _common_element(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    """`common_type` of what lists hold; of numbers with fractions, as vectors are, a double."""
    found = {kind.value_type if pa.types.is_dictionary(kind) else kind for kind in kinds}
    numbers = found - {pa.null()}
    if all(map(is_number_type, numbers)) and any(map(pa.types.is_floating, numbers)):
        return pa.float64()
    return common_type(found)


def conformed(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """A column in the `common_type` of several."""
    if column.type == kind or pa.types.is_duration(kind):
        return column.cast(kind, safe=False)
    column = plain(column)
    if not pa.types.is_string(kind) or pa.types.is_string(column.type):
        return column.cast(kind, safe=False)
    if pa.types.is_timestamp(column.type):  # Python has no nanoseconds
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return canonical_texts(column)


def _is_moment(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def stack(tables: Sequence[pa.Table], name: str) -> pa.Table:
    """All rows as one table, a column of several types in the one that holds them all.

    Args:
        tables: in order.
        name: of the files, for messages.

    Raises:
        DataError: a column changes between types that have nothing in common.
    """
    tables = [_without_dictionaries(table) for table in tables]
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for field in table.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    common = {name: common_type(found) for name, found in kinds.items() if len(found) > 1}
    try:
        alike = [_with_types(table, common) for table in tables]
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


def _with_types(table: pa.Table, kinds: Mapping[str, pa.DataType | None]) -> pa.Table:
    """The table with the columns of these types; None stands for the type that a column has."""
    for i, name in enumerate(table.column_names):
        kind = kinds.get(name)
        if kind is not None:
            table = table.set_column(i, name, conformed(table[i], kind))
    return table
