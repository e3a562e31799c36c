"""The Open Inference Protocol v2: requests and responses in JSON and with binary tensors.

With the binary tensor extension the header `inference-header-content-length` says where the JSON
part of the body ends; the raw tensors follow in the order of the inputs that declare
`binary_data_size`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from dynens.config.serving import LimitsConfig
from dynens.data.reading.lists import most_values, split_text
from dynens.engine import Scores
from serving.errors import bad_request
from serving.tensors import (
    Column,
    Field,
    TensorSpec,
    column_from_bytes,
    column_from_json,
    tensor_spec,
)

MODEL_NAME = "dynens"
HEADER_LENGTH = "Inference-Header-Content-Length"
OUTPUTS = ("probability", "route")
_DATATYPES = {"probability": "FP32", "route": "INT32"}
_JSON_OPTIONS = orjson.OPT_SERIALIZE_NUMPY
# Values in lists and vectors that a request may bring in all: encoding them takes 0.6 µs each.
_MAX_LISTED = 500_000


@dataclass(frozen=True)
class InferRequest:
    """A parsed request.

    Attributes:
        columns: raw columns by name, each with `rows` entries.
        rows: number of rows, at least 1.
        request_id: the client's id, given back.
        budget: `latency_budget_ms` as the client gave it, or None.
        outputs: names of the outputs asked for, in order, each with whether it goes out binary.
    """

    columns: dict[str, Column]
    rows: int
    request_id: str | None
    budget: object
    outputs: tuple[tuple[str, bool], ...]


def loads(body: bytes | memoryview) -> Any:
    """JSON, with the NaN that Python clients write accepted as a number.

    Raises:
        RequestError: 400 when it is not JSON or nested too deeply.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as e:
        text = bytes(body)
        if b"NaN" in text or b"Infinity" in text:
            try:
                # As text: bytes are decoded with half characters passed.
                document = json.loads(text.decode(), parse_int=_int64)
                if b"\\u" in text:
                    json.dumps(document, ensure_ascii=False).encode()  # no lone surrogates
                return document
            except (ValueError, RecursionError):
                pass
        raise bad_request(f"the body is not valid JSON ({e.msg} at byte {e.pos})") from e


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**64:
        raise ValueError("an integer beyond 64 bits")
    return value


def parse_infer(
    body: bytes, header_length: bytes | None, fields: Mapping[str, Field], limits: LimitsConfig
) -> InferRequest:
    """Read an inference request.

    Args:
        body: the whole body.
        header_length: value of the header `inference-header-content-length`, or None.
        fields: the model's inputs by name.
        limits: what a request may ask for.

    Raises:
        RequestError: 400 (413 for too many rows) naming what is wrong.
    """
    view = memoryview(body)
    split = len(body) if header_length is None else _header_length(header_length, len(body))
    document = loads(view[:split])
    if not isinstance(document, dict):
        raise bad_request("the body must be a JSON object with 'inputs'")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs:
        raise bad_request("the body has no 'inputs'; give one named tensor per field")
    reader = _InputReader(fields, limits, view[split:])
    for tensor in inputs:
        reader.read(tensor)
    reader.finish()
    parameters = _mapping(document.get("parameters"), "parameters")
    request_id = document.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, (str, int, float, type(None))):
        raise bad_request("'id' must be a string")
    return InferRequest(
        columns=reader.columns,
        rows=reader.rows,
        request_id=None if request_id is None else str(request_id),
        budget=parameters.get("latency_budget_ms"),
        outputs=_outputs(document.get("outputs"), parameters),
    )


