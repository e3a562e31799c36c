"""Batch prediction: a file in, the same rows with probability and route out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dynens.config.serving import System
from dynens.data.prepared import open_prepared
from dynens.data.sources import iter_tables
from dynens.engine import Engine
from dynens.errors import BadInputError, DataError
from dynens.run import RunDirectory

FORMATS = (".csv", ".parquet")


class TableWriter(Protocol):
    def write_table(self, table: pa.Table) -> object: ...

    def close(self) -> object: ...


def predict_file(run: RunDirectory, source: str, out: Path, system: System) -> int:
    """Score every row of `source` and write it with `probability` and `route` columns.

    Args:
        run: a finished run.
        source: CSV, Parquet or any other table `fit` reads; entity columns may be absent when the
            key is there.
        out: `.csv` or `.parquet`; appears only when it is complete.
        system: what answers.

    Returns:
        Rows written.

    Raises:
        BadInputError: `out` has another ending or cannot be written.
        DataError: the source cannot be read.
        BundleError: the run is unfinished.
    """
    if out.suffix not in FORMATS:
        raise BadInputError(f"--out {out} ends in {out.suffix!r}; use .csv or .parquet.")
    engine = Engine.load(run.root)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer: TableWriter | None = None
    rows = 0
    try:
        for table in _predictions(run, engine, source, system):
            if writer is None:
                writer = _open(temporary, out.suffix, table.schema)
            writer.write_table(table.cast(writer.schema))  # type: ignore[attr-defined]
            rows += table.num_rows
        if writer is None:
            raise BadInputError(f"{source} holds no rows; give a table with at least one.")
        writer.close()
        writer = None
        os.replace(temporary, out)
    except OSError as e:
        raise BadInputError(f"{out} cannot be written ({e.strerror or e}).") from e
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    return rows


def _predictions(
    run: RunDirectory, engine: Engine, source: str, system: System
) -> Iterator[pa.Table]:
    options = open_prepared(run.data).dataset.source
    known = {field.name for field in engine.encoder.input_fields}
    for _, table in iter_tables([source], options):
        if not known & set(table.column_names):
            raise DataError(
                f"{source} has none of the model's columns ({', '.join(sorted(known)[:8])}, …); "
                "give a table like the one the run was trained on."
            )
        scores = engine.score(engine.encoder.encode_table(table), system=system)
        kept = table.drop_columns([c for c in ("probability", "route") if c in table.column_names])
        yield kept.append_column("probability", pa.array(scores.probability)).append_column(
            "route", pa.array(scores.route)
        )


class _CSVWriter:
    """A CSV writer that remembers its schema, as Parquet's does."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pa_csv.CSVWriter(str(path), schema)

    def write_table(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def close(self) -> None:
        self._writer.close()


def _open(path: Path, suffix: str, schema: pa.Schema) -> TableWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".parquet":
        writer: TableWriter = pq.ParquetWriter(str(path), schema)
        return writer
    return _CSVWriter(path, schema)
