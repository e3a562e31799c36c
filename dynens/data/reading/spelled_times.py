"""Dates and times as people, databases and browsers write them in texts.

These are the layouts of `_DATES`, `_CLOCKS` and `_LOGS`, also as `_BEFORE_OFFSETS` and
`_BEHIND_OFFSETS` make them of others (months of `_MONTH_NAMES`, weekdays in English), and months
alone (2015-12, Dec-2015, 12/2015), as quarters are by their first ones.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

ZULU = re.compile(r"\s*(?:Etc/)?(Z|UTC|GMT)\s*$")
# Hours from UTC: those of RFC 2822, section 4.3, and of Central Europe.
_ZONES = {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_ZONES |= {"CET": 1, "CEST": 2}
_NAMED = "|".join(_ZONES)
_CLOCK = r":\d\d(?:\.\d+)?(?:\s?[ap]\.?m\.?)?"
_YEAR = r"(?: \d{4})?\s*$"  # behind the offset of what `date` prints
OFFSET = re.compile(rf"(?i)({_CLOCK})\s?([-+](?:0\d|1[0-4])(?::?\d\d)?|UTC|GMT|{_NAMED})({_YEAR})")
_PLACE = r"[A-Z][a-z]+(?:/[A-Z][A-Za-z_+-]*[0-9]*)+"  # Europe/Berlin
_IN_PLACE = re.compile(rf"(?i)({_CLOCK}) ({_PLACE})$")
_COMMENT = r"(?:\s*\([^()]*\))?"  # what browsers write behind an offset
_DOTNET = re.compile(r"\\?/Date\((-?\d{1,14})([-+]\d{4})?\)\\?/")
AWAY = re.compile(
    rf"(?i)[.:]{_CLOCK[1:]}\s?(?:(?:GMT|UTC)?[-+](?:0?[1-9]|1\d|00:?[1-9])[\d:]*{_COMMENT}|{_NAMED}"
    rf"|{_PLACE}){_YEAR}|/Date\(-?\d+[-+]\d"
)
RANGE = re.compile(  # 2024-05-01 13:00-13:59, of which the end is that of no zone; 13:00 – 14:00
    r"(\d\s\d\d?:\d\d(?::\d\d)?)(?:\s?[–—]\s?\d\d?:\d\d(?::\d\d)?|\s-\s\d\d?:\d\d(?::\d\d)?"
    r"|-(?:\d\d:\d[49]|\d\d:\d\d:\d\d|(?:1[3-9]|2[0-4]):\d\d))\s*$"
)
_MONTH_FIRST = ("%m/%d/%Y", "%m/%d/%y", "%m-%d-%Y")
_DAY_FIRST = ("%d/%m/%Y", "%d/%m/%y", "%d-%m-%Y")
_DATES = (
    *("%Y/%m/%d", "%d.%m.%Y", "%d %b %Y", "%d-%b-%Y", "%b %d, %Y", "%b %d %Y"),
    *("%d.%m.%y", "%d %b %y", "%d-%b-%y", "%m %d, %Y", "%Y-%m-%d", "%Y.%m.%d"),
)
_CLOCKS = (
    *(" %H:%M:%S", " %H:%M", "", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p"),
    " %I:%M:%S.%f %p",
)
_LOGS = ("%b %d %H:%M:%S %Y", "%d/%b/%Y:%H:%M:%S")
LAYOUTS = [
    tuple(date + clock for date in (*_DATES, *dates) for clock in _CLOCKS) + _LOGS
    for dates in (_MONTH_FIRST, _DAY_FIRST)
]
_MONTHS = ["%Y-%m", "%Y/%m", "%m/%Y", "%b-%Y", "%b %Y"]


def _of_year(text: re.Match[str]) -> str:
    """2024-122 as a day of a month."""
    try:
        first, day = datetime(int(text[1]), 1, 1), int(text[2])
        found = first + timedelta(days=day - 1)
    except (ValueError, OverflowError):  # of no year, or beyond the last
        return text[0]
    return f"{found.date()} " if day and found.year == first.year else text[0]


def _first_month(text: re.Match[str]) -> str:
    """Of a quarter: 2020-10 of 2020Q4 or Q4 2020."""
    year, quarter = text[1] or text[4], int(text[2] or text[3])
    return f"{year}-{3 * quarter - 2:02}"


_PATTERNS = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
_BEFORE_OFFSETS: _PATTERNS = (
    (r"(?<=\d)[- ](\d\d?)\.(\d\d)\.(\d\d)(?=\.\d|\s|$)", r" \1:\2:\3"),  # of Oracle, DB2
    (r"(:\d\d\.\d{6})\d+", r"\1"),  # nanoseconds
    (r"\b(?:GMT|UTC)(?=[-+]\d)", ""),
    (r"(?<=[-+]\d{4})\s*\([^()]*\)$", ""),  # GMT+0200 (Central European Summer Time)
)
_BEHIND_OFFSETS: _PATTERNS = (
    (r"(\d\d?)[時时点시] ?(\d\d?)[分분] ?(\d\d?)[秒초]", r"\1:\2:\3"),
    (r"(\d\d?)[時时点시] ?(\d\d?)[分분]", r"\1:\2"),
    (r"(?:오전|上午|午前) ?(\d\d?:[\d:]+)", r" \1 am"),
    (r"(?:오후|下午|午後) ?(\d\d?:[\d:]+)", r" \1 pm"),
    (r"^(\d{4})\. (\d\d?)\. (\d\d?)\.?(?=\s|$)", r"\1-\2-\3"),  # 2024. 5. 1. 10:00
    (r"^(\d{4})-(\d{3})[ T](?=\d\d?:\d\d)", _of_year),
    (r"^(?:(\d{4})[- ]?Q([1-4])|Q([1-4])[- ]?(\d{4}))$", _first_month),
    (r"(?<=\d)(?:,| at|, at| à| um) (?=\d\d?[:h]\d\d)", " "),  # 5/3/2022, 17:30
    (r"(?<=\s)(\d\d?)h(\d\d)\b", r"\1:\2"),  # 17h30
    (r"(?<=\d)\s?([ap])\.?m\b\.?", r" \1m"),  # 5:30pm
    (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? +", ""),  # Monday, May 6, 2024; Mon 6 May 2024
    (r"(?<=\d)(st|nd|rd|th|er)\b", ""),  # October 26th, 2019
    (r"\b(\d\d?)([A-Z]{3})(\d{4})\b:?", r"\1 \2 \3 "),  # 06MAY2013:17:30:00
    (r"(\d{4})[年년] ?(\d\d?)[月월] ?(\d\d?)[日일]", r"\1-\2-\3 "),
    (r"(?<=\d)\. (?=[^\W\d])| de ", " "),  # 6. Mai 2024, 6 de mayo de 2024
    (r"(?<=[^\W\d])\.?,? (?=\d{4}\b)", " "),  # 21 Aug, 2012; 21 sept. 2012
)
_EARLY, _LATE = (
    [(re.compile(pattern, re.IGNORECASE), written) for pattern, written in patterns]
    for patterns in (_BEFORE_OFFSETS, _BEHIND_OFFSETS)
)
_MONTH_NAMES = (  # in English, German, French and Spanish
    *("jan january januar janvier janv enero ene", "feb february februar février févr febrero"),
    *("mar march märz mär mrz mars marzo", "apr april avril avr abril abr", "may mai mayo"),
    *("jun june juni juin junio", "jul july juli juillet juil julio"),
    *("aug august août agosto ago", "sep sept september septembre septiembre"),
    *("oct october oktober okt octobre octubre", "nov november novembre noviembre"),
    "dec december dezember dez décembre déc diciembre dic",
)
_MONTH_OF = {name: names[:3] for names in _MONTH_NAMES for name in names.split()}
_WORD = re.compile(r"[^\W\d_]{3,}")
_VERSION = re.compile(r"(\d\.\d+|\d\d?\.\d)\.\d\d")  # 2.10.15, where 02.10.15 is a day
_DATE_LIKE = re.compile(r"([A-Za-z]{3} +|\d{1,4}[-/. ])\w{1,3}[-/., ].*\d")
_MONTH_LIKE = re.compile(r"(19|20)\d\d[-/]\d\d|(\d\d?/|[A-Za-z]{3}[- ])(19|20)\d\d")


def spelled_seconds(text: str, layouts: list[str], *, local: bool = False) -> float:
    """Seconds since 1970 UTC of one text that is no number, NaN where it is no time.

    Args:
        text: without white space around it.
        layouts: those of `LAYOUTS`; the one that fits moves to the front, for no two fit one text.
        local: read what the clock shows, whatever zone it is in.
    """
    dotnet = _DOTNET.fullmatch(text)
    if dotnet is not None:
        ahead_s = _ahead_s(dotnet[2]) if local and dotnet[2] else 0.0
        return int(dotnet[1]) / 1000 + ahead_s
    try:
        return _seconds(datetime.fromisoformat(text), None, local)
    except ValueError:
        pass
    if not _VERSION.fullmatch(text):  # most texts of a column are as the last one was
        with contextlib.suppress(ValueError, OverflowError):
            return _seconds(datetime.strptime(text, layouts[0]), None, local)
    for pattern, written in _EARLY:
        text = pattern.sub(written, text)
    try:
        text, zone = _without_zone(text)
    except (KeyError, ValueError, OSError):  # there is no such place
        return float("nan")
    for pattern, written in _LATE:
        text = pattern.sub(written, text)
    text = _WORD.sub(lambda word: _MONTH_OF.get(word[0].lower(), word[0]), text).strip()
    if _MONTH_LIKE.fullmatch(text):
        layouts = _MONTHS
    elif not _DATE_LIKE.match(text) or _VERSION.fullmatch(text):
        return float("nan")
    for i, layout in enumerate(layouts):
        try:
            seconds = _seconds(datetime.strptime(text, layout), zone, local)
        except (ValueError, OverflowError):
            continue
        layouts.insert(0, layouts.pop(i))
        return seconds
    return float("nan")


def _seconds(moment: datetime, zone: tzinfo | None, local: bool) -> float:
    zone = UTC if local else (moment.tzinfo or zone or UTC)
    return moment.replace(tzinfo=zone).timestamp()


def _without_zone(text: str) -> tuple[str, tzinfo | None]:
    """(the text without its offset from UTC, or the zone's name or place; the zone)."""
    found = _IN_PLACE.search(text)
    if found is not None:
        clock, place = found.groups()
        return text[: found.start()] + clock, ZoneInfo(place.title() if place.isupper() else place)
    found = OFFSET.search(text)
    if found is None:
        return text, None
    clock, offset, year = found.groups()
    is_named = offset[0] not in "-+"
    ahead_s = 3600.0 * _ZONES.get(offset.upper(), 0) if is_named else _ahead_s(offset)
    return text[: found.start()] + clock + year, timezone(timedelta(seconds=ahead_s))


def _ahead_s(offset: str) -> float:
    """Seconds of an offset from UTC: +02:00, -0330 or +02."""
    digits = offset[1:].replace(":", "").ljust(4, "0")
    ahead_s = 3600.0 * int(digits[:2]) + 60.0 * int(digits[2:])
    return -ahead_s if offset[0] == "-" else ahead_s


def month_of(word: str) -> int | None:
    """Which month a word is: 9 of `September`, `Sep.` or `sept`."""
    short = _MONTH_OF.get(word.strip().rstrip(".").lower())
    return None if short is None else list(dict.fromkeys(_MONTH_OF.values())).index(short) + 1
