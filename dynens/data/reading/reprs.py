"""Values as programs show them: `np.int64(5)` inside Python's lists is 5, Excel's `="5"` too."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

# Of NumPy from version 2 on, of decimals, pandas' times and UUIDs: a type around one value.
_SCALAR = (
    r"\b(?:(?:np|numpy)\.[a-z]+[0-9]*_?|Decimal|Timestamp|UUID)"
    r"""\(('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^()'"]*)\)"""
)
_TRUTH = r"\b(?:np|numpy)\.(True|False)_"
_LIST = (
    r"\b(?:array|tensor|deque|frozenset)"
    r"\(([\[{][^()]*[\]}])(?:,[ \n]*[a-z_]+=[^()]*)?\)"
)
# A sparse vector of Spark, whose places are a list then: (20,[1,4],[1.0,2.0]) is [1,4].
_SPARSE = r"^\([0-9]+,(\[[0-9, ]*\]), ?\[[-+.,0-9eE ]*\]\)$"
_TEXT = r"""^="([^"]*)"$"""  # of Excel, which else would take it for a number
_APOSTROPHE = r"^'([-+]?[0-9][0-9.,]*)$"
# Scalars first, as they stand inside arrays.
_STEPS = (_SCALAR, _TRUTH, _LIST, _SPARSE, _TEXT, _APOSTROPHE)
_COMPILED = tuple(re.compile(step.replace("$", r"\Z"), re.ASCII) for step in _STEPS)
_FIND = "|".join(_STEPS)
_MARKS = (b"(", b"=", b"'", b"np.", b"numpy.")  # one of which stands in whatever a step changes


def unwrapped(text: str) -> str:
    """The text with values instead of the types, or Excel's marks, around them.

    Of Spark's sparse vectors only the places that hold something stay.
    """
    may_be = "(" in text or text[:1] in ("=", "'") or "np." in text or "numpy." in text
    if not may_be:  # hundreds of a request's texts, which this tells from the rest soonest
        return text
    for step in _COMPILED:
        text = step.sub(r"\1", text)
    return text


def unwrapped_column(texts: pa.StringArray) -> pa.StringArray:
    """`unwrapped` of every text."""
    stored = texts.buffers()[2]
    written = b"" if stored is None else stored.to_pybytes()
    if not any(mark in written for mark in _MARKS):
        return texts
    if not pc.any(pc.match_substring_regex(texts, _FIND)).as_py():
        return texts
    for step in _STEPS:
        texts = pc.replace_substring_regex(texts, step, r"\1")
    return texts
