"""libsvm / svmlight text: `label index:value index:value …` per line."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from dynens.errors import DataError

MAX_COLUMNS = 1000
_LIST = "features"

Row = tuple[str, list[str], list[float]]


def iter_libsvm(
    path: Path, chunk_rows: int, known: Collection[str] | None = None
) -> Iterator[pa.Table]:
    """The rows as tables.

    Where all values are 1, or indices go beyond `MAX_COLUMNS`: columns `label` and `features` (the
    list of indices). Else `label` and one number per index, `f1`, `f2`, … (0 where a line does not
    name it).

    Args:
        path: the file, possibly compressed.
        chunk_rows: rows per table.
        known: names of the columns that the table has; one file need not show them.

    Raises:
        DataError: a line is malformed; it is named by number.
    """
    first, width = _columns(path, known or ())
    chunk: list[Row] = []
    for row in _rows(path):
        chunk.append(row)
        if len(chunk) == chunk_rows:
            yield _table(chunk, first, width)
            chunk = []
    if chunk:
        yield _table(chunk, first, width)


def _columns(path: Path, known: Collection[str]) -> tuple[int, int]:
    """(first, last) index that is a column, the last one 0 where a row is a list."""
    highest, all_ones, first = 0, True, 1
    for _, indices, values in _rows(path):
        first = 0 if "0" in indices else first
        highest = max(highest, *map(int, indices)) if indices else highest
        all_ones = all_ones and all(value == 1.0 for value in values)
    is_wide = highest > MAX_COLUMNS
    numbers = [int(name[1:]) for name in known if re.fullmatch("f[0-9]+", name)]
    if numbers:
        return min(first, *numbers), max(*numbers, 0 if is_wide else highest)
    return first, 0 if all_ones or is_wide or _LIST in known else highest


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
                if any(index.startswith("-") for index in indices):
                    raise ValueError("a negative index")
            except ValueError as e:
                raise DataError(
                    f"{path}: line {number} is not libsvm; write 'label index:value index:value'."
                ) from e
            yield text[0], indices, values


def _table(rows: list[Row], first: int, width: int) -> pa.Table:
    labels = pa.array([label for label, _, _ in rows], pa.string())
    if not width:
        indices = pa.array([indices for _, indices, _ in rows], pa.list_(pa.string()))
        return pa.table({"label": labels, _LIST: indices})
    matrix = np.zeros((width + 1, len(rows)))
    for i, (_, indices, values) in enumerate(rows):
        for index, value in zip(indices, values, strict=True):
            if int(index) <= width:
                matrix[int(index), i] = value
    columns = {f"f{j}": matrix[j] for j in range(first, width + 1)}
    return pa.table({"label": labels, **columns})
