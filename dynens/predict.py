"""Batch prediction: a file in, the same rows with probability and route out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dynens.config.serving import System
from dynens.data.inputs import InputFiles
from dynens.data.prepared import open_prepared
from dynens.data.reading.sources import expand, iter_tables
from dynens.engine import Engine
from dynens.errors import BadInputError, DataError, about
from dynens.run import RunDirectory, no_empty_folders

FORMATS = (".csv", ".parquet")
ADDED = ("probability", "route")


class TableWriter(Protocol):
    def write_table(self, table: pa.Table) -> object: ...

    def close(self) -> object: ...


def predict_file(
    run: RunDirectory,
    source: str,
    out: Path,
    system: System,
    warn: Callable[[str], None] | None = None,
) -> int:
    """Score every row of `source` and write it with `probability` and `route` columns.

    Args:
        run: a finished run.
        source: CSV, Parquet or any other table `fit` reads, or a glob of such with the same
            columns; entity columns may be absent when the key is there.
        out: `.csv` or `.parquet`; appears only when it is complete.
        system: what answers.
        warn: told what counts as missing, and why.

    Returns:
        Rows written.

    Raises:
        BadInputError: `out` has another ending, is the source itself, cannot be written or cannot
            hold the columns.
        DataError: the source cannot be read, or is no table like the run's.
        BundleError: the run is unfinished.
    """
    if os.path.isdir(out):
        raise BadInputError(f"--out {out} is a folder; name a file that ends in .csv or .parquet.")
    if out.suffix not in FORMATS:
        raise BadInputError(f"--out {out} ends in {out.suffix!r}; use .csv or .parquet.")
    if os.path.realpath(out) in map(os.path.realpath, expand([source])):
        raise BadInputError(f"--out {out} is the table to score; choose another file.")
    engine = Engine.load(run.root)
    files = InputFiles(source, open_prepared(run.data).dataset, engine.encoder)
    schema = _common_schema(files)
    with no_empty_folders(out.parent):
        rows = _write(_predictions(files, schema, engine, system), out, source)
    if warn:
        for warning in files.warnings:
            warn(warning)
    return rows


def _write(tables: Iterator[pa.Table], out: Path, source: str) -> int:
    """Write the tables to `out`, under a temporary name until they are complete; their rows."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer: TableWriter | None = None
    schema: pa.Schema | None = None
    rows = 0
    try:
        for table in tables:
            if writer is None:
                schema = table.schema
                writer = _open(temporary, out.suffix, schema)
            writer.write_table(table.cast(schema))
            rows += table.num_rows
        if writer is None:
            raise BadInputError(f"{source} holds no rows; give a table with at least one.")
        writer.close()
        writer = None
        os.replace(temporary, out)
    except OSError as e:
        raise BadInputError(
            f"{out} cannot be written ({e.strerror or e}); choose another --out."
        ) from e
    except pa.ArrowException as e:  # lists and structs, in CSV
        detail = " ".join(str(e).split())[:160]
        raise BadInputError(
            f"{out} cannot hold a column of {source} ({detail}); give an --out that ends in "
            ".parquet."
        ) from e
    finally:
        if writer is not None:
            writer.close()
        with contextlib.suppress(OSError):  # a folder that is a file, a name too long
            temporary.unlink()
    return rows


def _common_schema(files: InputFiles) -> pa.Schema | None:
    """The columns of several files, in the first one's order and types that fit all; else None.

    Raises:
        DataError: the files have different columns, or types that do not go together.
    """
    paths, options = expand([files.source]), files.layout
    if len(paths) == 1:
        return None
    heads = (
        next(iter_tables([str(p)], options, chunk_rows=1, verbatim=True, known=files.known))
        for p in paths
    )
    schemas = {path: table.schema for path, table in heads}
    for path, schema in schemas.items():
        if other := set(schema.names) ^ set(schemas[paths[0]].names):
            raise DataError(
                f"only one of {paths[0]} and {path} has a column {min(other)!r}; predict them one "
                "by one, or give them the same columns."
            )
    try:
        return pa.unify_schemas(list(schemas.values()), promote_options="permissive")
    except pa.ArrowException as e:
        detail = str(e).splitlines()[0]
        raise DataError(
            f"the files of {files.source} do not fit together ({detail}); predict them one by one."
        ) from e


def _aligned(table: pa.Table, schema: pa.Schema, source: str) -> pa.Table:
    """The rows in the order and types of `schema`."""
    columns = []
    for field in schema:
        column = table[field.name]
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowException as e:
            raise DataError(
                f"column {field.name!r} of {source} is {field.type} in one file and {column.type} "
                "in another, with values that do not go together; predict the files one by one."
            ) from e
    return pa.table(columns, schema=schema)


def _predictions(
    files: InputFiles, schema: pa.Schema | None, engine: Engine, system: System
) -> Iterator[pa.Table]:
    taken: list[str] = []
    for table, readable in files.tables():
        with about(files.source):
            encoded = engine.encoder.encode_table(readable)
        rows = files.encoded(encoded)
        scores = engine.score(rows, system=system)
        taken = [name for name in ADDED if name in table.column_names]
        columns = (pa.array(scores.probability), pa.array(scores.route))
        table = table if schema is None else _aligned(table, schema, files.source)
        table = table.drop_columns(taken)
        for name, values in zip(ADDED, columns, strict=True):
            table = table.append_column(name, values)
        yield table
    if taken:
        verb = "is" if len(taken) == 1 else "are"
        files.warnings.append(f"{files.source}: its own {' and '.join(taken)} {verb} replaced")


def _open(path: Path, suffix: str, schema: pa.Schema) -> TableWriter:
    path.parent.mkdir(parents=True, exist_ok=True)
    open_file = pq.ParquetWriter if suffix == ".parquet" else pa_csv.CSVWriter
    writer: TableWriter = open_file(str(path), schema)
    return writer
