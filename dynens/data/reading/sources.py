"""Tables in: CSV, TSV, Parquet, Arrow IPC and libsvm, plain or compressed, read in chunks.

Text files are read as text: what a value means is decided by the schema (`values.py`), never by
the block of the file it happens to stand in.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from dynens.data.reading.decoding import begins_as_utf8, decoded_table
from dynens.data.reading.escapes import (
    doubled,
    has_escapes,
    has_spaces_before_quotes,
    without_spaces,
)
from dynens.data.reading.flatten import flat, holding, holds_categories
from dynens.data.reading.heads import (
    BLOCK_BYTES,
    Head,
    check_names,
    distinct,
    head_of,
    is_named,
    names_in,
    text_stream,
    told_ragged,
)
from dynens.data.reading.libsvm import iter_libsvm
from dynens.data.reading.objects import opened
from dynens.data.reading.split_dates import dated, read_for
from dynens.data.reading.stacking import stack
from dynens.data.reading.values import NULL_SPELLINGS
from dynens.errors import DataError
from dynens.schema import DEFAULT_SOURCE, SourceOptions

CHUNK_ROWS = 131_072
_COMPRESSED = (".gz", ".zst", ".zstd", ".bz2", ".lz4")
_TYPED = (".parquet", ".pq")
_TABLES = (*_TYPED, ".csv", ".tsv", ".txt", ".arrow", ".feather", *_COMPRESSED)
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that names and globs stand for, in order; a folder of Parquet files is one table.

    Raises:
        DataError: one of them matches nothing, or is a folder of other files.
    """
    files: list[Path] = []
    for pattern in patterns:
        if not pattern.strip():
            raise DataError("a table is named by an empty text; give an existing table.")
        path = Path(pattern)
        if os.path.isfile(path):
            files.append(path)
            continue
        if os.path.isdir(path):
            path = Path(_pattern_for(path))
            if path.suffix not in _TYPED:
                raise DataError(f"{pattern} is a folder; give a file or a pattern such as {path}.")
        found = _matches(path)
        if not found:
            what = "is not a file" if os.path.exists(path) else "does not exist"
            raise DataError(f"{pattern} {what}; give an existing table.")
        files += found
    return files


def table_name(pattern: str) -> str:
    """A file's name, or its folder's where a pattern stands for several, without an ending."""
    parts = [part for part in Path(pattern).parts if glob.escape(part) == part]
    return Path(*parts).name.split(".")[0] or "dataset"


def _matches(pattern: Path) -> list[Path]:
    """The files of a glob in order; folders that exist are meant as they are spelled.

    A wildcard does not stand for names with `_` in front, such as Spark's `_SUCCESS`.
    """
    folder = next(parent for parent in pattern.parents if os.path.isdir(parent))
    rest = pattern.relative_to(folder)
    names = glob.glob(str(rest), root_dir=folder, recursive=True)
    if not _is_hidden(rest):
        names = [name for name in names if not _is_hidden(Path(name))]
    return sorted(folder / name for name in names if os.path.isfile(folder / name))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith("_") for part in path.parts)


