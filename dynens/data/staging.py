"""First pass over a raw file: check, label, and set the needed columns down as Arrow."""

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

from dynens.batch import NO_GROUP
from dynens.data.columns import number_columns, numeric_fields, time_columns
from dynens.data.grades import Outcomes, outcomes_in
from dynens.data.reading.decimals import outcomes_with_points
from dynens.data.reading.labels import DROPPED, NO_LABEL, LabelReader
from dynens.data.reading.numbers import MAX_UNREADABLE_SHARE, to_numbers
from dynens.data.reading.sources import iter_tables
from dynens.data.reading.stacking import conformed
from dynens.data.reading.times import to_seconds, unreadable_times
from dynens.data.reading.values import canonical_codes, one_line, plain
from dynens.data.splits import TRAIN, UNLABELLED
from dynens.errors import DataError
from dynens.schema import DatasetConfig, FeatureSchema


@dataclass
class Report:
    """What was found on the way and dealt with: shown to the user, kept with the data.

    Columns are named with how many of their values count as missing, and why; `examples` has the
    first one that could not be read.
    """

    rows_read: int = 0
    rows_without_label: int = 0
    rows_dropped: int = 0
    non_finite: Counter[str] = field(default_factory=Counter)
    infinite: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    untimed: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Report) -> Report:
        return Report(
            self.rows_read + other.rows_read,
            self.rows_without_label + other.rows_without_label,
            self.rows_dropped + other.rows_dropped,
            self.non_finite + other.non_finite,
            self.infinite + other.infinite,
            self.unreadable + other.unreadable,
            self.untimed + other.untimed,
            other.examples | self.examples,
        )

    def note(self, name: str, example: str | None) -> None:
        """Keep the first value of a column that could not be read."""
        if example is not None:
            self.examples.setdefault(name, example)

    def warnings(self) -> list[str]:
        """What counts as missing though the file holds something."""
        kinds = (
            ("no numbers", self.unreadable),
            ("no dates or times", self.untimed),
            ("infinite", self.infinite),
        )
        return [
            f"{name}: {count} values that are {kind}{self._such(name, kind)} count as missing"
            for kind, counts in kinds
            for name, count in counts.items()
            if count
        ]

    def _such(self, name: str, kind: str) -> str:
        example = None if kind == "infinite" else self.examples.get(name)
        return "" if example is None else f" (such as {one_line(example)})"

    def to_dict(self) -> dict[str, Any]:
        return {
            "rows_read": self.rows_read,
            "rows_without_label": self.rows_without_label,
            "rows_dropped": self.rows_dropped,
            "non_finite_as_missing": dict(self.non_finite),
            "unreadable_numbers_as_missing": dict(self.unreadable),
            "unreadable_times_as_missing": dict(self.untimed),
        }


@dataclass
class StagedPart:
    """One file's rows that stay: raw columns on disk, and what splitting needs in memory.

    Attributes:
        path: the Arrow file.
        reader: what the label codes mean in this file.
        label_codes: (N,) int16.
        given: the part the file was given as (0 train, 1 valid, 2 test, 3 without labels).
        times: (N,) float64 seconds, or None.
        groups: (N,) int64, or None.
        weights: (N,) float32, or None.
        soft_labels: (N,) float32, NaN where there is none; or None.
        outcomes: (N,) float64, what the label's threshold stands between; or None.
        report: what was found.
    """

    path: Path
    reader: LabelReader
    label_codes: npt.NDArray[np.int16]
    given: int
    times: npt.NDArray[np.float64] | None
    groups: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    soft_labels: npt.NDArray[np.float32] | None
    outcomes: Outcomes | None
    report: Report

    def __len__(self) -> int:
        return len(self.label_codes)


def staged_chunks(path: Path) -> Iterator[tuple[slice, pa.Table]]:
    """The raw rows of a staged file in order, each chunk with its range of rows."""
    start = 0
    with pa.OSFile(str(path)) as file, ipc.open_file(file) as reader:
        for i in range(reader.num_record_batches):
            table = pa.Table.from_batches([reader.get_batch(i)])
            yield slice(start, start + table.num_rows), table
            start += table.num_rows


