"""What a batch prediction writes; the engine is a stand-in that answers 0.5."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens import predict
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.errors import BadInputError, DataError
from dynens.run import RunDirectory

TRAIN = pa.table(
    {
        "price": [i % 17 / 4 for i in range(300)],
        "country": ["DE", "FR", "IT"] * 100,
        "y": [i * 7 % 10 // 6 for i in range(300)],
    }
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    pq.write_table(TRAIN, root / "train.parquet")
    return prepare(dataset_from_files(root / "train.parquet", label="y"), root / "data", seed=0)


@pytest.fixture
def predicted(prepared, monkeypatch, tmp_path):
    def score(rows, system):
        half = np.full(len(rows), 0.5, np.float32)
        return SimpleNamespace(probability=half, route=np.array([system] * len(rows)))

    engine = SimpleNamespace(encoder=prepared.encoder, score=score)
    monkeypatch.setattr(predict, "Engine", SimpleNamespace(load=lambda root: engine))

    def call(*tables, kind="parquet", out="out.parquet"):
        write = pq.write_table if kind == "parquet" else pacsv.write_csv
        for i, table in enumerate(tables):
            write(table, tmp_path / f"in-{i}.{kind}")
        run = RunDirectory(prepared.directory.parent)
        predict.predict_file(run, str(tmp_path / f"in-*.{kind}"), tmp_path / out, "student")
        read = pacsv.read_csv if out.endswith("csv") else pq.read_table
        return read(tmp_path / out)

    return call


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_files_in_another_order_of_columns_are_laid_under_the_first(predicted, kind):
    first, second = TRAIN.slice(0, 2), TRAIN.slice(2, 2).select(["y", "country", "price"])
    table = predicted(first, second, kind=kind, out=f"out.{kind}")
    assert table.column_names == ["price", "country", "y", "probability", "route"]
    assert table.select(TRAIN.column_names).to_pydict() == TRAIN.slice(0, 4).to_pydict()
    assert set(table["probability"].to_pylist()) == {0.5}


def test_number_types_that_differ_become_one_that_holds_both(predicted):
    first = pa.table({"price": [1, 2], "country": pa.nulls(2)})
    second = pa.table({"price": [1.5, None], "country": ["DE", "FR"]})
    table = predicted(first, second)
    assert table["price"].to_pylist() == [1.0, 2.0, 1.5, None]
    assert table["country"].to_pylist() == [None, None, "DE", "FR"]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (TRAIN.append_column("extra", pa.array([1] * 300)), r"in-1.parquet has a column 'extra'"),
        (TRAIN.select(["price", "country"]), r"in-1.parquet has a column 'y'"),
        (TRAIN.set_column(1, "country", TRAIN["y"]), "Field country has incompatible types"),
        (TRAIN.set_column(2, "y", pa.array([0.5] * 300)), "'y' .* is double in one file and int64"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_a_sentence(predicted, second, says, tmp_path):
    first = TRAIN.set_column(2, "y", pa.array([2**60 + 1] * 300))
    with pytest.raises(DataError, match=says) as caught:
        predicted(first, second)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_lists_do_not_go_into_csv(predicted):
    table = TRAIN.append_column("tags", pa.array([["a"]] * 300))
    with pytest.raises(BadInputError, match=r"cannot hold a column .* ends in \.parquet"):
        predicted(table, out="out.csv")


def test_an_out_that_cannot_be_written_is_one_sentence(predicted, tmp_path):
    (tmp_path / "file").touch()
    for out in ("file/x.parquet", f"{'x' * 300}.parquet"):
        with pytest.raises(BadInputError, match=r"\.parquet cannot be written"):
            predicted(TRAIN, out=out)


def test_a_table_is_not_overwritten_by_its_scores(predicted, tmp_path):
    with pytest.raises(BadInputError, match=r"in-0\.parquet is the table to score"):
        predicted(TRAIN, out="in-0.parquet")
    assert pq.read_table(tmp_path / "in-0.parquet").equals(TRAIN)


def test_a_refused_table_leaves_no_folder(predicted, tmp_path):
    second = TRAIN.set_column(0, "price", pa.array(["x"] * 300))
    with pytest.raises(DataError, match="no numbers"):
        predicted(second, out="new/deep/out.parquet")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("name", "what"), [("price", "numbers"), ("country", "categories")])
def test_a_column_that_a_field_cannot_read_is_named_with_its_file(predicted, name, what):
    maps = pa.array([[[("a", 1)]]] * 300, pa.list_(pa.map_(pa.string(), pa.int64())))
    table = TRAIN.set_column(TRAIN.column_names.index(name), name, maps)
    says = rf"in-\*\.parquet: column '{name}': .*map<string, int64.*> cannot be read as {what}"
    with pytest.raises(DataError, match=says):
        predicted(table)