def _pattern_for(folder: Path) -> str:
    """A pattern for the tables of a folder: the ending of its first table, or file, or below."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        endings = [Path(n).suffix for n in sorted(names) if n[0] not in "._" and Path(n).suffix]
        if endings:
            below = "" if Path(parent) == folder else "**/"
            return f"{folder}/{below}*{min(endings, key=lambda one: one not in _TABLES)}"
    return f"{folder}/*.csv"


def file_format(path: Path) -> str:
    """`csv`, `parquet`, `arrow` or `libsvm`, by suffix and, where that says nothing, by content."""
    name = path.name.lower()
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    suffix = Path(name).suffix
    if suffix in _TYPED:
        return "parquet"
    if suffix in (".arrow", ".feather", ".ipc", ".arrows"):
        return "arrow"
    if suffix in (".libsvm", ".svm", ".svmlight"):
        return "libsvm"
    try:
        with path.open("rb") as file:
            start = file.read(6)
    except OSError as e:
        raise DataError(f"{path} cannot be read ({e.strerror}); give a readable table.") from e
    return {b"PAR1": "parquet", b"ARRO": "arrow"}.get(start[:4], "csv")


def iter_tables(
    patterns: Sequence[str],
    options: SourceOptions = DEFAULT_SOURCE,
    *,
    columns: Sequence[str] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    verbatim: bool = False,
    known: Collection[str] | None = None,
) -> Iterator[tuple[Path, pa.Table]]:
    """The rows of all files in order, in chunks, each with the file it comes from.

    Args:
        patterns: files and globs.
        options: layout of text files.
        columns: only these (those a file does not have are left out); None: all.
        chunk_rows: rows of a chunk at most (text files: about `BLOCK_BYTES` of text).
        verbatim: leave `NA`, `?` and the like as they stand in text files; they mean the same.
        known: columns that the table has (libsvm, of which one file need not show them); None:
            `columns`.

    Raises:
        DataError: a file is missing, empty, unreadable or malformed.
    """
    read = read_for(columns, options.dates)
    for path in expand(patterns):
        rows = 0
        with explained(path):
            for table in _iter_file(path, options, read, chunk_rows, verbatim, known):
                rows += table.num_rows
                if table.num_rows:
                    yield path, _select(_whole(table, path, options, read), columns)
        if rows == 0:
            raise DataError(f"{path} is empty: it has no rows; give a table with rows.")


def read_table(patterns: Sequence[str], options: SourceOptions = DEFAULT_SOURCE) -> pa.Table:
    """All rows of the files as one table (text files: every column is text).

    Raises:
        DataError: as `iter_tables`, or the files' columns differ.
    """
    return stack([table for _, table in iter_tables(patterns, options)], patterns[0])


def read_head(patterns: Sequence[str], options: SourceOptions, num_rows: int) -> pa.Table:
    """The first `num_rows` rows of the first files."""
    tables, rows = [], 0
    for _, table in iter_tables(patterns, options):
        tables.append(table.slice(0, num_rows - rows))
        rows += tables[-1].num_rows
        if rows >= num_rows:
            break
    return stack(tables, patterns[0])


def read_sample(
    patterns: Sequence[str], options: SourceOptions, num_rows: int
) -> tuple[pa.Table, float]:
    """(rows at even distances over all files, in order, at most `2 * num_rows` of them; distance).

    A file sorted by label or time gives its beginning away as little as its end.
    """
    tables: list[pa.Table] = []
    step, seen, held = 1, 0, 0
    for _, table in iter_tables(patterns, options):
        tables.append(_every(table, -seen % step, step))
        seen += table.num_rows
        held += tables[-1].num_rows
        while held > 2 * num_rows:
            tables = [_every(stack(tables, patterns[0]), 0, 2)]
            step, held = 2 * step, tables[0].num_rows
    return stack(tables, patterns[0]), float(step)


def not_utf8(patterns: Sequence[str]) -> list[Path]:
    """Text files whose texts are not all UTF-8, by their beginnings.

    Raises:
        DataError: a file is missing or unreadable.
    """
    found = []
    for path in expand(patterns):
        with explained(path):
            if file_format(path) == "csv" and not begins_as_utf8(path):
                found.append(path)
    return found


def _every(table: pa.Table, first: int, step: int) -> pa.Table:
    if step == 1:
        return table
    return table.take(pa.array(np.arange(first, table.num_rows, step)))


def file_schema(
    path: Path, options: SourceOptions = DEFAULT_SOURCE, known: Collection[str] | None = None
) -> pa.Schema:
    """Columns and types of one file (text files: all text); `known` as of `iter_tables`.

    Raises:
        DataError: it is empty or cannot be read.
    """
    if path.stat().st_size and file_format(path) == "parquet":
        with explained(path):
            schema = pq.read_schema(path)
        return _whole(schema.empty_table(), path, options, None).schema
    return next(iter_tables([str(path)], options, chunk_rows=1, known=known))[1].schema


def _iter_file(
    path: Path,
    options: SourceOptions,
    columns: Collection[str] | None,
    chunk_rows: int,
    verbatim: bool,
    known: Collection[str] | None,
) -> Iterator[pa.Table]:
    kind = file_format(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; give a table with a header and rows.")
    if kind == "parquet":
        yield from _iter_parquet(path, columns, chunk_rows)
    elif kind == "arrow":
        yield from _iter_arrow(path)
    elif kind == "libsvm":
        yield from iter_libsvm(path, chunk_rows, known or columns)
    else:
        yield from _iter_csv(path, options, columns, [""] if verbatim else NULL_SPELLINGS)


def _whole(
    table: pa.Table, path: Path, options: SourceOptions, columns: Collection[str] | None
) -> pa.Table:
    """A file's table with the columns that others hold, its folders' and dates in parts."""
    table = _with_partitions(opened(flat(table), options.objects), path, columns)
    return dated(table, options.dates)


def _with_partitions(table: pa.Table, path: Path, columns: Collection[str] | None) -> pa.Table:
    """The table with the columns that its folders are named by (`country=DE/`, as Hive does)."""
    for name, value in partitions_of(path).items():
        if name not in table.column_names and (columns is None or name in columns):
            table = table.append_column(name, pa.array([value] * len(table), pa.string()))
    return table


def partitions_of(path: Path) -> dict[str, str | None]:
    """Columns and values in the names of a file's folders."""
    pairs = (part.partition("=") for part in path.parts[:-1])
    found = {unquote(name): unquote(value) for name, equals, value in pairs if name and equals}
    return {name: None if value == _NO_PARTITION else value for name, value in found.items()}


