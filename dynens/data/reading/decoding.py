"""Texts of files, which are UTF-8, UTF-16 as Excel's exports are, or Windows-1252 as older ones.

UTF-16 is told by the mark that such a file begins with, Windows-1252 value by value, never by what
else is in the file: a row reads alike in any chunk of it. Few texts of Windows-1252 happen to be
UTF-8, and none that is ASCII reads differently.
"""

from __future__ import annotations

import codecs
from pathlib import Path

import pyarrow as pa

from dynens.data.reading.heads import BLOCK_BYTES, decoded, text_stream


def decoded_table(table: pa.Table) -> pa.Table:
    """The table with texts in place of bytes."""
    columns = [_decoded_column(table[name]) for name in table.column_names]
    return pa.table(columns, names=table.column_names)


def _decoded_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.string())  # which are checked
    except pa.ArrowInvalid:
        texts = [None if value is None else decoded(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])


def begins_as_utf8(path: Path) -> bool:
    """Whether the first `BLOCK_BYTES` of a file are UTF-8."""
    with text_stream(path) as stream:
        start = bytes(stream.read(BLOCK_BYTES))
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True
