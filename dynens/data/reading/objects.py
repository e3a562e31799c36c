"""Texts that are JSON objects made flat, as structs are: `{"os": "ios"}` in `meta` is `meta.os`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.values import canonical_texts, plain
from dynens.errors import DataError

_MIN_KNOWN = 20
_NEARLY_ALL = 0.95
_SELDOM = 0.01  # of the objects: what fewer have is no column
_MAX_KEYS = 100
_SURROGATE = "\\ud"
_OPENS = r"^[ \t\r\n]*\{"


def objects_in(head: pa.Table) -> dict[str, tuple[str, ...]]:
    """Columns of texts that are JSON objects, with the keys that are more than seldom there.

    Keys of objects in objects are joined by points.
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
        is_free = any(f"{name}.{key}" in head.column_names for key in keys)
        if len(read) >= _NEARLY_ALL * len(texts) and 0 < len(keys) <= _MAX_KEYS and not is_free:
            found[name] = tuple(keys)
    return found


def opened(table: pa.Table, objects: Mapping[str, Sequence[str]]) -> pa.Table:
    """The table with a column of texts for each key of its `objects`; other texts are missing.

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
        for i, key in enumerate(objects[name]):
            if f"{name}.{key}" in table.column_names:
                raise DataError(
                    f"{key!r} of the JSON objects in {name!r} and another column would both be "
                    f"called {name}.{key}; rename one."
                )
            texts = pa.array([value.get(key) for value in values], pa.string())
            table = table.add_column(at + i, f"{name}.{key}", texts.take(encoded.indices))
    return table


def _values(text: str) -> dict[str, str | None] | None:
    """The values of a JSON object as texts, as they stand there; None: it is none."""
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
        if _SURROGATE in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # half a character is no text
    except (ValueError, RecursionError):
        return None
    return dict(_leaves(value)) if isinstance(value, dict) else None


def _leaves(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str | None]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _leaves(inner, f"{before}{key}.")
        elif isinstance(inner, (list, bool)):
            yield before + key, json.dumps(inner, ensure_ascii=False)
        else:
            yield before + key, inner