def _iter_parquet(
    path: Path, columns: Collection[str] | None, chunk_rows: int
) -> Iterator[pa.Table]:
    with pq.ParquetFile(path) as file:
        names, kinds = file.schema_arrow.names, file.schema_arrow.types
        check_names(path, names)
        # Arrow cannot read categories in structs beyond one group of rows.
        one_by_one = any(holds_categories(kind) for kind in kinds)
        for groups in [[i] for i in range(file.num_row_groups)] if one_by_one else [None]:
            for batch in file.iter_batches(chunk_rows, groups, columns=holding(names, columns)):
                yield pa.Table.from_batches([batch])


def _iter_arrow(path: Path) -> Iterator[pa.Table]:
    with pa.input_stream(str(path), compression="detect") as stream:
        is_file = stream.read(6) == b"ARROW1"
    if not is_file:
        with pa.input_stream(str(path), compression="detect") as stream:
            reader = ipc.open_stream(stream)
            check_names(path, reader.schema.names)
            for batch in reader:
                yield pa.Table.from_batches([batch])
        return
    source: str | bytes = str(path)
    if path.suffix.lower() in _COMPRESSED:  # no place in it can be sought
        with pa.input_stream(str(path), compression="detect") as stream:
            source = stream.read()
    with ipc.open_file(source) as reader:
        check_names(path, reader.schema.names)
        for i in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(i)])


def _select(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return table
    return table.select([n for n in table.column_names if n in set(columns)])


def _iter_csv(
    path: Path,
    options: SourceOptions,
    columns: Collection[str] | None,
    null_values: Sequence[str],
) -> Iterator[pa.Table]:
    head = head_of(path, options)
    names = distinct(names_in(path, head)) if options.header else list(options.columns)
    check_names(path, names, is_text=True)
    named = [name for name in names if is_named(name) or not options.header]
    wanted = holding(named, columns)
    parse = pacsv.ParseOptions(
        delimiter=head.delimiter,
        quote_char='"' if options.quoting else False,
        newlines_in_values=options.quoting,
    )
    read = pacsv.ReadOptions(
        column_names=names,
        skip_rows=head.num_lines,
        block_size=BLOCK_BYTES,
        use_threads=False,
    )
    convert = pacsv.ConvertOptions(
        column_types={name: pa.binary() for name in names},
        include_columns=wanted,
        null_values=list(null_values),
        strings_can_be_null=True,
    )
    try:
        with _rows_stream(path, head, options) as stream:
            reader = pacsv.open_csv(
                stream, read_options=read, parse_options=parse, convert_options=convert
            )
            for batch in reader:
                yield decoded_table(pa.Table.from_batches([batch]))
    except pa.ArrowInvalid as e:
        # Not by a handler of such rows: Arrow's threads may let go of it when Python is gone.
        ragged = told_ragged(path, head, str(e))
        if ragged is None:
            raise
        raise DataError(ragged) from e


def _rows_stream(path: Path, head: Head, options: SourceOptions) -> pa.NativeFile:
    """The bytes of a text file: quotes in values doubled, no spaces before quotes around them."""
    rows = text_stream(path)
    if options.quoting:
        with text_stream(path) as stream:
            start = bytes(stream.read(BLOCK_BYTES))
        if has_escapes(start, head.delimiter):
            rows = doubled(rows)
        if has_spaces_before_quotes(start, head.delimiter):
            rows = without_spaces(rows, head.delimiter)
    return rows


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what readers raise into one sentence about the file."""
    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, EOFError, ValueError) as e:
        raise DataError(_explain(path, e)) from e


def _explain(path: Path, error: Exception) -> str:
    detail = " ".join(str(error).split())
    lowered = detail.lower()
    if "truncated" in lowered or isinstance(error, EOFError) or "unexpected end" in lowered:
        return f"{path} is truncated: its compressed data end too early; copy it again."
    return f"{path} cannot be read as a table ({detail[:160]}); give CSV, Parquet or Arrow."
