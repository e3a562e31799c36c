"""First pass over the raw files: check, label, and set the needed columns down as Arrow."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.data.entities import RawEntity
from dynens.data.labels import LabelReader
from dynens.data.sources import expand, file_schema, iter_tables
from dynens.data.times import to_seconds
from dynens.data.values import canonical_codes, plain, to_numbers
from dynens.errors import DataError, SchemaError
from dynens.schema import DatasetConfig, FeatureSchema

MAX_UNREADABLE_SHARE = 0.01


@dataclass
class Report:
    """What was found on the way and dealt with: shown to the user, kept with the data."""

    rows_read: int = 0
    rows_without_label: int = 0
    rows_dropped: int = 0
    non_finite: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows_read": self.rows_read,
            "rows_without_label": self.rows_without_label,
            "rows_dropped": self.rows_dropped,
            "non_finite_as_missing": dict(self.non_finite),
            "unreadable_numbers_as_missing": dict(self.unreadable),
        }


@dataclass
class Staged:
    """The rows that stay, raw columns on disk and what splitting needs in memory.

    Attributes:
        path: the Arrow file.
        label_codes: (N,) int16, meaning by `reader.labels_by_code()`.
        given: (N,) int8 part each row's file was given as.
        times: (N,) float64 seconds, or None.
        groups: (N,) int64, or None.
        weights: (N,) float32, or None.
        columns: names of the raw columns on disk.
        report: what was found.
    """

    path: Path
    reader: LabelReader
    label_codes: npt.NDArray[np.int16]
    given: npt.NDArray[np.int8]
    times: npt.NDArray[np.float64] | None
    groups: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    columns: list[str]
    report: Report

    def chunks(self) -> Iterator[tuple[slice, pa.Table]]:
        """The raw rows in order, each chunk with its range of rows."""
        start = 0
        with pa.OSFile(str(self.path)) as file, ipc.open_file(file) as reader:
            for i in range(reader.num_record_batches):
                table = pa.Table.from_batches([reader.get_batch(i)])
                yield slice(start, start + table.num_rows), table
                start += table.num_rows


def stage(config: DatasetConfig, entities: Sequence[RawEntity], path: Path) -> Staged:
    """Read every file once.

    Raises:
        DataError: a file or the label is bad, or a column changes type between files.
        SchemaError: the schema names a column that is nowhere.
    """
    parts = [config.files, config.valid_files, config.test_files]
    files = [(code, file) for code, names in enumerate(parts) for file in expand(names)]
    schema = _unified_schema([file for _, file in files], config, entities)
    stager = _Stager(config.features, schema, path)
    try:
        for code, file in files:
            stager.begin_file(file)
            for _, table in iter_tables([str(file)], config.source, columns=schema.names):
                stager.add(table, code)
            stager.end_file()
    finally:
        stager.close()
    return stager.result()


class _Stager:
    def __init__(self, features: FeatureSchema, schema: pa.Schema, path: Path) -> None:
        self._features = features
        self._numeric = _number_columns(features, schema)
        fields = [pa.field(f.name, pa.float64()) if f.name in self._numeric else f for f in schema]
        self._schema = pa.schema(fields)
        self._path = path
        self._writer = ipc.new_file(str(path), self._schema)
        self._reader = LabelReader(features.label)
        self._report = Report()
        self._parts: dict[str, list[npt.NDArray[Any]]] = {}
        self._file, self._file_rows = Path(), 0
        self._unreadable: Counter[str] = Counter()
        self._examples: dict[str, str | None] = {}

    def begin_file(self, file: Path) -> None:
        self._file, self._file_rows = file, 0
        self._unreadable.clear()

    def add(self, table: pa.Table, given: int) -> None:
        codes = self._reader.read(table)
        kept = codes >= 0
        self._report.rows_read += len(codes)
        self._file_rows += len(codes)
        table = self._conform(table)
        if not kept.all():
            codes, table = codes[kept], table.filter(pa.array(kept))
        if not len(codes):
            return
        self._keep("codes", codes)
        self._keep("given", np.full(len(codes), given, np.int8))
        features = self._features
        if features.timestamp:
            self._keep("times", to_seconds(table[features.timestamp], features.time_format))
        if features.group:
            self._keep("groups", group_codes(table[features.group]))
        if features.sample_weight:
            self._keep("weights", self._weights(table[features.sample_weight]))
        self._writer.write_table(table.combine_chunks())

    def _keep(self, name: str, values: npt.NDArray[Any]) -> None:
        self._parts.setdefault(name, []).append(values)

    def _weights(self, column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
        weights = to_numbers(column).values
        if np.isnan(weights).any() or (weights <= 0).any():
            raise DataError(
                f"{self._file}: sample weights in {self._features.sample_weight!r} must be "
                "positive numbers without gaps."
            )
        return weights.astype(np.float32)

    def _conform(self, table: pa.Table) -> pa.Table:
        """The needed columns in the staged types."""
        columns = []
        for target in self._schema:
            column = table[target.name]
            if target.name in self._numeric:
                columns.append(self._as_numbers(target.name, column))
            elif column.type == target.type:
                if pa.types.is_floating(target.type):
                    self._report.non_finite[target.name] += to_numbers(column).num_non_finite
                columns.append(column)
            else:
                columns.append(plain(column).cast(target.type, safe=False))
        return pa.table(columns, schema=self._schema)

    def _as_numbers(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        numbers = to_numbers(column)
        self._report.non_finite[name] += numbers.num_non_finite
        self._report.unreadable[name] += numbers.num_unreadable
        if numbers.num_unreadable:
            self._unreadable[name] += numbers.num_unreadable
            self._examples[name] = numbers.example
        return pa.array(numbers.values, from_pandas=True)

    def end_file(self) -> None:
        for name, count in self._unreadable.items():
            if count > MAX_UNREADABLE_SHARE * self._file_rows:
                raise DataError(
                    f"{self._file}: numeric column {name!r} holds {count} values that are no "
                    f"numbers (such as {self._examples[name]!r}); declare it categorical or "
                    "correct the file."
                )

    def close(self) -> None:
        self._writer.close()

    def result(self) -> Staged:
        report = self._report
        report.rows_without_label = self._reader.num_missing
        if not self._parts:
            self._reader.labels_by_code()  # says what is wrong with the labels
            raise DataError("no row is left after the label rule; change the rule.")
        arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        report.rows_dropped = report.rows_read - report.rows_without_label - len(arrays["codes"])
        report.non_finite, report.unreadable = +report.non_finite, +report.unreadable
        return Staged(
            path=self._path,
            reader=self._reader,
            label_codes=arrays["codes"],
            given=arrays["given"],
            times=arrays.get("times"),
            groups=arrays.get("groups"),
            weights=arrays.get("weights"),
            columns=self._schema.names,
            report=report,
        )


def group_codes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(B,) int64 codes, equal for equal groups in any chunk or process; -1 where missing."""
    column = plain(column)
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return np.asarray(column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False))
    texts, codes = canonical_codes(column)
    hashes = [
        int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little", signed=True)
        for t in texts.to_pylist()
    ]
    return np.asarray(np.array([*hashes, -1], np.int64)[codes])


