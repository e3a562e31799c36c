"""Texts that are JSON objects made flat, as structs are: `{"os": "ios"}` in `meta` is `meta.os`.

So are lists of objects, whose values are lists, and both as Python prints them. Where objects have
ever other keys, as counts by tag, the keys are what tells: they are one list.
"""

from __future__ import annotations

import ast
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.reprs import unwrapped
from dynens.data.reading.values import canonical_texts, plain
from dynens.errors import DataError

_MIN_KNOWN = 20
_NEARLY_ALL = 0.95
_SELDOM = 0.01  # of the objects: what fewer have is no column
_MAX_KEYS = 100  # beyond, keys are values
_SURROGATE = "\\ud"
_NOTHING = (None, "", "0", "false")
_OPENS = r"^[ \t\r\n]*[\[{]"


def objects_in(head: pa.Table) -> dict[str, tuple[str, ...]]:
    """Columns of texts that are JSON objects, with the keys that are more than seldom there.

    Keys of objects in objects are joined by points. There are none where too many would be columns.
    """
    found = {}
    for name in head.column_names:
        column = plain(head[name])
        if not pa.types.is_string(column.type):
            continue
        texts = canonical_texts(column).drop_null()
        opens = pc.match_substring_regex(texts, _OPENS).cast(pa.float64())
        if len(texts) < _MIN_KNOWN or pc.mean(opens).as_py() < _NEARLY_ALL:
            continue
        values = [_values(text) for text in texts.to_pylist()]
        read = [value for value in values if value is not None]
        counts = Counter(key for value in read for key in value)
        keys = [key for key, count in counts.items() if count > _SELDOM * len(texts)]
        is_taken = any(f"{name}.{key}" in head.column_names for key in keys)
        if len(read) >= _NEARLY_ALL * len(texts) and keys and not is_taken:
            found[name] = tuple(keys) if len(keys) <= _MAX_KEYS else ()
    return found


def opened(table: pa.Table, objects: Mapping[str, Sequence[str]]) -> pa.Table:
    """The table with a column of texts for each key of its `objects`; other texts are missing.

    Objects without keys are lists of the keys of each text whose values are not 0, false or null.

    Raises:
        DataError: a key has the name of a column.
    """
    for name in [n for n in objects if n in table.column_names]:
        column = plain(table[name])
        if not (pa.types.is_string(column.type) or pa.types.is_null(column.type)):
            continue
        encoded = column.cast(pa.string()).dictionary_encode()
        values = [_values(text) or {} for text in encoded.dictionary.to_pylist()]
        at = table.column_names.index(name)
        table = table.remove_column(at)
        if not objects[name]:
            lists = [_true_keys(value) for value in values]
            column = pa.array(lists, pa.string()).take(encoded.indices)
            table = table.add_column(at, name, column)
        for i, key in enumerate(objects[name]):
            if f"{name}.{key}" in table.column_names:
                raise DataError(
                    f"{key!r} of the JSON objects in {name!r} and another column would both be "
                    f"called {name}.{key}; rename one."
                )
            texts = pa.array([value.get(key) for value in values], pa.string())
            table = table.add_column(at + i, f"{name}.{key}", texts.take(encoded.indices))
    return table


def _true_keys(value: Mapping[str, str | None]) -> str | None:
    """The keys that a text's object has for more than nothing, as a list."""
    keys = [key for key, inner in value.items() if inner not in _NOTHING]
    return json.dumps(keys, ensure_ascii=False) if keys else None


def _values(text: str) -> dict[str, str | None] | None:
    """The values of a JSON object as texts, as they stand there; None: it is none.

    Of a list of objects: for each key the list of what they have.
    """
    value = _parsed(text)
    if isinstance(value, dict):
        return dict(_leaves(value))
    if not isinstance(value, list) or not all(isinstance(inner, dict) for inner in value):
        return None
    lists = defaultdict(list)
    for inner in value:
        for key, leaf in _leaves(inner):
            lists[key].append(leaf)
    return {key: _written(leaves) for key, leaves in lists.items()}


def _parsed(text: str) -> Any:
    """What a text is in JSON, or else in Python; None: neither."""
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
        if _SURROGATE in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a character is no text
    except (ValueError, RecursionError):
        return _literal(text) if "'" in text or "(" in text else None
    return value


def _literal(text: str) -> Any:
    try:
        value = ast.literal_eval(unwrapped(text.strip()))
        _written(value).encode()
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return value


def _leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str | None]]:
    for key, inner in value.items():
        if isinstance(inner, str) and inner.startswith("{"):
            parsed = _parsed(inner)
            inner = parsed if isinstance(parsed, dict) else inner
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{before}{key}.")
        else:
            is_text = inner is None or isinstance(inner, str)
            yield f"{before}{key}", inner if is_text else _written(inner)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