@dataclass
class StagedRows:
    """The rows of all files in order: everything that is known of them before encoding.

    Attributes:
        reader: the labels, settled over all files.
        labels: (N,) float32, NaN where there is none.
        given: (N,) int8.
        times: as in `StagedPart`.
        groups: as in `StagedPart`.
        weights: as in `StagedPart`.
        soft_labels: as in `StagedPart`.
        outcomes: as in `StagedPart`.
        bounds: where each file's rows begin and end, one range per file.
        report: summed.
    """

    reader: LabelReader
    labels: npt.NDArray[np.float32]
    given: npt.NDArray[np.int8]
    times: npt.NDArray[np.float64] | None
    groups: npt.NDArray[np.int64] | None
    weights: npt.NDArray[np.float32] | None
    soft_labels: npt.NDArray[np.float32] | None
    outcomes: Outcomes | None
    bounds: list[slice]
    report: Report


def merge_parts(parts: Sequence[StagedPart]) -> StagedRows:
    """Lay the files end to end and settle the labels.

    Raises:
        DataError: the labels are not binary, or no row is left.
    """
    reader = LabelReader(parts[0].reader.rule)
    codes = np.concatenate([reader.merge(part.reader, part.label_codes) for part in parts])
    report = sum((part.report for part in parts[1:]), parts[0].report)
    by_code = reader.labels_by_code()
    if not (codes >= 0).any():
        raise DataError("no row is left after the label rule; change the rule.")
    labels = np.where(codes < 0, np.float32(np.nan), by_code[np.maximum(codes, 0)])
    ends = np.cumsum([len(part) for part in parts])

    def join(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0] is None or len(arrays) == 1:
            return arrays[0]
        return np.concatenate(arrays)

    return StagedRows(
        reader=reader,
        labels=labels,
        given=np.repeat(np.array([p.given for p in parts], np.int8), [len(p) for p in parts]),
        times=join("times"),
        groups=join("groups"),
        weights=join("weights"),
        soft_labels=join("soft_labels"),
        outcomes=join("outcomes"),
        bounds=[slice(int(e) - len(p), int(e)) for e, p in zip(ends, parts, strict=True)],
        report=report,
    )


def stage_part(
    config: DatasetConfig, schema: pa.Schema, file: Path, given: int, path: Path
) -> StagedPart:
    """Read one file.

    Args:
        config: of the dataset.
        schema: needed columns with their types.
        file: the raw file.
        given: the part it was given as.
        path: the Arrow file to write.

    Raises:
        DataError: the file or its labels are bad, or a numeric column holds too many texts.
    """
    stager = _Stager(config.features, schema, file, path, given)
    unread = config.features.label.outcome_columns() if given == UNLABELLED else set()
    columns = [name for name in schema.names if name not in unread]
    try:
        for _, table in iter_tables([str(file)], config.source, columns=columns):
            stager.add(outcomes_with_points(table, config))
    finally:
        stager.close()
    return stager.result()


