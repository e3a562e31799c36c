r"""Quotes in values of text files behind a backslash, as Spark and MySQL write them.

Everywhere else a quote in a value is doubled, and what stands behind `\"` ends it. So such files
are told by a value that would end in the middle: `"5\" pipe"`.

Quotes that follow a delimiter and spaces enclose values, too, where none follows one at once.
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
    return _rewritten(stream, _ESCAPED, rb'\1""', re.compile(rb"\\*\Z"))


def has_spaces_before_quotes(start: bytes, delimiter: str) -> bool:
    """Whether quoted values stand behind a delimiter and spaces, as people and `str.join` write."""
    between = re.escape(delimiter.encode())
    value = rb'%b +"(?:[^"]|"")*+"(?=%b|\r|\n|\Z)' % (between, between)
    return re.search(value, start) is not None and re.search(between + b'"', start) is None


def without_spaces(stream: pa.NativeFile, delimiter: str) -> pa.NativeFile:
    """The bytes of such a file without these spaces, so that the quotes enclose the values."""
    between = re.escape(delimiter.encode())
    # Two quotes are an empty value, or one within a value that is enclosed already.
    found = re.compile(rb'(%b) +(?="(?:[^"]|""|"(?:%b|[\r\n]|\Z)))' % (between, between))
    return _rewritten(stream, found, rb"\1", re.compile(rb'(?:%b *"{0,2})?\Z' % between))


def _rewritten(
    stream: pa.NativeFile, found: re.Pattern[bytes], by: bytes, unfinished: re.Pattern[bytes]
) -> pa.NativeFile:
    """The bytes with what is `found` replaced.

    Args:
        stream: the bytes.
        found, by: as for `re.sub`.
        unfinished: what must wait for the next part where it ends one.
    """
    held = b""

    def rewrite(part: pa.Buffer) -> bytes:
        nonlocal held
        text = held + part.to_pybytes()
        end = unfinished.search(text) if part.size else None
        whole = text if end is None else text[: end.start()]
        held = text[len(whole) :]
        return found.sub(by, whole)

    return pa.TransformInputStream(stream, rewrite)
