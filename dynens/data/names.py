"""What columns' names say of them, and names for new columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KEY = r"([_\-. ]?(id|key|no|hash|uuid|guid))?$"
USERS = (  # the likelier names first
    re.compile(r"(user|member|customer|visitor|uid|client|account|person|profile)" + _KEY),
    re.compile(
        r"(reviewer|viewer|listener|player|subscriber|buyer|shopper|contact|recipient|cookie)"
        + _KEY
    ),
)
ITEMS = (  # the likelier names first
    re.compile(
        r"(item|video|movie|product|ad|article|news|song|track|book|doc|creative|sku|asin|iid|goods|"
        r"page|isbn)([_\-. ]?(id|key|no|hash|uuid|guid|asin|sku|code))?$"
    ),
    re.compile(
        r"(content|post|photo|listing|offer|hotel|restaurant|recipe|course|game|place|note|"
        r"episode|podcast|prop|property|job)"
        r"[_\-. ]?(id|key|no|hash|uuid|guid)$"
    ),
)
_EVENTS = (
    "event|click|request|impression|impr|log|server|show|view|action|interaction|rating|order|"
    "purchase|transaction|trans|visit|session|unix|utc|local|auction|bid|query|send|sent|served|"
    "shown|requested|search|searched|viewed|logged|occurred|happened|delivered|played|"
    "review|reviewed"
)
TIME = re.compile(  # of the row, whatever order rows stand in
    rf"(({_EVENTS})[_ ]?(date|dt|at|day)|"
    rf"(({_EVENTS})[_ ]?)*(timestamp|date_?time|time_?stamp|time|ts))([_ ]?(m?s|utc))?|hour|"
    r"(unix[_ ]?)?epoch([_ ]?(m?s|sec(ond)?s|milli(second)?s))?"
)
REQUEST = re.compile(
    r"(impression|impr|request|req|search|srch|auction|slate|display|serp|session|page_?view)"
    r"[_\-. ]?(id|key|no)|qid"
)
WEIGHT = re.compile(
    r"(sampl(e|ing)|row|case|instance|example|observation|importance|ipw|inverse[_ ]propensity)"
    r"[_ ]?(weights?|wt)"
)
DATE = re.compile(  # of the row, or of what it shows
    r"((created|received|invoice)[_ ]?)?(timestamp|date_?time|time|ts|dt|date|at|on)|day|created"
)
MOMENT = re.compile(r"(.*_)?(timestamp|date_?time|date|time|ts|dt|at)(_(utc|gmt|local))?")
DAYS = re.compile(  # counted from any one
    r"(date|dt|day|week)([_ ]?(no|num|number|id|idx|index))?"
)
NUMBERING = re.compile(r"unnamed: ?\d*|__index_level_\d+__|index|row(_?(id|no|number|num))?")
OUTCOME = re.compile(
    r"((is|was|has)[_ ]?)?(click(ed|s)?|clk|opened|purchased?|bought|buy|ordered|"
    r"conver(sion|ted)|attributed|long_view|(dis)?likes?|follow(ed)?|comment(ed)?|forward(ed)?|"
    r"shared?|hate|profile_enter|dwell_?(time)?(_m?s)?|(play|watch|stay|read)_?time(_m?s)?|rating|"
    r"revenue|add(ed)?[_ ]?(to[_ ]?)?(cart|basket|wish_?list)|favou?rite|outcome|target|label)"
    r"([_ ]?(bool|flag|yn))?|"
    r"(is|was|has)[_ ]booked|book(ed|ing)[_ ](bool|flag|yn)"  # `booked` alone is a date
)
_ID_NAME = re.compile(r"(.*[_\-. ])?(id|ids|key|code|zip|zipcode|zip_code|postcode|uuid|hash)$")
_IN_A_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # where the next word of KeywordID begins
POSTAL = re.compile(r"(.*[_\-. ])?(zip|zip_?code|post(al)?_?code|plz)$")


def plain_name(name: str) -> str:
    """A column's name in lower case with `_` between its words: `Order Date (UTC)`, say."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def is_id_name(name: str) -> bool:
    """Whether a column's name says that it identifies something: `shop_id`, `userId`, `zip`."""
    return _ID_NAME.fullmatch(_IN_A_WORD.sub("_", name).lower()) is not None


def is_key_name(name: str) -> bool:
    """Whether a column is a category by its name: an id, or what tells users or items apart."""
    keys = (*USERS, *ITEMS, REQUEST)
    return is_id_name(name) or any(key.fullmatch(plain_name(name)) for key in keys)


def folded(name: str) -> str:
    """A column's name without what is easily mistaken: letter case and spaces around it."""
    return name.strip().casefold()


def unused_name(name: str, columns: Sequence[str]) -> str:
    """`name`, or one like it that is none of the table's columns."""
    while name in columns:
        name += "_"
    return name