class _Stager:
    def __init__(
        self, features: FeatureSchema, schema: pa.Schema, file: Path, path: Path, given: int
    ) -> None:
        self._features = features
        self._given = given
        self._numeric = number_columns(features, schema)
        self._specs = numeric_fields(features)
        self._times = {n: f for n, f in time_columns(features).items() if n in schema.names}
        fields = [pa.field(f.name, pa.float64()) if f.name in self._numeric else f for f in schema]
        self._schema = pa.schema(fields)
        self._file, self._path = file, path
        self._writer = ipc.new_file(str(path), self._schema)
        self._reader = LabelReader(features.label)
        self._report = Report()
        self._arrays: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, table: pa.Table) -> None:
        features = self._features
        has_labels = self._given != UNLABELLED
        if has_labels:
            codes = self._reader.read(table)
        else:
            codes = np.full(len(table), NO_LABEL, np.int16)
            self._reader.num_unlabelled += len(codes)
        kept = codes != DROPPED if self._given in (TRAIN, UNLABELLED) else codes >= 0
        outcomes = outcomes_in(table, features.label, known=has_labels)
        if outcomes is not None:
            self._keep("outcomes", outcomes[kept])
        self._report.rows_read += len(codes)
        self._report.rows_dropped += int((codes == DROPPED).sum())
        table = self._conform(table)
        if not kept.all():
            codes, table = codes[kept], table.filter(pa.array(kept))
        self._keep("codes", codes)
        if features.timestamp:
            self._keep("times", to_seconds(table[features.timestamp], features.time_format))
        if features.group:
            self._keep("groups", group_codes(table[features.group]))
        if features.sample_weight:
            weights = np.ones(len(codes), np.float32)
            labelled = table.filter(pa.array(codes >= 0))
            weights[codes >= 0] = weights_in(labelled, features.sample_weight, str(self._file))
            self._keep("weights", weights)
        if features.soft_label:
            answers = soft_labels_in(table, features.soft_label, str(self._file))
            self._keep("soft_labels", answers)
        for name, time_format in self._times.items():
            count, example = unreadable_times(table[name], to_seconds(table[name], time_format))
            self._report.untimed[name] += count
            self._report.note(name, example)
        if len(codes):
            self._writer.write_table(table.combine_chunks())

    def _keep(self, name: str, values: npt.NDArray[Any]) -> None:
        self._arrays.setdefault(name, []).append(values)

    def _conform(self, table: pa.Table) -> pa.Table:
        """The needed columns in the staged types."""
        columns = []
        for target in self._schema:
            if target.name not in table.column_names:  # labels and roles of rows without labels
                columns.append(pa.nulls(len(table), target.type))
                continue
            column = table[target.name]
            if target.name in self._numeric:
                columns.append(self._as_numbers(target.name, column))
            elif column.type == target.type:
                if pa.types.is_floating(target.type):
                    numbers = to_numbers(column)
                    self._report.non_finite[target.name] += numbers.num_non_finite
                    self._report.infinite[target.name] += numbers.num_infinite
                columns.append(column)
            else:
                columns.append(conformed(column, target.type))
        return pa.table(columns, schema=self._schema)

    def _as_numbers(self, name: str, column: pa.ChunkedArray) -> pa.Array:
        spec = self._specs[name]
        numbers = to_numbers(column, spec.decimal, spec.unit)
        self._report.non_finite[name] += numbers.num_non_finite
        self._report.infinite[name] += numbers.num_infinite
        self._report.unreadable[name] += numbers.num_unreadable
        self._report.note(name, numbers.example)
        return pa.array(numbers.values, from_pandas=True)

    def close(self) -> None:
        self._writer.close()

    def result(self) -> StagedPart:
        report = self._report
        report.non_finite, report.unreadable = +report.non_finite, +report.unreadable
        report.untimed = +report.untimed
        self._refuse("numeric", "numbers", report.unreadable)
        self._refuse("time", "dates or times", report.untimed)
        arrays = {name: np.concatenate(parts) for name, parts in self._arrays.items()}
        report.rows_without_label = self._reader.num_unlabelled
        return StagedPart(
            path=self._path,
            reader=self._reader,
            label_codes=arrays["codes"],
            given=self._given,
            times=arrays.get("times"),
            groups=arrays.get("groups"),
            weights=arrays.get("weights"),
            soft_labels=arrays.get("soft_labels"),
            outcomes=arrays.get("outcomes"),
            report=report,
        )

    def _refuse(self, kind: str, values: str, unreadable: Counter[str]) -> None:
        for name, count in unreadable.items():
            if count > MAX_UNREADABLE_SHARE * self._report.rows_read:
                such = self._report.examples[name]
                raise DataError(
                    f"{self._file}: {kind} column {name!r} holds {count} values that are no "
                    f"{values} (such as {such!r}); declare it categorical or correct the file."
                )


def weights_in(table: pa.Table, column: str, source: str) -> npt.NDArray[np.float32]:
    """(B,) float32 sample weights.

    Raises:
        DataError: one is missing or not positive.
    """
    weights = to_numbers(table[column]).values
    if np.isnan(weights).any() or (weights <= 0).any():
        raise DataError(
            f"{source}: sample weights in {column!r} must be positive numbers without gaps; "
            "correct the column, or leave it out of the file or by features.excluded."
        )
    return weights.astype(np.float32)


def soft_labels_in(table: pa.Table, column: str, source: str) -> npt.NDArray[np.float32]:
    """(B,) float32 probabilities, NaN where there is none.

    Raises:
        DataError: one lies outside [0, 1].
    """
    answers = to_numbers(table[column]).values
    outside = answers[(answers < 0) | (answers > 1)]
    if len(outside):
        raise DataError(
            f"{source}: soft labels in {column!r} are probabilities, from 0 to 1, and "
            f"{outside[0]:g} is not; correct the column, or leave the value empty."
        )
    return answers.astype(np.float32)


def group_codes(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """(B,) int64 codes, equal for equal groups in any chunk or process, or `NO_GROUP`."""
    column = plain(column)
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return np.asarray(
            column.cast(pa.int64()).fill_null(NO_GROUP).to_numpy(zero_copy_only=False)
        )
    texts, codes = canonical_codes(column)
    hashes = [
        int.from_bytes(hashlib.blake2b(t.encode(), digest_size=8).digest(), "little", signed=True)
        for t in texts.to_pylist()
    ]
    return np.asarray(np.array([*hashes, NO_GROUP], np.int64)[codes])
