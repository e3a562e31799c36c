"""Which columns play a part: keys, the time of the row, row numbers, outcomes in disguise."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.profile import ColumnProfile
from dynens.data.times import NUMBER_FORMATS, TEXT_FORMATS, text_format, to_seconds
from dynens.schema import TimeFormat

USER = re.compile(
    r"(user|member|customer|visitor|uid|client|account|person|profile)(_?(id|key|no))?$"
)
ITEM = re.compile(
    r"(item|video|movie|product|ad|article|news|song|track|book|doc|creative|sku|asin|iid|goods|page)"
    r"_?(id|key|no)?$"
)
_TIME = re.compile(
    r"((event|click|request|impression|impr|log|server|show|view|action|interaction|rating|order|"
    r"purchase|transaction|trans|invoice|created|received|visit|session|unix|utc|local)[_ ]?)?"
    r"(timestamp|date_?time|time_?stamp|time|ts|dt|date|at)([_ ]?(m?s|utc))?|hour|day"
)
NUMBERING = re.compile(r"unnamed: ?\d*|__index_level_\d+__|index|row(_?(id|no|number|num))?")
OUTCOME = re.compile(
    r"(is_)?(click(ed|s)?|purchased?|bought|buy|conver(sion|ted)|long_view|likes?|follow(ed)?|"
    r"comment(ed)?|forward(ed)?|shared?|hate|profile_enter|dwell_?(time)?(_m?s)?|"
    r"(play|watch|stay|read)_?time(_m?s)?|rating|revenue|add_to_cart|favou?rite|outcome|target|label)$"
)
_EARLIEST_S, _LATEST_S = 6e8, 4.2e9  # 1989 to 2103


def find_timestamp(
    sample: pa.Table, profiles: Mapping[str, ColumnProfile]
) -> tuple[str, TimeFormat] | None:
    """The column that tells when a row happened, and how it is written."""
    for name, profile in profiles.items():
        if profile.num_distinct < 3 or profile.missing_share > 0.01 or profile.is_list:
            continue
        named = _TIME.fullmatch(name.lower()) is not None
        if not named and (profile.is_number or profile.num_distinct < 10):
            continue
        if not profile.is_number and text_format(sample[name].slice(0, 2000)) is None:
            continue
        for time_format in NUMBER_FORMATS if profile.is_number else TEXT_FORMATS:
            seconds = to_seconds(sample[name], time_format)
            plausible = (seconds > _EARLIEST_S) & (seconds < _LATEST_S)
            # Any other date counts as the row's own time only where rows stand in its order.
            if plausible.mean() > 0.99 and (named or _in_order(seconds)):
                return name, time_format
    return None


def find_key(profiles: Mapping[str, ColumnProfile], names: re.Pattern[str]) -> str | None:
    """The column with most values among those whose name fits and that repeat."""
    found = [p for n, p in profiles.items() if names.fullmatch(n.lower()) and not p.is_list]
    found = [p for p in found if p.num_distinct > 10 and p.unique_share < 0.9]
    return max(found, key=lambda p: p.num_distinct).name if found else None


def _in_order(seconds: npt.NDArray[np.float64]) -> bool:
    """Whether times nearly always go one way from row to row."""
    steps = np.sign(np.diff(seconds))
    moves = np.count_nonzero(steps)
    return bool(moves >= 10 and abs(steps.sum()) > 0.9 * moves)
