"""Bad input, damage, and what a killed run leaves."""

import json
import os
import subprocess
from datetime import date

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.data.prepared import open_prepared
from dynens.data.reading.values import canonical
from dynens.errors import BundleError, DataError, SchemaError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec
from tests.unit.data.tables import mixed_table, written


def refused(config, tmp_path, error, says):
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(error) as caught:
        prepare(config, tmp_path / "out", seed=0)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_nothing_is_left_behind_by_bad_input(tmp_path):
    path = written(tmp_path)
    refused(dataset_from_files(path, label="nope"), tmp_path, DataError, "no label column 'nope'")
    refused(dataset_from_files(path, label="price"), tmp_path, DataError, "not binary")
    fields = (FieldSpec(name="colour"),)
    features = FeatureSchema(label=LabelRule(column="click"), fields=fields)
    config = DatasetConfig(files=(str(path),), features=features)
    refused(config, tmp_path, SchemaError, "column 'colour' (field 'colour'), which no file has;")
    features = FeatureSchema(label=LabelRule(column="click"), fields=(FieldSpec(name="prices"),))
    config = DatasetConfig(files=(str(path),), features=features)
    refused(config, tmp_path, SchemaError, "which no file has (did you mean 'price'?); log.")
    written(tmp_path, mixed_table(600).slice(0, 3))
    refused(dataset_from_files(path, label="click"), tmp_path, DataError, "part")


@pytest.mark.parametrize(("given", "part"), [("valid", "valid"), ("test", "test")])
def test_files_for_a_part_that_have_no_labels_are_not_that_part(tmp_path, given, part):
    path, table = written(tmp_path), mixed_table(50)
    at = table.column_names.index("click")
    empty = pa.nulls(50, table.schema.field("click").type)
    other = written(tmp_path, table.set_column(at, "click", empty), "other.parquet")
    config = dataset_from_files(path, label="click", **{given: str(other)})
    refused(config, tmp_path, DataError, f"has a label, so that it cannot be the {part} part")


def test_columns_that_change_type_between_files(tmp_path):
    table = mixed_table(300)
    words = pa.array([f"word {i}" for i in range(300)])
    changed = table.set_column(table.column_names.index("price"), "price", words)
    files = [written(tmp_path, table, "1.parquet"), written(tmp_path, changed, "2.parquet")]
    says = f"'price' holds numbers in {files[0]} but texts (such as 'word 0') in {files[1]}; make"
    refused(dataset_from_files(files, label="click"), tmp_path, DataError, says)
    features = FeatureSchema(
        label=LabelRule(column="click"), fields=(FieldSpec(name="price", kind="numeric"),)
    )
    config = DatasetConfig(files=tuple(map(str, files)), features=features)
    refused(config, tmp_path, DataError, "'price' holds 300 values that are no numbers")
    days = table.set_column(
        table.column_names.index("price"), "price", pa.array([date(2024, 1, 1)] * 300)
    )
    written(tmp_path, days, "2.parquet")
    refused(config, tmp_path, DataError, "changes type between files (from double to date32")


BIG = 1_234_567_890_123_456_789


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        ((pa.int64(), pa.float64()), ([BIG, BIG + 1, 3], [3.0, None, 2.5])),
        ((pa.float64(), pa.int64()), ([3.0, None, 2.5], [BIG, BIG + 1, 3])),
        ((pa.int64(), pa.uint64()), ([BIG, 3, -1], [2**64 - 1, 3, BIG])),
        ((pa.int32(), pa.int64()), ([3, 4, 5], [BIG, BIG + 1, 3])),
        ((pa.float32(), pa.float64()), ([0.1, 3.0, 2.5], [0.1, 3.0, 0.3])),
        ((pa.int64(), pa.string()), ([BIG, 3, 4], ["3", "3.0", "A1"])),
        ((pa.large_string(), pa.float64()), (["007", "3", None], [7.0, 3.0, 2.5])),
    ],
)
def test_categories_are_the_same_in_files_of_different_number_types(tmp_path, kinds, values):
    tables = [
        pa.table({"sku": pa.array(v * 20, kind), "y": [0, 1, 0, 1, 1, 0] * 10})
        for kind, v in zip(kinds, values, strict=True)
    ]
    for i, table in enumerate(tables):
        written(tmp_path, table, f"{i}.parquet")
    features = FeatureSchema(label=LabelRule(column="y"), fields=(FieldSpec(name="sku"),))
    config = DatasetConfig(files=(str(tmp_path / "*.parquet"),), features=features)
    data = prepare(config, tmp_path / "out", seed=0)
    known = {canonical(v) for v in (*values[0], *values[1])} - {None}
    assert set(data.encoder.encoders[0].vocabulary.values.to_pylist()) == known
    for table, given in zip(tables, values, strict=True):
        ids = data.encoder.encode_table(table.slice(0, 3)).ids
        np.testing.assert_array_equal(data.encoder.encode_columns({"sku": given}).ids, ids)


