"""Dates whose year, month and day stand in columns of their own, put together as one column.

`arrival_date_year` 2023, `arrival_date_month` September and `arrival_date_day_of_month` 7 are the
column `arrival_date`, 2023-09-07. Files have it put together where they are read, requests where
they are encoded.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.names import plain_name
from dynens.data.reading.spelled_times import month_of
from dynens.data.reading.values import canonical, canonical_texts, plain

Dates = Mapping[str, tuple[str, str, str]]
"""Columns by the names of those of their year, month and day."""
NO_DATES: Dates = MappingProxyType({})

_PARTS = ("year", "month", "day")
_WORDS = r"(?P<year>year|yr|yyyy)|(?P<month>month|mon|mm)|(?P<day>day(_?of_?(the_?)?month)?|dom|dd)"
_NAME = re.compile(rf"(?:(?P<before>.*?)_?)??(?:{_WORDS})(?:_(?:of_)?(?P<after>.*))?")
_MIN_KNOWN = 20
_NEARLY_ALL = 0.99
_WEEK = 7
_BETWEEN = "\x1f"


def dates_in(head: pa.Table) -> dict[str, tuple[str, str, str]]:
    """Columns of years, months and days that are dates, by a name that no column has.

    Their names say so, but for a word in common, if any. The numbers of days must go beyond those
    of a week's.
    """
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in head.column_names:
        if (parts := _NAME.fullmatch(plain_name(name))) is not None:
            word = next(part for part in _PARTS if parts[part])
            stem = "_".join(filter(None, (parts["before"], parts["after"])))
            if word not in found[stem] or "month" in (parts["day"] or ""):  # and no weekday
                found[stem][word] = name
    dates = {}
    for stem, named in found.items():
        name = stem if stem.endswith("date") else f"{stem}_date".lstrip("_")
        if len(named) == len(_PARTS) and name not in head.column_names:
            year, month, day = (named[part] for part in _PARTS)
            if _are_dates(head, (year, month, day)):
                dates[name] = (year, month, day)
    return dates


def _are_dates(head: pa.Table, names: Sequence[str]) -> bool:
    columns = [plain(head[name]) for name in names]
    if any(pa.types.is_nested(column.type) for column in columns):
        return False
    texts = [canonical_texts(column) for column in columns]
    known = len(texts[0]) - pc.binary_join_element_wise(*texts, "").null_count
    read = _dates(texts).drop_null()
    days = [int(text[-2:]) for text in read.unique().to_pylist()]
    return known >= _MIN_KNOWN and len(read) >= _NEARLY_ALL * known and max(days) > _WEEK


def dated(table: pa.Table, dates: Dates) -> pa.Table:
    """The table with a column of each of `dates` whose parts it has, behind the last of them."""
    for name, parts in dates.items():
        places = [table.column_names.index(part) for part in parts if part in table.column_names]
        columns = [plain(table[at]) for at in places]
        if len(columns) < len(parts) or name in table.column_names:
            continue
        if not any(pa.types.is_nested(column.type) for column in columns):
            texts = _dates([canonical_texts(column) for column in columns])
            table = table.add_column(max(places) + 1, name, texts)
    return table


def with_dates(columns: Mapping[str, Any], dates: Dates) -> Mapping[str, Any]:
    """`dated` for named columns of Python values.

    Raises:
        TypeError: a part is no single value.
    """
    made = {
        name: [
            _date(*map(canonical, row)) for row in zip(*(columns[p] for p in parts), strict=True)
        ]
        for name, parts in dates.items()
        if name not in columns and all(part in columns for part in parts)
    }
    return {**columns, **made} if made else columns


def read_for(columns: Iterable[str] | None, dates: Dates) -> set[str] | None:
    """What is to be read for some columns of files (None: all): those they are made of, too."""
    if columns is None:
        return None
    names = set(columns)
    return names.union(*(parts for name, parts in dates.items() if name in names))


def _dates(texts: Sequence[pa.StringArray]) -> pa.StringArray:
    joined = pc.binary_join_element_wise(*texts, _BETWEEN).dictionary_encode()
    known = [_date(*text.split(_BETWEEN)) for text in joined.dictionary.to_pylist()]
    return pa.array(known, pa.string()).take(joined.indices)


@lru_cache(maxsize=20_000)
def _date(year: str | None, month: str | None, day: str | None) -> str | None:
    """A day as ISO texts have it, None where it is missing or no day."""
    if year is None or month is None or day is None or not re.fullmatch(r"(19|20)[0-9]{2}", year):
        return None
    number = int(month) if re.fullmatch(r"[0-9]{1,2}", month) else month_of(month)
    if number is None or not re.fullmatch(r"[0-9]{1,2}", day):
        return None
    try:
        return date(int(year), number, int(day)).isoformat()
    except ValueError:
        return None
