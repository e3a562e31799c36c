"""Preparation with Ray Data over many files against one process."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from tests.unit.data.tables import mixed_table
from training.ingest import prepare_on_ray


def files(folder: Path) -> DatasetConfig:
    for i in range(5):
        table = mixed_table(300 + 40 * i, seed=i)
        vector = [[float(j), j * 0.3] for j in range(table.num_rows)]
        pq.write_table(table.append_column("v", pa.array(vector)), folder / f"part-{i}.parquet")
    return dataset_from_files(str(folder / "part-*.parquet"), label="click")


def test_two_workers_write_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    dataset = files(tmp_path)
    alone = prepare(dataset, tmp_path / "alone", seed=7)
    together = prepare_on_ray(dataset, tmp_path / "together", seed=7, workers=2)
    assert together.rows == alone.rows
    written = sorted(p.relative_to(alone.directory) for p in alone.directory.rglob("*.*"))
    assert len(written) >= 9
    for name in written:
        one, two = alone.directory / name, together.directory / name
        assert one.read_bytes() == two.read_bytes(), name


def test_bad_input_in_a_worker_is_one_sentence(tmp_path: Path) -> None:
    for i in range(3):
        price = ["cheap" if i == 2 else "1.5"] * 100
        table = pa.table({"price": price, "y": [0, 1] * 50})
        pacsv.write_csv(table, tmp_path / f"part-{i}.csv")
    features = FeatureSchema(
        label=LabelRule(column="y"), fields=(FieldSpec(name="price", kind="numeric"),)
    )
    dataset = DatasetConfig(files=(str(tmp_path / "part-*.csv"),), features=features)
    with pytest.raises(DataError, match=r"part-2\.csv: numeric column 'price' holds 100 values"):
        prepare_on_ray(dataset, tmp_path / "out", seed=0)
    assert not (tmp_path / "out").exists()
