"""Vectors and dates of other files and requests that a fitted encoder cannot read."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from tests.unit.data.other_files import ROWS, columns, encoded


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """Rows with a vector of three numbers."""
    folder = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    vectors = {"v": [str(row.round(3).tolist()) for row in rng.normal(size=(ROWS, 3))]}
    pacsv.write_csv(pa.table(columns(**vectors)), folder / "train.csv")
    return prepare(dataset_from_files(folder / "train.csv", label="y"), folder / "p", seed=0)


@pytest.mark.parametrize("bad", ["[1.0, 2.0]", "[a, b, c]"])
def test_vectors_of_another_length_or_of_texts_are_refused(embedded, tmp_path, bad):
    good = ["[1.0, 2.0, 3.0]"]
    with pytest.raises(
        DataError, match=r"column 'v' holds .* that are .*vectors of .* correct the"
    ):
        encoded(embedded, tmp_path, v=[bad] * 50 + good * (ROWS - 50))
    batch, said = encoded(embedded, tmp_path, v=[bad] + good * (ROWS - 1))
    assert len(said) == 1
    missing = embedded.encoder.encode_columns({"v": [None]})
    at = embedded.encoder.field_columns()["v"][0]
    assert batch.dense[0, at].tolist() == missing.dense[0, at].tolist()
    assert batch.dense[1, at].tolist() != missing.dense[0, at].tolist()
    assert "column 'v' holds" in said[0]


@pytest.mark.parametrize(
    "values", [[[1.0, 2.0]], np.ones((1, 4)), ["[1, 2]"], np.ones((200, 2), np.float32)]
)
def test_a_request_with_a_vector_of_another_length_is_refused(embedded, values):
    with pytest.raises(DataError, match="field 'v' takes lists of 3 numbers but was given"):
        embedded.encoder.encode_columns({"v": values})


def test_a_vector_that_is_missing_is_no_mistake(embedded):
    lists = embedded.encoder.encode_columns({"v": [None, [], [None, None, None]]})
    texts = embedded.encoder.encode_columns({"v": [None, ""]})
    assert np.unique(np.concatenate([lists.dense, texts.dense]), axis=0).shape[0] == 1


DAYS = [f"{1 + i % 28:02}.0{1 + i % 9}.2024" for i in range(ROWS)]


@pytest.fixture(scope="module")
def dated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dated")
    pacsv.write_csv(pa.table(columns(day=DAYS)), folder / "train.csv")
    fields = (FieldSpec(name="x", kind="numeric"), FieldSpec(name="day", derive="weekday"))
    features = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    config = DatasetConfig(files=(str(folder / "train.csv"),), features=features)
    return prepare(config, folder / "prepared", seed=0)


def test_dates_that_cannot_be_read_are_counted_or_refused(dated, tmp_path):
    _, said = encoded(dated, tmp_path, day=["", *DAYS[1:]])
    assert said == []
    _, said = encoded(dated, tmp_path, day=["", "soon", *DAYS[2:]])
    assert len(said) == 1
    assert "column 'day' holds 1 values that are no dates or times (such as 'soon')" in said[0]
    with pytest.raises(DataError, match=r"holds 400 values .* dates .*; correct the file"):
        encoded(dated, tmp_path, day=["soon"] * ROWS)


def test_training_rows_with_dates_that_cannot_be_read_are_refused(dated, tmp_path):
    pacsv.write_csv(pa.table(columns(day=["soon"] * 9 + DAYS[9:])), tmp_path / "train.csv")
    config = dated.dataset.model_copy(update={"files": (str(tmp_path / "train.csv"),)})
    with pytest.raises(DataError, match=r"time column 'day' holds 9 values that are no dates"):
        prepare(config, tmp_path / "prepared", seed=0)
    pacsv.write_csv(pa.table(columns(day=["soon"] * 2 + DAYS[2:])), tmp_path / "train.csv")
    report = prepare(config, tmp_path / "prepared", seed=0).report
    told = "day: 2 values that are no dates or times (such as 'soon') count as missing"
    assert told in report["warnings"]
