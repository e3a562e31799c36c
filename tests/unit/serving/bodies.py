"""Requests that tests of the HTTP side share."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import orjson

from dynens.config.serving import ServingConfig
from dynens.engine import Engine
from serving.application import Application
from serving.metrics import SnapshotFolder
from tests.asgi import Answer

INFER = "/v2/models/dynens/infer"
RANK = "/v1/rank"


def pack_texts(values: list[str]) -> bytes:
    """The binary form of a BYTES tensor."""
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(e)) + e for e in encoded)


def pack_numbers(values: list[float], datatype: str) -> bytes:
    """The binary form of a numeric tensor."""
    dtypes = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4", "INT64": "<i8"}
    return np.array(values, dtypes[datatype]).tobytes()


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> Any:
    return {"name": name, "datatype": datatype, "shape": shape or [len(data)], "data": data}


ROWS = {
    "inputs": [
        tensor("user_id", "INT64", [5, 6, 7]),
        tensor("town", "BYTES", ["Oslo", "東京", ""]),
        tensor("age", "FP32", [31.0, None, 44]),
        tensor("hour", "BYTES", ["3", "4", "5"]),
        tensor("item_id", "BYTES", ["i1", "i2", "never seen"]),
        tensor("genres", "BYTES", ["drama", "", "horror", "comedy", "", ""], [3, 2]),
        tensor("price", "FP64", [3.5, 2.5, 1.0]),
        tensor("brand", "BYTES", ["b1", "b2", "b3"]),
    ]
}


def outputs(answer: Answer) -> dict[str, list[Any]]:
    assert answer.status == 200, answer.body
    return {o["name"]: o["data"] for o in answer.json()["outputs"]}


def binary_request(
    tensors: list[tuple[str, str, list[int], bytes]], **document: Any
) -> tuple[bytes, str]:
    inputs = [
        {
            "name": name,
            "datatype": datatype,
            "shape": shape,
            "parameters": {"binary_data_size": len(data)},
        }
        for name, datatype, shape, data in tensors
    ]
    header = orjson.dumps({"inputs": inputs, **document})
    return header + b"".join(data for *_, data in tensors), str(len(header))


BINARY = [
    ("user_id", "INT64", [3], pack_numbers([5, 6, 7], "INT64")),
    ("town", "BYTES", [3], pack_texts(["Oslo", "東京", ""])),
    ("age", "FP32", [3], pack_numbers([31.0, float("nan"), 44.0], "FP32")),
    ("hour", "BYTES", [3], pack_texts(["3", "4", "5"])),
    ("item_id", "BYTES", [3], pack_texts(["i1", "i2", "never seen"])),
    ("genres", "BYTES", [3, 2], pack_texts(["drama", "", "horror", "comedy", "", ""])),
    ("price", "FP64", [3], pack_numbers([3.5, 2.5, 1.0], "FP64")),
    ("brand", "BYTES", [3, 1], pack_texts(["b1", "b2", "b3"])),
]


def make(engine: Engine, token: str | None = None, **settings: Any) -> Application:
    config = ServingConfig(**{"latency_budget_ms": 10_000, **settings})
    return Application(engine, config, folder=SnapshotFolder(None, "one"), token=token)