class _InputReader:
    """Collects the columns of one request."""

    def __init__(
        self, fields: Mapping[str, Field], limits: LimitsConfig, binary: memoryview
    ) -> None:
        self.columns: dict[str, Column] = {}
        self.rows = 0
        self._fields = fields
        self._limits = limits
        self._binary = binary
        self._position = 0
        self._listed = 0
        # Texts that the encoder splits, with what at.
        self._texts: list[tuple[Column, str | None]] = []

    def read(self, tensor: object) -> None:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise bad_request("every input must be an object with a 'name'")
        name = tensor["name"]
        field = self._fields.get(name)
        if field is None:
            raise bad_request(
                f"there is no field {name[:60]!r}; GET /v2/models/{MODEL_NAME} lists the fields"
            )
        if name in self.columns:
            raise bad_request(f"input {name!r} is given twice")
        spec = tensor_spec(field, tensor.get("datatype"), tensor.get("shape"))
        self._check_rows(spec)
        size = _mapping(tensor.get("parameters"), f"parameters of {name!r}").get("binary_data_size")
        chars = self._limits.max_string_chars
        if size is None:
            self.columns[name] = column_from_json(spec, tensor.get("data"), chars)
        else:
            self.columns[name] = column_from_bytes(spec, self._take(name, size), chars)
        if spec.datatype == "BYTES" and not spec.is_matrix:
            self._texts += [(self.columns[name], separator) for separator in field.separators]

    def finish(self) -> None:
        left = len(self._binary) - self._position
        if left:
            raise bad_request(f"{left} bytes of binary data belong to no input")
        texts = [(text, at) for column, at in self._texts for text in column if text]
        if self._listed + sum(most_values(text) for text, _ in texts) > _MAX_LISTED:
            for text, separator in texts:
                self._count_listed(len(split_text(text, separator)))

    def _check_rows(self, spec: TensorSpec) -> None:
        if spec.rows == 0:
            raise bad_request(f"input {spec.field.name!r} has no rows; send at least one")
        if spec.rows > self._limits.max_rows:
            error = bad_request(
                f"{spec.rows} rows are more than the {self._limits.max_rows} allowed in one request"
            )
            error.status = 413
            raise error
        self._count_listed(spec.size if spec.is_matrix else 0)
        if self.columns and spec.rows != self.rows:
            raise bad_request(
                f"input {spec.field.name!r} has {spec.rows} rows and the inputs before it "
                f"have {self.rows}"
            )
        self.rows = spec.rows

    def _count_listed(self, values: int) -> None:
        self._listed += values
        if self._listed > _MAX_LISTED:
            raise bad_request(
                f"the lists hold more than {_MAX_LISTED} values, which one request may bring in all"
            )

    def _take(self, name: str, size: object) -> memoryview:
        left = len(self._binary) - self._position
        if type(size) is not int or not 0 <= size <= left:
            raise bad_request(
                f"input {name!r} declares binary_data_size {str(size)[:40]}; the body holds "
                f"{left} more bytes"
            )
        start = self._position
        self._position += size
        return self._binary[start : start + size]


def _header_length(value: bytes, size: int) -> int:
    if not value.isdigit() or len(value) > 12 or int(value) > size:
        raise bad_request(
            f"{HEADER_LENGTH} is {value[:40].decode('latin-1')!r}; it must be a number of bytes "
            f"within the body of {size}"
        )
    return int(value)


def _mapping(value: object, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"{what} must be a JSON object")
    return value


def _outputs(requested: object, parameters: Mapping[str, Any]) -> tuple[tuple[str, bool], ...]:
    binary_default = _flag(parameters, "binary_data_output", False)
    if not requested:
        return tuple((name, binary_default) for name in OUTPUTS)
    if not isinstance(requested, list):
        raise bad_request("'outputs' must be a list")
    outputs: dict[str, bool] = {}
    for output in requested:
        name = output.get("name") if isinstance(output, dict) else None
        if name not in OUTPUTS:
            raise bad_request(
                f"there is no output {str(name)[:60]!r}; ask for {' or '.join(OUTPUTS)}"
            )
        asked = _mapping(output.get("parameters"), "parameters of an output")
        if asked.get("classification"):
            raise bad_request(f"output {name!r} has no classes; leave 'classification' out")
        outputs[name] = _flag(asked, "binary_data", binary_default)
    return tuple(outputs.items())


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise bad_request(f"the parameter {name!r} must be true or false")
    return value


def render_infer(
    request: InferRequest, scores: Scores, version: str, parameters: dict[str, Any]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON part when tensors follow it."""
    arrays = {"probability": scores.probability, "route": scores.route}
    outputs: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for name, binary in request.outputs:
        array = arrays[name]
        output: dict[str, Any] = {
            "name": name,
            "datatype": _DATATYPES[name],
            "shape": [len(array)],
        }
        if binary:
            packed = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
            output["parameters"] = {"binary_data_size": len(packed)}
            tail.append(packed)
        else:
            output["data"] = array
        outputs.append(output)
    document: dict[str, Any] = {
        "model_name": MODEL_NAME,
        "model_version": version,
        "parameters": parameters,
        "outputs": outputs,
    }
    if request.request_id is not None:
        document["id"] = request.request_id
    header = orjson.dumps(document, option=_JSON_OPTIONS)
    if not tail:
        return header, None
    return b"".join((header, *tail)), len(header)


def model_metadata(fields: Mapping[str, Field], version: str) -> dict[str, Any]:
    """The answer to `GET /v2/models/dynens`."""
    datatypes = {
        "categorical": "BYTES",
        "multi_valued": "BYTES",
        "numeric": "FP64",
        "dense_vector": "FP64",
    }
    inputs = [
        {
            "name": field.name,
            "datatype": datatypes[field.kind],
            "shape": [-1] if field.kind in ("categorical", "numeric") else [-1, -1],
        }
        for field in fields.values()
    ]
    return {
        "name": MODEL_NAME,
        "versions": [version],
        "platform": "dynens_onnxruntime",
        "inputs": inputs,
        "outputs": [
            {"name": name, "datatype": _DATATYPES[name], "shape": [-1]} for name in OUTPUTS
        ],
    }
