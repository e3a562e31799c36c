"""Numbers that stand among words: `£660 pcm`, `Based on 2,253 reviews`, `5'7"`, `[20,43)`.

Each different text of a column is read as a single one is.
"""

from __future__ import annotations

import re

import pyarrow as pa

from dynens.data.reading.spelled import read_text, with_point
from dynens.schema import Decimal

WORDS = "*"
"""The unit of numbers with any words around them, as long as each text has one number."""
NUMBERS = r"\d"
"""The separator of texts whose values are the numbers in them, whatever stands between these."""
PLACE = "\x00"
"""What stands for a number in the words around it."""
_SIGN = r"(?<![^\s(\[,;:=<>~])[-−+]"
_ONE = (
    rf"(?:{_SIGN})?(?<![A-Za-z0-9_.À-ɏ])"
    r"(?:[0-9]{1,3}(?:[,'’\u00a0\u202f][0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
    r"(?:(?:[kKM]|\s?(?i:thousand|million|mn|billion|bn|lakh|lac|crore)s?)(?![A-Za-z]))?"
)
_NUMBER = re.compile(rf"({_ONE})(\s?°\s?[SW]\b)?")
_LIMIT = r"\s*([-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|inf))\s*"
_INTERVAL = re.compile(rf"([\[(]){_LIMIT}[,;]{_LIMIT}([\])])")  # where 100,200 are two numbers
_SWAPPED = str.maketrans(",.", ".,")


def numbers_in_words(text: str) -> list[str]:
    """The numbers in a text, in its order; of degrees west and south negative.

    `1.7/5` has 1.7 and 5. Digits behind letters (`A123`) are none.
    """
    if interval := _INTERVAL.fullmatch(text.strip()):
        return [interval[2], interval[3]]
    return [
        f"-{one}" if below and one[0].isdigit() else one.replace("−", "-")
        for one, below in _NUMBER.findall(text)
    ]


def words_around(text: str) -> str:
    """The text with `PLACE` for each of its numbers."""
    if interval := _INTERVAL.fullmatch(text.strip()):
        return f"{interval[1]}{PLACE},{PLACE}{interval[4]}"
    return _NUMBER.sub(rf"{PLACE}\2", text)


def lone_number(text: str, decimal: Decimal = ".") -> str:
    """The one number of a text; a text that is a number or has not just one stays as it is."""
    pointed = with_point(text) if decimal == "," else text
    if read_text(pointed, decimal) is not None:
        return text
    found = numbers_in_words(text.translate(_SWAPPED) if decimal == "," else text)
    if len(found) != 1:
        return text
    return found[0].translate(_SWAPPED) if decimal == "," else found[0]


def lone_numbers(texts: pa.StringArray, decimal: Decimal = ".") -> pa.StringArray:
    """`lone_number` of every text."""
    encoded = texts.dictionary_encode()
    read = [lone_number(text, decimal) for text in encoded.dictionary.to_pylist()]
    return pa.array(read, pa.string()).take(encoded.indices)


def split_numbers(text: str) -> list[str]:
    """`numbers_in_words`, or the text itself where it has none."""
    return numbers_in_words(text) or [text]


def lists_of_numbers(texts: pa.StringArray) -> pa.ListArray:
    """`split_numbers` of every text."""
    encoded = texts.dictionary_encode()
    lists = [split_numbers(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(encoded.indices)
