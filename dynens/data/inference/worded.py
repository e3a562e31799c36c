"""Whether texts are numbers among words, in the few ways that a form or a program writes them."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from dynens.data.reading.spelled import CURRENCY
from dynens.data.reading.worded import PLACE, numbers_in_words, words_around

MAX_NUMBERS = 4
_MIN_KNOWN, _MAX_KNOWN = 20, 2000  # distinct texts that are looked at
_MAX_CHARS = 80  # of a text: more are sentences
_NEARLY_ALL = 0.95
_MOST_WAYS, _OFTEN = 30, 0.01  # of the texts: a rarer way may be that of one title
# Before and behind a number that is an amount; elsewhere it is a part of a code or an address.
_BEFORE = re.compile(rf"(?:^|[\s(\[{{<>=~'\"#+*|,;:×&]|[×x]\s|{PLACE}[/x]|{CURRENCY})\Z")
_BEHIND = re.compile(
    r"\s|\Z|[)\]}>%°'\"/,;:!?+*×|=&]|\.(?:\s|\Z)|-[a-z]{2}|[a-zµ]{2}|x\x00"
    rf"|{CURRENCY}|[\u2e80-\uffff]"
)
_LOOK_BACK, _ANY_WORD = 4, re.compile(rf"[^\s{PLACE},;:|./+-]")


@dataclass(frozen=True)
class Worded:
    """Numbers among words.

    Attributes:
        numbers: of each text.
        ways: how many different words stand around them.
    """

    numbers: int
    ways: int


def worded(texts: pa.StringArray) -> Worded | None:
    """How many numbers nearly all distinct texts have, among words that come back; None: none."""
    sample = texts.slice(0, _MAX_KNOWN).to_pylist()
    if len(sample) < _MIN_KNOWN or sum(map(len, sample)) > _MAX_CHARS * len(sample):
        return None
    counts = Counter(len(numbers_in_words(text)) for text in sample)
    numbers, count = counts.most_common(1)[0]
    if not 1 <= numbers <= MAX_NUMBERS or count < _NEARLY_ALL * len(sample):
        return None
    if numbers == 1 and sum(map(_holds_code, sample)) > (1 - _NEARLY_ALL) * len(sample):
        return None
    ways = Counter(
        words for text in sample if (words := words_around(text)).count(PLACE) == numbers
    )
    few = {
        words: n for words, n in ways.items() if n > _OFTEN * len(sample) and _are_amounts(words)
    }
    if len(few) > _MOST_WAYS or sum(few.values()) < _NEARLY_ALL * len(sample):
        return None
    return Worded(numbers, len(few)) if any(map(_ANY_WORD.search, few)) else None


def _are_amounts(words: str) -> bool:
    """Whether all numbers of a text stand as amounts do, and not as in codes or addresses."""
    if re.search("[0-9]", words):
        return False
    places = [m.start() for m in re.finditer(PLACE, words)]
    return all(
        _BEFORE.search(words[max(at - _LOOK_BACK, 0) : at]) and _BEHIND.match(words, at + 1)
        for at in places
    )


def _holds_code(text: str) -> bool:
    """Whether a number begins with zeros."""
    return any(re.match("0[0-9]", number) for number in numbers_in_words(text))
