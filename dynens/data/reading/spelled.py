"""Numbers as people write them: amounts, durations, ranges, bounds and decimal commas."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import SPACE, TRUTH_WORDS, plain
from dynens.schema import Decimal

CURRENCY = (
    r"[$€£¥￥円元원₹₩₽₺₪฿₫₴₦]|USD|EUR|GBP|JPY|CNY|RMB|INR|KRW|BRL|RUB|AUD|CAD|CHF|SEK|NOK|DKK|PLN|CZK|HUF|"
    r"TRY|MXN|ZAR|SGD|HKD|TWD|THB|IDR|VND|MYR|PHP|AED|SAR|ILS|kr|zł|Rs\.?|R\$|US\$"
)
_LETTERS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
_WORDS = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "mn": 1e6, "billion": 1e9, "bn": 1e9}
_WORDS |= {"trillion": 1e12, "lac": 1e5, "lakh": 1e5, "crore": 1e7, "cr": 1e7}
_WORDS |= {"万": 1e4, "萬": 1e4, "亿": 1e8, "億": 1e8}
_TIMES = _LETTERS | _WORDS | {"b": 1e9, "": 1.0}
TIMES = r"(?:[kKMGT](?:i?B)?|B|(?i:" + "|".join(_WORDS) + r")s?\.?)"
_NO_CENTS = r"[.,][-–—]{1,2}"  # 20.-
# $1,200.50, -12 EUR, (5.00), +45%, 3.5 MB, 1.2k, ₹1,39,900, 1.2 Cr, 39.47-, 2253,- €
_DECORATED = re.compile(
    r"(?P<open>\()?(?P<sign>[-+−]?)\s?(?:(?P<money>" + CURRENCY + r")\s?)?(?P<inner>[-+−]?)"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}|"
    r"[0-9]{1,3}(?:[\u00a0\u202f '’][0-9]{3})+|[0-9]+)(?P<rest>\.[0-9]+)?"
    rf"(?:{_NO_CENTS})?\s?(?P<times>{TIMES})?(?P<behind>[-−]?)\s?(?:%|{CURRENCY})?"
    r"(?P<after>[-−]?)(?P<close>\))?"
)
UNIT = r"[A-Za-zµ°][A-Za-zµ°²³/.]{0,11}[23]?"
# 1.234.567,89 €
_GAP = r"[ \x{a0}\x{202f}]?"  # \s is another class in Arrow than in Python
_AROUND = _GAP + r"(?:%|" + CURRENCY + r")?" + _GAP
COMMA_NUMBER = (
    rf"^[-+−]?{_AROUND}([0-9]+|[0-9]{{1,3}}([. \x{{a0}}\x{{202f}}][0-9]{{3}})+)"
    rf"(,[0-9]+|{_NO_CENTS})?([eE][-+]?[0-9]+)?[-−]?{_AROUND}[-−]?( ?{UNIT})?$"
)
_COMMA_NUMBER = re.compile(COMMA_NUMBER.replace("\\x{a0}", "\u00a0").replace("\\x{202f}", "\u202f"))
_CLOCK = re.compile(  # 1:02:03, 12:30, 0 days 00:51:25.5
    r"(?P<sign>-?)(?:(?P<days>[0-9]+) days?,? \+?)?(?P<hours>[0-9]{1,3}):(?P<minutes>[0-5][0-9])"
    r"(?::(?P<seconds>[0-5][0-9](?:\.[0-9]+)?))?(?:\s?(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_DURATION = re.compile(  # PT1H2M3S
    r"(?P<sign>-?)P(?=.)(?:(?P<days>[0-9]+)D)?(?:T(?=.)(?:(?P<hours>[0-9]+)H)?"
    r"(?:(?P<minutes>[0-9]+)M)?(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?)S)?)?"
)
_SPOKEN = re.compile(  # 2h 50m, 1 hour 5 min, 24m52s, 3h, 5 min; no 5m: metres or millions
    r"(?P<sign>-?)(?=[0-9]+(?:h| ?hrs?| ?min)$|[0-9]+ ?[a-z]+,? ?[0-9])"
    r"(?:(?P<days>[0-9]+) ?d(?:ays?)?,? ?)?(?:(?P<hours>[0-9]+) ?h(?:(?:ou)?rs?)?,? ?)?"
    r"(?:(?P<minutes>[0-9]+) ?m(?:in(?:ute)?s?)?,? ?)?"
    r"(?:(?P<seconds>[0-9]+(?:\.[0-9]+)?) ?s(?:ec(?:ond)?s?)?)?"
)
_BOUND = re.compile(r"(?:[<>≤≥~]=?\s?(?P<end>.*[0-9].*)|(?P<start>.*[0-9].*)\+)")  # <0.05, 65+
_BEFORE_BOUND, _DASHES = "<>≤≥~", "-–—"
_LONGEST_RANGE = 60  # characters
_RANGE = re.compile(  # 3-5, $40,000 – $60,000, 40-60k
    r"(?P<low>[^-–—]*[0-9][^-–—]*?)\s?(?:[-–—]|\bto\b)\s?(?P<high>[^-–—]*[0-9][^-–—]*)"
)
_UNIT_OF_TIME = re.compile(r"(?<=[0-9])(?:h| ?hrs?| ?min)$")
_PARTS_S = {"days": 86_400, "hours": 3600, "minutes": 60, "seconds": 1}
_NUMBER = re.compile(r"[+-]?([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")


def with_points(column: pa.Array) -> pa.Array:
    """Texts that are numbers with a decimal comma, with a point: 1.234,5 becomes 1234.5."""
    found = pc.match_substring_regex(column, r"[.,]").fill_null(False)
    if not pc.any(found).as_py():
        return column
    texts = pc.utf8_trim(column, characters=SPACE)  # as one value is, before it is looked at
    numbers = pc.and_(found, pc.match_substring_regex(texts, COMMA_NUMBER).fill_null(False))
    pointed = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
    return pc.if_else(numbers, pointed, column)


def column_with_points(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """`with_points` of any column; numbers stay as they are."""
    column = plain(column)
    return with_points(column) if pa.types.is_string(column.type) else column


def with_point(text: str) -> str:
    """`with_points` of one text."""
    if _COMMA_NUMBER.match(text.strip(SPACE)):
        return text.replace(".", "").replace(",", ".")
    return text


def parse_number(text: str) -> float | None:
    """The number a text spells, or None.

    `true` is 1, `$1,200.50` and `1,200.50 USD` are 1200.5, `(5)` is -5, `45%` is 45, `1.2k` is
    1200, `39.47-` is -39.47, `20.-` is 20, `1.2B` and `1.2 billion` are 1.2e9, `1.5 Lac` and
    `1,50,000` are 150,000; times of the day and durations (`1:02:03`, `1:02 PM`,
    `0 days 01:02:03`, `PT1H2M3S`, `2h 50m`) are seconds.
    """
    text = text.strip(SPACE)
    if _NUMBER.fullmatch(text):
        return float(text)
    if text in TRUTH_WORDS:
        return float(TRUTH_WORDS[text])
    parts = _DECORATED.fullmatch(text)
    if parts is not None:
        return _decorated(parts)
    parts = _CLOCK.fullmatch(text)
    if parts is not None and parts["half"]:
        return _of_clock(parts)
    parts = parts or _DURATION.fullmatch(text) or _SPOKEN.fullmatch(text)
    if parts is None:
        return None
    seconds = _seconds(parts)
    return -seconds if parts["sign"] else seconds


def read_text(text: str, decimal: Decimal = ".") -> float | None:
    number = parse_number(text)
    return parse_range(text, decimal) if number is None else number


def parse_range(text: str, decimal: Decimal = ".") -> float | None:
    """The middle of a range (`3-5`, `$40k to $60k`), the end of one without (`65+`, `<0.05`)."""
    text = text.strip(SPACE)
    if not text or len(text) > _LONGEST_RANGE:
        return None
    if text[0] in _BEFORE_BOUND or text[-1] == "+":
        bound = _BOUND.fullmatch(text)
        return None if bound is None else _end(bound["end"] or bound["start"], decimal)
    dashes = sum(map(text.count, _DASHES))
    if dashes > 1 or not (dashes or "to" in text):  # which is found sooner than by the pattern
        return None
    parts = _RANGE.fullmatch(text)
    if parts is None:
        return None
    unit = _UNIT_OF_TIME.search(parts["high"])  # 25-35 min
    lower = parts["low"] + (unit[0] if unit and parts["low"][-1].isdigit() else "")
    low, high = _end(lower, decimal), _end(parts["high"], decimal)
    if low is None or high is None:
        return None
    shared = _DECORATED.fullmatch(parts["high"].strip(SPACE))
    if shared is not None and not parts["low"][-1].isalpha():
        times = _times(shared)
        low *= times if low * times <= high else 1.0  # 40-60k, and no 500-1k
    return None if low > high else (low + high) / 2


def _end(text: str, decimal: Decimal) -> float | None:
    """One end of a range."""
    return parse_number(with_point(text.strip(SPACE)) if decimal == "," else text)


def _seconds(parts: re.Match[str]) -> float:
    return sum(float(parts[name] or 0) * unit for name, unit in _PARTS_S.items())


def _of_clock(parts: re.Match[str]) -> float | None:
    """Seconds of a clock with twelve hours."""
    if parts["sign"] or parts["days"] or not 1 <= int(parts["hours"]) <= 12:
        return None
    noon = 43_200
    return _seconds(parts) % noon + (noon if parts["half"] in "pP" else 0)


def _times(parts: re.Match[str]) -> float:
    """What the number is to be multiplied by."""
    word = (parts["times"] or "").lower().rstrip("s.")
    return _TIMES[word if word in _TIMES else word[0]]


def _decorated(parts: re.Match[str]) -> float | None:
    signs = "".join(parts[place] for place in ("sign", "inner", "behind", "after"))
    if len(signs) > 1 or bool(parts["open"]) != bool(parts["close"]):
        return None
    if parts["times"] == "B" and not (parts["rest"] or parts["money"]):
        return None  # 12B may be bytes, or a house
    whole = re.sub(r"[^0-9]", "", parts["whole"])
    size = float(whole + (parts["rest"] or "")) * _times(parts)
    return -size if signs in ("-", "−") or parts["open"] else size
