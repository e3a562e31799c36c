"""The time of the row, shown by test files that lie later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import with_fields
from dynens.data.prepare import prepare
from dynens.data.prepared import open_prepared
from dynens.schema import DatasetConfig

ROWS = 1200
START = np.datetime64("2024-03-01")


def write(path: Path, first_day: int, last_day: int, seed: int) -> None:
    """Rows of some days, in no order, with a date that says nothing of the row's own."""
    rng = np.random.default_rng(seed)
    days = rng.integers(first_day, last_day, ROWS)
    columns = {
        "departs": (START + days).astype(str),
        "built": (START - rng.integers(100, 9000, ROWS)).astype(str),
        "x": rng.normal(size=ROWS),
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(columns), path)


def config_of(tmp_path: Path, *, days_of_test: tuple[int, int]) -> DatasetConfig:
    write(tmp_path / "train.parquet", 0, 40, 1)
    write(tmp_path / "test.parquet", *days_of_test, 2)
    return DatasetConfig.model_validate(
        {
            "name": "t",
            "files": [str(tmp_path / "train.parquet")],
            "test_files": [str(tmp_path / "test.parquet")],
            "features": {"label": {"column": "y"}},
        }
    )


@pytest.mark.parametrize(
    ("days_of_test", "timestamp"), [((40, 50), "departs"), ((39, 50), "departs"), ((0, 40), None)]
)
def test_a_date_that_test_rows_are_cut_by_is_the_time_of_the_row(
    tmp_path: Path, days_of_test: tuple[int, int], timestamp: str | None
) -> None:
    config = config_of(tmp_path, days_of_test=days_of_test)
    assert with_fields(config).dataset.features.timestamp == timestamp


def test_validation_rows_are_then_the_latest_too(tmp_path: Path) -> None:
    prepare(config_of(tmp_path, days_of_test=(40, 50)), tmp_path / "out", seed=1)
    data = open_prepared(tmp_path / "out")
    assert data.report["split_by"] == "time"
    assert data.dataset.features.timestamp == "departs"


def test_without_the_column_in_the_test_there_is_none(tmp_path: Path) -> None:
    config = config_of(tmp_path, days_of_test=(40, 50))
    path = tmp_path / "test.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["departs"]), path)
    assert with_fields(config).dataset.features.timestamp is None
