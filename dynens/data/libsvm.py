"""libsvm / svmlight text: `label index:value index:value …` per line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from dynens.errors import DataError


def iter_libsvm(path: Path, stream: pa.NativeFile, chunk_rows: int) -> Iterator[pa.Table]:
    """Tables with columns `label`, `features` (lists of indices) and `values` (of their values).

    Args:
        path: for messages.
        stream: the (decompressed) bytes.
        chunk_rows: rows per table.

    Raises:
        DataError: a line is malformed; it is named by number.
    """
    labels: list[str] = []
    indices: list[list[str]] = []
    values: list[list[float]] = []
    for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8"), start=1):
        text = line.split("#", 1)[0].split()
        if not text:
            continue
        pairs = [pair.partition(":") for pair in text[1:] if not pair.startswith("qid:")]
        try:
            values.append([float(value) for _, _, value in pairs])
        except ValueError as e:
            raise DataError(
                f"{path}: line {number} is not libsvm; write 'label index:value index:value'."
            ) from e
        labels.append(text[0])
        indices.append([index for index, _, _ in pairs])
        if len(labels) == chunk_rows:
            yield _table(labels, indices, values)
            labels, indices, values = [], [], []
    if labels:
        yield _table(labels, indices, values)


def _table(labels: list[str], indices: list[list[str]], values: list[list[float]]) -> pa.Table:
    return pa.table(
        {
            "label": pa.array(labels, pa.string()),
            "features": pa.array(indices, pa.list_(pa.string())),
            "values": pa.array(values, pa.list_(pa.float32())),
        }
    )
