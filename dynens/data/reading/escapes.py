r"""Quotes in values of text files behind a backslash, as Spark and MySQL write them.

Everywhere else a quote in a value is doubled, and what stands behind `\"` ends it. So such files
are told by a value that would end in the middle: `"5\" pipe"`.
"""

from __future__ import annotations

import re

import pyarrow as pa

_ESCAPED = re.compile(rb'(?<!\\)((?:\\\\)*)\\"')


def has_escapes(start: bytes, delimiter: str) -> bool:
    r"""Whether a backslash stands before quotes in values at the beginning of a file.

    A value that ends in a backslash (`"C:\"`) has a delimiter or the end of the line behind it.
    """
    ends = re.escape(delimiter.encode()) + rb"\r\n"
    value = rb'(?:\A|[%b])"(?:[^"\\]|\\[^"]|"")*+\\"[^"%b]' % (ends, ends)
    return b'\\"' in start and re.search(value, start) is not None


def doubled(stream: pa.NativeFile) -> pa.NativeFile:
    """The bytes of a text file with such quotes doubled instead; other backslashes stay."""
    held = b""

    def double(part: pa.Buffer) -> bytes:
        nonlocal held
        text = held + part.to_pybytes()
        whole = text.rstrip(b"\\") if part.size else text
        held = text[len(whole) :]
        return _ESCAPED.sub(rb'\1""', whole)

    return pa.TransformInputStream(stream, double)