def needed_columns(features: FeatureSchema) -> dict[str, str]:
    """Every raw column the schema asks for, with what for."""
    needed = {spec.source: f"field {spec.name!r}" for spec in features.fields}
    rules = (features.label.comparison("positive"), features.label.comparison("drop"))
    for rule in rules:
        if rule is not None:
            needed.setdefault(rule.column, "the label rule")
    for role in ("timestamp", "group", "request_id", "sample_weight", "user_key", "item_key"):
        column = getattr(features, role)
        if column:
            needed.setdefault(column, role)
    needed[features.label.column] = "the label"
    return needed


def _unified_schema(
    files: Sequence[Path], config: DatasetConfig, entities: Sequence[RawEntity]
) -> pa.Schema:
    """The needed interaction columns in types that fit all files."""
    needed = needed_columns(config.features)
    for entity in entities:
        needed.setdefault(entity.key, f"the {entity.entity} table's key")
    types: dict[str, pa.DataType] = {}
    schemas = {file: file_schema(file, config.source) for file in files}
    for file, schema in schemas.items():
        if config.features.label.column not in schema.names:
            known = ", ".join(schema.names[:12])
            raise DataError(
                f"{file} has no label column {config.features.label.column!r}; "
                f"its columns are {known}."
            )
        for name in needed:
            if name in schema.names:
                kind = _plain_type(schema.field(name).type)
                types[name] = _common_type(types.get(name, kind), kind, name, file)
    for name, purpose in needed.items():
        if name not in types and not any(entity.has(name) for entity in entities):
            known = ", ".join(schemas[files[0]].names[:20])
            raise SchemaError(
                f"the schema asks for column {name!r} ({purpose}), which no file has; "
                f"{files[0].name} has {known}."
            )
    for file, schema in schemas.items():
        absent = sorted(set(types) - set(schema.names))
        if absent:
            raise DataError(f"{file} lacks the column {absent[0]!r} that other files have.")
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    texts = (pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    if any(check(kind) for check in texts) or kind == pa.string_view():
        return pa.string()
    return kind


def _common_type(a: pa.DataType, b: pa.DataType, name: str, file: Path) -> pa.DataType:
    if a == b or pa.types.is_null(b):
        return a
    if pa.types.is_null(a):
        return b

    def numeric(kind: pa.DataType) -> bool:
        return bool(
            pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
        )

    if pa.types.is_integer(a) and pa.types.is_integer(b):
        return pa.int64()
    if numeric(a) and numeric(b):
        return pa.float64()
    if pa.types.is_list(a) and pa.types.is_list(b):
        return a
    if pa.types.is_temporal(a) and pa.types.is_temporal(b):
        return pa.timestamp("us")
    raise DataError(
        f"{file}: column {name!r} changes type between files (from {a} to {b}); "
        "write all files with one type."
    )


def _number_columns(features: FeatureSchema, schema: pa.Schema) -> set[str]:
    """Columns that numeric fields alone read: these are parsed while staging."""
    others = {s.source for s in features.fields if s.kind != "numeric" or s.derive}
    others |= {
        name for name, use in needed_columns(features).items() if not use.startswith("field")
    }
    numeric = {s.source for s in features.fields if s.kind == "numeric" and not s.derive}
    return {name for name in numeric - others if name in schema.names}
