"""Named tensors of the Open Inference Protocol to raw columns, from JSON and from bytes.

A column is what the row encoder takes: a list of N values, or N lists for multi-valued fields and
dense vectors. A multi-valued field may also come as one text per row, as in a table; the encoder
splits it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynens.schema import FieldKind
from serving.errors import bad_request

Column = list[Any]

INTEGER_TYPES: dict[str, np.dtype[Any]] = {
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
}
FLOAT_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
NUMBER_TYPES = INTEGER_TYPES | FLOAT_TYPES
FIXED_TYPES = NUMBER_TYPES | {"BOOL": np.dtype("?")}
_ACCEPTED: dict[FieldKind, frozenset[str]] = {
    # No FP32, which would make other ids of those beyond 2^24.
    "categorical": frozenset({"BYTES", *FIXED_TYPES} - {"FP32"}),
    "multi_valued": frozenset({"BYTES", *FIXED_TYPES} - {"FP32"}),
    "numeric": frozenset({"BYTES", *FIXED_TYPES}),
    "dense_vector": frozenset({"BYTES", *NUMBER_TYPES}),
}
_LENGTH_BYTES = 4
MAX_WIDTH = 1000
"""Most values that one row of a list or vector may have."""


@dataclass(frozen=True)
class Field:
    """One raw input of the model.

    Attributes:
        name: name of the raw column.
        kind: what values it holds.
        entity: whose property it is: "user", "item" or "context".
        separators: at which the encoder splits its texts into lists, once at each.
    """

    name: str
    kind: FieldKind
    entity: str = "context"
    separators: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """What a request says about one input tensor."""

    field: Field
    datatype: str
    shape: tuple[int, ...]

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_matrix(self) -> bool:
        """False also for lists and vectors of one text per row, which the encoder splits."""
        kind, is_wide = self.field.kind, len(self.shape) == 2
        is_text = self.datatype == "BYTES"
        return is_wide and (kind == "multi_valued" or (kind == "dense_vector" and not is_text))


def tensor_spec(field: Field, datatype: object, shape: object) -> TensorSpec:
    """Check datatype and shape of an input.

    Args:
        field: the model's field of that name.
        datatype: as the request gives it.
        shape: as the request gives it.

    Raises:
        RequestError: 400, with the rule that is broken.
    """
    name = field.name
    if not isinstance(datatype, str) or datatype not in _ACCEPTED[field.kind]:
        raise bad_request(
            f"input {name!r} has datatype {_quoted(datatype)}; a {field.kind} field takes "
            f"{', '.join(sorted(_ACCEPTED[field.kind]))}"
        )
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= 2
        or not all(type(n) is int and n >= 0 for n in shape)
        or max(shape[1:], default=0) > MAX_WIDTH
    ):
        raise bad_request(
            f"input {name!r} has shape {_quoted(shape)}; it must be [N] or [N, L] with L at most "
            f"{MAX_WIDTH}"
        )
    spec = TensorSpec(field, datatype, tuple(shape))
    if field.kind in ("multi_valued", "dense_vector") and datatype != "BYTES" and len(shape) != 2:
        raise bad_request(
            f"input {name!r} has shape {_quoted(shape)}; a {field.kind} field takes [N, L]"
        )
    one_per_row = field.kind != "multi_valued" and not spec.is_matrix
    if one_per_row and len(shape) == 2 and shape[1] != 1:
        raise bad_request(f"input {name!r} has shape {_quoted(shape)}; it must be [N] or [N, 1]")
    return spec


def column_from_json(spec: TensorSpec, data: object, max_string_chars: int) -> Column:
    """The column in a JSON `data` array, flat or nested by row.

    Raises:
        RequestError: 400 for a wrong count or type, an integer beyond its datatype's range, or a
            text beyond the limit.
    """
    if not isinstance(data, list):
        raise bad_request(f"input {spec.field.name!r} has no 'data' array")
    flat = data
    if len(spec.shape) == 2 and data and isinstance(data[0], list):
        flat = _flatten(spec, data)
    if len(flat) != spec.size:
        raise bad_request(
            f"input {spec.field.name!r} has {len(flat)} values; its shape "
            f"{list(spec.shape)} asks for {spec.size}"
        )
    if spec.datatype == "BYTES":
        _check_texts(spec, flat, max_string_chars)
    elif spec.datatype in FLOAT_TYPES:
        _check_types(spec, flat, {int, float, type(None)}, "numbers")
    elif spec.datatype == "BOOL":
        _check_types(spec, flat, {bool, type(None)}, "truth values")
    else:
        _check_integers(spec, flat)
    if not spec.is_matrix:
        return flat
    if spec.field.kind == "multi_valued":
        return _lists(flat, spec)
    return _float_rows(np.array(flat, np.float64), spec)


def column_from_bytes(spec: TensorSpec, data: memoryview, max_string_chars: int) -> Column:
    """The column in a tensor's binary form.

    Numbers are little-endian and packed; a BYTES element is its length (4 bytes) and its UTF-8.

    Raises:
        RequestError: 400 when the size or the framing does not fit the shape.
    """
    if spec.datatype == "BYTES":
        texts = _texts_from_bytes(spec, data, max_string_chars)
        return _lists(texts, spec) if spec.is_matrix else texts
    dtype = FIXED_TYPES[spec.datatype]
    if len(data) != spec.size * dtype.itemsize:
        raise bad_request(
            f"input {spec.field.name!r} has {len(data)} bytes; {spec.size} values of "
            f"{spec.datatype} take {spec.size * dtype.itemsize}"
        )
    array = np.frombuffer(data, dtype)
    if spec.field.kind == "dense_vector":
        return _float_rows(array.astype(np.float64), spec)
    values: Column = array.tolist()
    return _lists(values, spec) if spec.is_matrix else values


def _flatten(spec: TensorSpec, rows: list[Any]) -> list[Any]:
    count, width = spec.shape
    if len(rows) != count or not all(type(row) is list and len(row) == width for row in rows):
        raise bad_request(
            f"input {spec.field.name!r} has nested data that is not {count} rows of {width} values"
        )
    return [value for row in rows for value in row]


def _check_texts(spec: TensorSpec, values: list[Any], max_chars: int) -> None:
    try:
        # One join checks every type, and bounds every length when the total is small.
        total = len("".join(values))
    except TypeError:
        _check_types(spec, values, {str, type(None)}, "strings")
        total = max_chars + 1
    if total > max_chars and any(v is not None and len(v) > max_chars for v in values):
        raise bad_request(
            f"input {spec.field.name!r} has a string longer than {max_chars} characters"
        )


def _check_types(spec: TensorSpec, values: list[Any], types: set[type], words: str) -> None:
    if not types.issuperset(map(type, values)):
        raise bad_request(
            f"input {spec.field.name!r} of datatype {spec.datatype} must hold {words}"
        )


def _check_integers(spec: TensorSpec, values: list[Any]) -> None:
    """Binary data cannot hold an integer beyond the range; JSON can."""
    limits = np.iinfo(INTEGER_TYPES[spec.datatype])
    words = f"integers from {limits.min} to {limits.max}"
    _check_types(spec, values, {int, type(None)}, words)
    given = [v for v in values if v is not None] if None in values else values
    if given and not limits.min <= min(given) <= max(given) <= limits.max:
        raise bad_request(
            f"input {spec.field.name!r} of datatype {spec.datatype} must hold {words}"
        )


def _lists(flat: Sequence[Any], spec: TensorSpec) -> Column:
    """N lists without padding (empty strings)."""
    rows, width = spec.shape
    if spec.datatype != "BYTES":
        return [list(flat[i * width : (i + 1) * width]) for i in range(rows)]
    return [[v for v in flat[i * width : (i + 1) * width] if v] for i in range(rows)]


def _float_rows(flat: np.ndarray[Any, np.dtype[np.float64]], spec: TensorSpec) -> Column:
    return list(flat.reshape(spec.shape))


def _texts_from_bytes(spec: TensorSpec, data: memoryview, max_chars: int) -> list[str]:
    try:
        texts = _equal_length_texts(spec, data)
        if texts is None:
            texts = _framed_texts(spec, data)
    except UnicodeDecodeError as e:
        raise bad_request(f"input {spec.field.name!r} has a string that is not UTF-8") from e
    _check_texts(spec, texts, max_chars)
    return texts


def _equal_length_texts(spec: TensorSpec, data: memoryview) -> list[str] | None:
    """All elements at once where they have one length (ids often do), else None."""
    if spec.size == 0 or len(data) % spec.size:
        return None
    stride = len(data) // spec.size
    if stride <= _LENGTH_BYTES:
        return None
    table = np.frombuffer(data, np.uint8).reshape(spec.size, stride)
    length = (stride - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "little")
    if not (table[:, :_LENGTH_BYTES] == np.frombuffer(length, np.uint8)).all():
        return None
    packed = table[:, _LENGTH_BYTES:].tobytes()
    width = stride - _LENGTH_BYTES
    if packed.isascii():
        text = packed.decode("ascii")
        return [text[i : i + width] for i in range(0, len(text), width)]
    return [packed[i : i + width].decode() for i in range(0, len(packed), width)]


def _framed_texts(spec: TensorSpec, data: memoryview) -> list[str]:
    raw = bytes(data)
    texts, position, end = [], 0, len(raw)
    for _ in range(spec.size):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "little")
        if start > end or position > end:
            break
        texts.append(raw[start:position].decode())
    if len(texts) != spec.size or position != end:
        raise bad_request(
            f"input {spec.field.name!r} has binary data that is not {spec.size} "
            "length-prefixed strings"
        )
    return texts


def _quoted(value: object) -> str:
    """A short quotation of something the client sent."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
