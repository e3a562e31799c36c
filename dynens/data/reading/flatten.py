"""Typed tables made flat: a struct's fields are columns, `device` becomes `device.os`.

So are those of structs in lists, each a list, and a list of lists becomes one list. Maps become
the texts of JSON objects, which `objects.py` opens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import is_list_type
from dynens.errors import DataError

# Texts and bytes stored as views, which few operations know.
_PLAIN = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def flat(table: pa.Table) -> pa.Table:
    """The table without structs, maps and views, and without structs or lists in its lists.

    Raises:
        DataError: a field of a struct has the name of a column.
    """
    kinds = table.schema.types
    checks = (_is_struct, _holds_nested, pa.types.is_map, _PLAIN.__contains__)
    if not any(check(kind) for kind in kinds for check in checks):
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
    if _is_struct(column.type):
        for field, values in zip(column.type, column.flatten(), strict=True):
            yield from _parts(f"{name}.{field.name}", values)
    elif _holds_nested(column.type):
        for inner, lists in _opened(column):
            yield from _parts(name + inner, lists)
    elif pa.types.is_map(column.type):
        texts = [_written(value) for value in column.to_pylist()]
        yield name, pa.chunked_array([pa.array(texts, pa.string())])
    else:
        yield name, column.cast(_PLAIN[column.type]) if column.type in _PLAIN else column


def _written(value: list[tuple[Any, Any]] | None) -> str | None:
    """A map as the text of a JSON object."""
    if value is None:
        return None
    return json.dumps({str(key): inner for key, inner in value}, ensure_ascii=False, default=str)


def _opened(column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """(what is added to the name, lists) of lists of structs or of lists, one level down."""
    lists = column.combine_chunks()
    values, offsets = lists.flatten(), _offsets(lists)
    if _is_struct(values.type):
        inside = [(f".{f.name}", v) for f, v in zip(values.type, values.flatten(), strict=True)]
    else:
        inside, offsets = [("", values.flatten())], _offsets(values)[offsets]
    for name, inner in inside:
        made = pa.ListArray.from_arrays(pa.array(offsets), inner, mask=lists.is_null())
        yield name, pa.chunked_array([made])


def _offsets(lists: pa.Array) -> npt.NDArray[np.int32]:
    """Where each list begins among the values of all, and where the last one ends."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return np.append(0, np.cumsum(lengths)).astype(np.int32)


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))


def _holds_nested(kind: pa.DataType) -> bool:
    """Whether values are lists of structs or of lists."""
    return is_list_type(kind) and (_is_struct(kind.value_type) or is_list_type(kind.value_type))


def holds_categories(kind: pa.DataType) -> bool:
    """Whether values are structs or lists with dictionary-encoded values in them."""
    inner = [kind.field(i).type for i in range(kind.num_fields)] if pa.types.is_nested(kind) else []
    return any(pa.types.is_dictionary(k) or holds_categories(k) for k in inner)


def holding(names: Sequence[str], columns: Collection[str] | None) -> list[str]:
    """Those of a file's columns that `flat` makes some of `columns` from (None: all)."""
    if columns is None:
        return list(names)
    return [n for n in names if n in columns or any(c.startswith(f"{n}.") for c in columns)]