def test_texts_in_a_numeric_column(tmp_path):
    table = mixed_table(300).select(["price", "click"])
    few = ["oops", *map(str, table["price"].to_pylist()[1:])]
    features = FeatureSchema(
        label=LabelRule(column="click"), fields=(FieldSpec(name="price", kind="numeric"),)
    )
    path = written(tmp_path, table.set_column(0, "price", pa.array(few)), "few.csv")
    config = DatasetConfig(files=(str(path),), features=features)
    report = prepare(config, tmp_path / "few", seed=0).report
    assert report["unreadable_numbers_as_missing"] == {"price": 1}
    many = ["oops"] * 10 + few[10:]
    path = written(tmp_path, table.set_column(0, "price", pa.array(many)), "many.csv")
    config = DatasetConfig(files=(str(path),), features=features)
    refused(config, tmp_path, DataError, "'price' holds 10 values that are no numbers")


def test_nan_and_infinity_are_counted(tmp_path):
    price = mixed_table(300)["price"].to_numpy().copy()
    price[:3] = [np.inf, -np.inf, np.nan]
    table = pa.table({"price": price, "click": mixed_table(300)["click"]})
    for name in ("log.parquet", "log.csv"):
        config = dataset_from_files(written(tmp_path, table, name), label="click")
        report = prepare(config, tmp_path / f"o-{name}", seed=0).report
        assert report["non_finite_as_missing"] == {"price": 3}


def test_a_folder_that_cannot_be_written(dataset, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(dataset, tmp_path / "file" / "out", seed=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="holds other files"):
        prepare(dataset, tmp_path / "mine", seed=0)


def test_what_a_killed_run_left_is_removed(dataset, tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    abandoned = tmp_path / f".out.{gone.pid}.tmp"
    running = tmp_path / f".out.{os.getppid()}.tmp"
    abandoned.mkdir()
    running.mkdir()
    prepare(dataset, tmp_path / "out", seed=0)
    assert not abandoned.exists()
    assert running.exists()


def test_a_damaged_manifest_is_prepared_anew(dataset, tmp_path):
    prepare(dataset, tmp_path / "out", seed=0)
    (tmp_path / "out" / "prepared.json").write_text("{")
    assert prepare(dataset, tmp_path / "out", seed=0).rows["train"] == 480


def test_a_damaged_file_is_named(dataset, tmp_path):
    data = prepare(dataset, tmp_path / "data", seed=3)
    reads = {
        "test.arrow": lambda: data.split("test"),
        "raw_test.arrow": data.raw_test,
        "id_frequency.npy": lambda: data.id_frequency,
    }
    for name, read in reads.items():
        path = data.directory / name
        for damage in (path.read_bytes()[:500], b""):
            path.write_bytes(damage)
            with pytest.raises(BundleError, match=f"{name} is missing or damaged; .* --resume"):
                read()
    (data.directory / "statistics" / "statistics.npy").write_bytes(b"")
    with pytest.raises(BundleError, match="no readable statistics"):
        _ = data.stats


def test_a_column_that_a_field_cannot_read_is_named_with_its_file(dataset, tmp_path):
    data = prepare(dataset, tmp_path / "data", seed=3)
    name = next(f.source for f in data.schema.fields if f.kind == "categorical")
    table = mixed_table(50)
    at = table.column_names.index(name)
    maps = pa.array([[[("a", 1)]]] * 50, pa.list_(pa.map_(pa.string(), pa.int64())))
    path = written(tmp_path, table.set_column(at, name, maps), "new.parquet")
    with pytest.raises(DataError, match=rf"new\.parquet: column '{name}': .*map<string, int64"):
        data.encode_file(str(path))


def test_open_what_is_not_there(tmp_path):
    with pytest.raises(BundleError, match="holds no prepared data"):
        open_prepared(tmp_path)


def test_the_manifest_is_plain_json(dataset, tmp_path):
    prepare(dataset, tmp_path / "out", seed=0)
    manifest = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert manifest["report"]["split_by"] == "time"
    assert manifest["rows"]["train"] == 480


def test_keys_of_entity_tables_are_told_apart(tmp_path):
    config = dataset_from_files(written(tmp_path), label="click")
    items = tmp_path / "items.csv"
    items.write_text("id,price,kind\n1,2,a\n2,3,b\n")
    for key, own, says in (
        ("shop", None, "no key column 'shop'; it has ['id', 'price', 'kind']: name one as key_in_"),
        ("price", "id", "has a column 'price' beside its key 'id', which is called so in the"),
        ("id", None, "if one is that key, name it as key, and 'id' as key_in_table."),
    ):
        table = EntityTable(files=str(items), entity="item", key=key, key_in_table=own)
        entities = config.model_copy(update={"entities": (table,)})
        refused(entities, tmp_path, SchemaError, says)
