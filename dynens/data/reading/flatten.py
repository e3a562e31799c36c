"""Typed tables made flat: a struct's fields are columns, `device` becomes `device.os`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa

from dynens.errors import DataError

# Texts and bytes stored as views, which few operations know.
_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def flat(table: pa.Table) -> pa.Table:
    """The table without structs and views.

    Raises:
        DataError: a field of a struct has the name of a column.
    """
    kinds = table.schema.types
    if not any(pa.types.is_struct(kind) or kind in _PLAIN for kind in kinds):
        return table
    columns = [_parts(*pair) for pair in zip(table.column_names, table.columns, strict=True)]
    pairs = [pair for parts in columns for pair in parts]
    names = [name for name, _ in pairs]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"a struct's field and another column are both called {twice[0]!r}.")
    return pa.table([column for _, column in pairs], names=names)


def _parts(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns that one is made of, with their names; those of a missing struct are missing."""
    if not pa.types.is_struct(column.type):
        yield name, column.cast(_PLAIN[column.type]) if column.type in _PLAIN else column
        return
    for field, values in zip(column.type, column.flatten(), strict=True):
        yield from _parts(f"{name}.{field.name}", values)


def holding(names: Sequence[str], columns: Collection[str] | None) -> list[str]:
    """Those of a file's columns that `flat` makes some of `columns` from (None: all)."""
    if columns is None:
        return list(names)
    return [n for n in names if n in columns or any(c.startswith(f"{n}.") for c in columns)]
