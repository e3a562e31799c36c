"""libsvm / svmlight text: `label index:value index:value …` per line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from dynens.errors import DataError

MAX_COLUMNS = 1000

Row = tuple[str, list[str], list[float]]


def iter_libsvm(path: Path, chunk_rows: int) -> Iterator[pa.Table]:
    """The rows as tables.

    Where all values are 1, or indices go beyond `MAX_COLUMNS`: columns `label` and `features` (the
    list of indices). Else `label` and one number per index, `f1`, `f2`, … (0 where a line does not
    name it).

    Args:
        path: the file, possibly compressed.
        chunk_rows: rows per table.

    Raises:
        DataError: a line is malformed; it is named by number.
    """
    highest, all_ones, zero_based = 0, True, False
    for _, indices, values in _rows(path):
        zero_based = zero_based or "0" in indices
        highest = max(highest, *map(int, indices)) if indices else highest
        all_ones = all_ones and all(value == 1.0 for value in values)
    width = 0 if all_ones or highest > MAX_COLUMNS else highest
    chunk: list[Row] = []
    for row in _rows(path):
        chunk.append(row)
        if len(chunk) == chunk_rows:
            yield _table(chunk, width, 0 if zero_based else 1)
            chunk = []
    if chunk:
        yield _table(chunk, width, 0 if zero_based else 1)


def _rows(path: Path) -> Iterator[Row]:
    """(label, indices, values) of every line that is not blank."""
    with pa.input_stream(str(path), compression="detect") as stream:
        for number, line in enumerate(io.TextIOWrapper(stream, encoding="utf-8"), start=1):
            text = line.split("#", 1)[0].split()
            if not text:
                continue
            pairs = [pair.partition(":") for pair in text[1:] if not pair.startswith("qid:")]
            try:
                values = [float(value) for _, _, value in pairs]
                indices = [str(int(index)) for index, _, _ in pairs]
            except ValueError as e:
                raise DataError(
                    f"{path}: line {number} is not libsvm; write 'label index:value index:value'."
                ) from e
            yield text[0], indices, values


def _table(rows: list[Row], width: int, first: int) -> pa.Table:
    labels = pa.array([label for label, _, _ in rows], pa.string())
    if not width:
        indices = pa.array([indices for _, indices, _ in rows], pa.list_(pa.string()))
        return pa.table({"label": labels, "features": indices})
    matrix = np.zeros((width + 1, len(rows)))
    for i, (_, indices, values) in enumerate(rows):
        matrix[[int(index) for index in indices], i] = values
    columns = {f"f{j}": matrix[j] for j in range(first, width + 1)}
    return pa.table({"label": labels, **columns})
