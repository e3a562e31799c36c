"""Request bodies for load tests, replayed from the test split of a run.

A ranking request takes a user of the test split, that user's own positive items there, and tops
them up to the wanted number with items drawn by popularity in the test split, without repeats. The
draw is seeded; rows without an item are left out. Where the bundle has no item table, requests are
consecutive rows of the test split in the v2 protocol.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from dynens.data.encoding.encoders import RowEncoder
from dynens.data.prepared import PreparedData, open_prepared
from dynens.data.reading.values import canonical_texts, plain
from dynens.errors import BadInputError
from serving.v2 import MODEL_NAME

RANK_PATH = "/v1/rank"
INFER_PATH = f"/v2/models/{MODEL_NAME}/infer"
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def open_run_data(run: Path) -> PreparedData:
    """The prepared data of a run directory.

    Raises:
        BadInputError: there is none.
    """
    directory = run / "data"
    if not os.path.isfile(directory / "prepared.json"):
        raise BadInputError(
            f"{run} holds no prepared data; give the --out directory of a finished `dynens fit`."
        )
    return open_prepared(directory)


def request_bodies(
    prepared: PreparedData, rows_per_request: int, count: int, seed: int = 0
) -> tuple[str, list[bytes]]:
    """The path to post to and the bodies.

    Args:
        prepared: a run's data.
        rows_per_request: candidates (or rows) of each request.
        count: number of distinct bodies.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    raw = prepared.raw_test()
    encoder = prepared.encoder
    if encoder.has_item_entity and encoder.item_key in raw.column_names:
        labels = prepared.split("test").labels
        assert labels is not None
        known = canonical_texts(plain(raw[encoder.item_key])).is_valid()
        kept = known.to_numpy(zero_copy_only=False)
        drawer = _CandidateSets(encoder, raw.filter(known), labels[: raw.num_rows][kept], rng)
        return RANK_PATH, [drawer.body(rows_per_request) for _ in range(count)]
    return INFER_PATH, [
        infer_body(encoder, _some_rows(raw, rows_per_request, rng)) for _ in range(count)
    ]


def infer_body(encoder: RowEncoder, rows: pa.Table) -> bytes:
    """A v2 JSON request with every raw input that `rows` has."""
    inputs = []
    for field in encoder.input_fields:
        if field.name not in rows.column_names:
            continue
        values = rows[field.name].to_pylist()
        inputs.append(_tensor(field.name, field.kind, values))
    return orjson.dumps({"inputs": inputs}, option=_JSON_OPTIONS)


def _tensor(name: str, kind: str, values: list[Any]) -> dict[str, Any]:
    shape = [len(values)]
    if kind == "numeric" and all(isinstance(v, (int, float, type(None))) for v in values):
        numbers = [None if v is None or not math.isfinite(v) else float(v) for v in values]
        return {"name": name, "datatype": "FP64", "shape": shape, "data": numbers}
    lists = [v for v in values if isinstance(v, (list, np.ndarray))]
    if lists:
        width = max(1, *map(len, lists))
        padding: Any = None if kind == "dense_vector" else ""
        rows = [[*(v if v is not None else ()), *[padding] * width][:width] for v in values]
        flat = [v if kind == "dense_vector" else _text(v) for row in rows for v in row]
        datatype = "FP64" if kind == "dense_vector" else "BYTES"
        return {"name": name, "datatype": datatype, "shape": [len(rows), width], "data": flat}
    data = [_text(v) for v in values]
    return {"name": name, "datatype": "BYTES", "shape": shape, "data": data}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _some_rows(raw: pa.Table, rows: int, rng: np.random.Generator) -> pa.Table:
    start = int(rng.integers(0, raw.num_rows))
    index = (start + np.arange(rows)) % raw.num_rows
    return raw.take(pa.array(index))


class _CandidateSets:
    """Draws ranking requests."""

    def __init__(
        self,
        encoder: RowEncoder,
        raw: pa.Table,
        labels: npt.NDArray[np.float32],
        rng: np.random.Generator,
    ) -> None:
        assert encoder.item_key is not None
        self._rng = rng
        items = raw[encoder.item_key].to_numpy(zero_copy_only=False)
        self._items, self._codes, counts = np.unique(items, return_inverse=True, return_counts=True)
        self._log_popularity = np.log(counts)
        self._positive = labels > 0.5
        has_user = encoder.user_key is not None and encoder.user_key in raw.column_names
        self._users = raw[encoder.user_key].to_pylist() if has_user else None
        self._rows_of = _rows_by_value(self._users) if self._users else {}
        self._context = _context_columns(encoder, raw)

    def body(self, rows: int) -> bytes:
        row = int(self._rng.integers(0, len(self._codes)))
        document: dict[str, Any] = {"candidates": self._candidates(row, rows)}
        if self._users is not None:
            document["user_id"] = self._users[row]
        context = {
            name: values[row] for name, values in self._context.items() if values[row] is not None
        }
        if context:
            document["context"] = context
        return orjson.dumps(document, option=_JSON_OPTIONS)

    def _candidates(self, row: int, rows: int) -> list[Any]:
        own = self._rows_of.get(self._users[row], [row]) if self._users else [row]
        liked = self._codes[[r for r in own if self._positive[r]]]
        chosen = list(dict.fromkeys(liked.tolist()))[:rows]
        if len(chosen) < rows:
            chosen = list(dict.fromkeys([*chosen, *self._popular(rows)]))[:rows]
        while len(chosen) < rows:  # fewer distinct items than rows: repeat them
            chosen = (chosen * 2)[:rows]
        candidates: list[Any] = self._items[self._rng.permutation(chosen)].tolist()
        return candidates

    def _popular(self, count: int) -> list[int]:
        """Distinct items drawn by popularity: the largest log p + Gumbel noise."""
        keys = self._log_popularity + self._rng.gumbel(size=len(self._items))
        drawn: list[int] = np.argsort(-keys)[:count].tolist()
        return drawn


def _rows_by_value(values: list[Any]) -> dict[Any, list[int]]:
    rows: dict[Any, list[int]] = {}
    for row, value in enumerate(values):
        rows.setdefault(value, []).append(row)
    return rows


def _context_columns(encoder: RowEncoder, raw: pa.Table) -> dict[str, list[Any]]:
    """What a request must carry: context fields, and user fields that no user table has."""
    has_user_table = any(e.entity == "user" for e in encoder.entities)
    wanted = {"context"} if has_user_table else {"context", "user"}
    return {
        f.name: raw[f.name].to_pylist()
        for f in encoder.input_fields
        if f.entity in wanted and f.name in raw.column_names and f.name != encoder.user_key
    }
