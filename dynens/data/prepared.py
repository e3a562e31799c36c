"""Prepared data: what `prepare` wrote, opened without copying."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.batch import NO_GROUP, EncodedBatch, FeatureLayout
from dynens.config.run import RunConfig
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.inputs import InputFiles
from dynens.data.reading.decimals import outcomes_with_points
from dynens.data.reading.labels import LabelReader
from dynens.data.shards import read_shard
from dynens.data.splits import SPLITS
from dynens.data.staging import group_codes, weights_in
from dynens.data.statistics import StatTables
from dynens.errors import BundleError, DataError, about
from dynens.metrics import informative_rows
from dynens.run import intact
from dynens.schema import DatasetConfig, FeatureSchema

# Which training rows are validation rows, where these train as well.
VALID_ROWS = "valid_rows.npy"
# Behind the fingerprint of such data.
ALSO_VALID = "+valid"


class PreparedData:
    """Encoded splits with everything that encoded them; parts are opened when first asked for.

    Attributes:
        directory: where it lies.
        name: of the dataset.
        dataset: the resolved configuration (types inferred, positive label spelled out).
        rows: rows per split, as they were cut; see `trains_on_valid`.
        report: rows dropped, values treated as missing, how rows were cut, warnings of inference.
    """

    def __init__(self, directory: Path, manifest: dict[str, Any]) -> None:
        self.directory = directory
        self.name: str = manifest["name"]
        self.seed: int = manifest["seed"]
        self.fingerprint: str = manifest["fingerprint"]
        self.format: int = manifest["format"]
        self.rows: dict[str, int] = manifest["rows"]
        self.report: dict[str, Any] = manifest["report"]
        self.dataset = DatasetConfig.model_validate(manifest["dataset"])

    @cached_property
    def informative_rows(self) -> int:
        """What the training rows are worth; see `dynens.metrics.informative_rows`."""
        labels = self.split("train").labels
        assert labels is not None
        return informative_rows(labels)

    def without_unsuited(self, config: RunConfig) -> RunConfig:
        """A run's configuration without the learners that are not meant for this table.

        Raises:
            ConfigError: something else in it needs one of them.
        """
        return config.for_table(self.informative_rows, self.layout)

    def unsuited(self, config: RunConfig) -> dict[str, str]:
        """Why, by name, learners of a configuration are not meant for this table."""
        return config.unsuited(self.informative_rows, self.layout)

    @property
    def schema(self) -> FeatureSchema:
        return self.dataset.features

    @cached_property
    def encoder(self) -> RowEncoder:
        return RowEncoder.load(self.directory / "encoder")

    @property
    def layout(self) -> FeatureLayout:
        return self.encoder.layout

    @cached_property
    def stats(self) -> StatTables:
        return StatTables.load(self.directory / "statistics")

    @cached_property
    def id_frequency(self) -> npt.NDArray[np.int64]:
        """(flat rows,) training rows of every id, in the flat-table layout."""
        path = self.directory / "id_frequency.npy"
        with intact(path):
            frequency: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
        return frequency

    def split(self, name: str) -> EncodedBatch:
        """`train`, `valid` or `test`, memory-mapped (read-only); train has leakage-free `stats`."""
        if name not in SPLITS:
            raise DataError(f"there is no split {name!r}; it is one of {', '.join(SPLITS)}.")
        if name == "valid" and self.trains_on_valid:
            rows = self.split("train").take(self.valid_rows)
            return replace(rows, stats=None, grades=None)
        return read_shard(self.directory / f"{name}.arrow")

    @property
    def trains_on_valid(self) -> bool:
        """Whether validation rows are among the training rows."""
        return (self.directory / VALID_ROWS).exists()

    @property
    def valid_rows(self) -> npt.NDArray[np.int64]:
        """Positions of the validation rows among the training rows, where they train as well."""
        path = self.directory / VALID_ROWS
        with intact(path):
            rows: npt.NDArray[np.int64] = np.load(path, allow_pickle=False)
            return rows

    @property
    def unlabelled(self) -> EncodedBatch | None:
        """The training rows that have no label; None: there are none."""
        path = self.directory / "unlabelled.arrow"
        return read_shard(path) if path.exists() else None

    def raw_test(self) -> pa.Table:
        """The first raw rows of the test split, entity columns joined, label included."""
        path = self.directory / "raw_test.arrow"
        with intact(path), ipc.open_file(str(path)) as reader:
            return reader.read_all()

    def encode_labelled(self, table: pa.Table, source: str = "the table") -> EncodedBatch:
        """Encode raw rows with labels, weights and groups; rows that the rule drops are left out.

        Raises:
            DataError: the label column is absent or holds values that training did not, a weight
                is not positive, or a column has a type that its field cannot read.
        """
        if lacking := self.schema.label.columns() - set(table.column_names):
            raise DataError(
                f"{source} has no column {min(lacking)!r}, which tells the label; give a table "
                "with it."
            )
        table = outcomes_with_points(table, self.dataset)
        with about(source):
            codes = LabelReader(self.schema.label).read(table)
        kept = codes >= 0
        table = table.filter(pa.array(kept))
        labels = codes[kept].astype(np.float32)
        column = self.schema.sample_weight
        weights = None
        if column and column in table.column_names:
            weights = weights_in(table, column, source)
        with about(source):
            encoded = self.encoder.encode_table(table)
        group = self.schema.group
        return replace(
            encoded,
            labels=labels,
            sample_weight=weights_of(labels, weights, self.schema.negative_sampling_rate),
            groups=group_codes(table[group]) if group and group in table.column_names else None,
        )

    def encode_file(self, source: str, warn: Callable[[str], None] | None = None) -> EncodedBatch:
        """Read and encode a labelled file or glob (for evaluation on new data).

        Args:
            source: the file or glob.
            warn: told what counts as missing, and why.

        Raises:
            DataError: a file is bad, has no label column or other labels, leaves no row, or has
                weights or groups that another lacks.
        """
        files = InputFiles(source, self.dataset, self.encoder)
        batches: list[EncodedBatch] = []
        columns: list[set[str]] = []
        rows = 0
        for _, table in files.tables():
            batches.append(files.encoded(self.encode_labelled(table, source)))
            columns.append(set(table.column_names))
            rows += table.num_rows
        warnings = files.warnings + self._lacking(source, columns)
        batch = concat(batches)
        if batch.groups is not None and (batch.groups == NO_GROUP).all():
            warnings.append(f"{source}: {self.schema.group!r} is missing in every row: no GAUC")
        if left_out := rows - len(batch):
            warnings.append(
                f"{source}: {left_out} rows have no label, or none by the label rule, and are left "
                "out"
            )
        if not len(batch):
            raise DataError(
                f"{source}: no row is left after the label rule; give labels as in the training "
                "table."
            )
        if warn:
            for warning in warnings:
                warn(warning)
        return batch

    def _lacking(self, source: str, columns: Sequence[set[str]]) -> list[str]:
        """What it means that chunks with these columns have no weights or groups."""
        warnings = []
        for column, effect in (
            (self.schema.sample_weight, "rows are not weighted by it"),
            (self.schema.group, "there is no GAUC"),
        ):
            having = sum(column in names for names in columns)
            if column is None or having == len(columns):
                continue
            if having:
                raise DataError(
                    f"{source}: some files have the column {column!r} and others do not; give it "
                    "to all of them or to none."
                )
            warnings.append(f"{source} lacks {column!r}: {effect}")
        return warnings


def open_prepared(directory: Path) -> PreparedData:
    """Open what `prepare` wrote.

    Raises:
        BundleError: the folder holds no prepared data.
    """
    try:
        manifest = json.loads((directory / "prepared.json").read_text(encoding="utf-8"))
        return PreparedData(directory, manifest)
    except (OSError, ValueError, KeyError) as e:
        raise BundleError(
            f"{directory} holds no prepared data ({e}); copy its prepared.json from where the run "
            "was trained, all that predictions need of it, or remove the folder and make it again "
            "with `dynens fit … --resume`."
        ) from e


def weights_of(
    labels: npt.NDArray[np.float32], weights: npt.NDArray[np.float32] | None, sampling_rate: float
) -> npt.NDArray[np.float32] | None:
    """Row weights with the negatives' sampling undone: a kept negative stands for 1 / rate."""
    if sampling_rate >= 1.0:
        return weights
    correction = np.where(labels > 0, 1.0, 1.0 / sampling_rate).astype(np.float32)
    return correction if weights is None else weights * correction


def concat(batches: Sequence[EncodedBatch]) -> EncodedBatch:
    """Batches one after the other (all with the same optional parts)."""
    if len(batches) == 1:
        return batches[0]

    def join(name: str) -> Any:
        parts = [getattr(batch, name) for batch in batches]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    names = [part.name for part in fields(EncodedBatch)]
    return EncodedBatch(**{name: join(name) for name in names})
