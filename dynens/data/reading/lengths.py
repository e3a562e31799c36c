"""Lengths of time as people write them, in several units: `45m`, `2d 3h`, `3 weeks ago`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

LENGTHS = "dhms"
"""The unit of texts that name units of time themselves, more than one in the column; in seconds."""
_DAY_S = 86_400
_UNITS_S = {
    "s": 1,
    "sec": 1,
    "second": 1,
    "m": 60,
    "min": 60,
    "minute": 60,
    "h": 3600,
    "hr": 3600,
    "hour": 3600,
    "d": _DAY_S,
    "day": _DAY_S,
    "w": 7 * _DAY_S,
    "wk": 7 * _DAY_S,
    "week": 7 * _DAY_S,
    "mo": 30 * _DAY_S,
    "month": 30 * _DAY_S,
    "y": 365 * _DAY_S,
    "yr": 365 * _DAY_S,
    "year": 365 * _DAY_S,
}
_WORDS_S = {"just now": 0, "now": 0, "today": 0, "yesterday": _DAY_S}
_ONE = r"([0-9]+(?:\.[0-9]+)?|\ban?(?= )) ?([a-z]+)\.?"
_PART = re.compile(_ONE)
_WHOLE = re.compile(rf"-?{_ONE}(?:(?:,? and |, ?| ?){_ONE})*(?: ago)?")
_RANGE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?[-–—] ?(?=[0-9])")
_NEARLY_ALL = 0.95


def length_s(text: str) -> float | None:
    """Seconds of a length of time, or None.

    A month has 30 days and a year 365; a range (`25-35 min`) is its middle.
    """
    read = _read(text.strip().lower())
    return None if read is None else read[0]


def _read(text: str) -> tuple[float, set[str]] | None:
    """(seconds, the units that it names)."""
    if text in _WORDS_S:
        return float(_WORDS_S[text]), set()
    low = _RANGE.match(text)
    parts = _parts(text[low.end() :] if low else text)
    if parts is None or (low and len(parts) > 1):
        return None
    seconds = sum(number * _UNITS_S[unit] for number, unit in parts)
    if low:
        seconds = (float(low[1]) * _UNITS_S[parts[0][1]] + seconds) / 2
    return -seconds if text[0] == "-" else seconds, {unit for _, unit in parts}


def _parts(text: str) -> list[tuple[float, str]] | None:
    """The numbers and units of a length, the first ones first."""
    if not _WHOLE.fullmatch(text):
        return None
    found = [(number, _unit(word)) for number, word in _PART.findall(text)]
    if not all(unit in _UNITS_S for _, unit in found):
        return None
    return [(1.0 if number[0] == "a" else float(number), unit) for number, unit in found]


def _unit(word: str) -> str:
    return word.removesuffix("s") if len(word) > 2 else word  # `ms` is no two minutes


def are_lengths(texts: Sequence[str]) -> bool:
    """Whether nearly all texts are lengths of time, in more units than one.

    Not where `m` may be months: beside years (`2y`, `6m`).
    """
    known = {text.strip().lower() for text in texts}
    read = [one for one in map(_read, known) if one is not None]
    units = {unit for _, named in read for unit in named}
    if "m" in units and units & {"y", "yr", "year"}:
        return False
    sizes = {_UNITS_S[unit] for unit in units}
    return len(sizes) > 1 and len(read) >= _NEARLY_ALL * len(known)


def in_seconds(text: str) -> str:
    """A length of time as the number of its seconds; any other text as it stands."""
    seconds = length_s(text)
    return text if seconds is None else str(seconds)


def all_in_seconds(texts: pa.StringArray) -> pa.StringArray:
    """`in_seconds` of every text."""
    encoded = texts.dictionary_encode()
    read = [in_seconds(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(read, pa.string()).take(encoded.indices)
