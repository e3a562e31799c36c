from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.columns import unified_schema
from dynens.data.encoding.entities import load_entities
from dynens.data.prepare import prepare
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec
from tests.unit.data.tables import mixed_table

FIELDS = (FieldSpec(name="price", kind="numeric"), FieldSpec(name="country"))


@pytest.fixture
def config(tmp_path):
    table = mixed_table(300)
    for name, drop in (("0", []), ("1", ["price"]), ("test", ["price"])):
        pq.write_table(table.drop_columns(drop), tmp_path / f"{name}.parquet")
    return DatasetConfig(
        files=tuple(str(tmp_path / f"{name}.parquet") for name in "01"),
        test_files=(str(tmp_path / "test.parquet"),),
        features=FeatureSchema(label=LabelRule(column="click"), fields=FIELDS),
    )


def test_features_that_some_files_lack_are_missing_there(config, tmp_path):
    data = prepare(config, tmp_path / "out", seed=0)
    (warning,) = data.report["warnings"]
    assert warning.endswith("1.parquet and 1 more lack 'price', which is missing in those rows")
    missing = data.encoder.encode_columns({"price": [None]}).dense
    np.testing.assert_array_equal(data.split("test").dense, missing.repeat(300, axis=0))


def test_more_than_a_feature_must_be_in_all_files(config, tmp_path):
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    features = config.features.model_copy(update={"group": "price"})
    grouped = config.model_copy(update={"features": features})
    with pytest.raises(DataError, match=r"1\.parquet lacks the column 'price' that other files"):
        unified_schema(paths, grouped, [])
    schema, warnings = unified_schema(paths[:1], grouped, [])
    assert schema.field("price").type == pa.float64()
    assert not warnings


def test_a_file_of_another_table_or_spelling_is_refused(config, tmp_path):
    table = mixed_table(300)
    paths = [tmp_path / "0.parquet", tmp_path / "other.parquet"]
    pq.write_table(table.select(["click"]), paths[1])
    with pytest.raises(
        DataError, match=r"other\.parquet lacks 2 of the 3 columns that other files"
    ):
        unified_schema(paths, config, [])
    names = ["Price" if name == "price" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names), paths[1])
    with pytest.raises(DataError, match="has a column 'Price' where other files have 'price'"):
        unified_schema(paths, config, [])
    # A column of its own, which happens to be spelled so.
    both = (*FIELDS, FieldSpec(name="Price", kind="numeric"))
    features = config.features.model_copy(update={"fields": both})
    pq.write_table(table.append_column("Price", table["price"]), paths[0])
    _, warnings = unified_schema(paths, config.model_copy(update={"features": features}), [])
    assert warnings == [f"{paths[1]} lacks 'price', which is missing in those rows"]


def test_a_column_that_an_entity_has_too_must_be_in_all_files(config, tmp_path):
    files = tmp_path / "items.parquet"
    pq.write_table(pa.table({"country": ["DE"], "price": [1.0]}), files)
    table = EntityTable(files=(str(files),), entity="item", key="country")
    (items,) = load_entities(config.model_copy(update={"entities": (table,)}))
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    with pytest.raises(DataError, match=r"1\.parquet lacks the column 'price'"):
        unified_schema(paths, config, [items])


def test_decimals_of_several_sizes_are_numbers(config, tmp_path):
    """Parts that pandas writes have as many digits as their largest price takes."""
    paths = [*config.files, *config.test_files]
    for i, path in enumerate(paths):
        prices = [Decimal(10**i) + Decimal("0.25") * k for k in range(300)]
        table = mixed_table(300).drop_columns("price").append_column("price", [prices])
        pq.write_table(table, path)
    assert len({pq.read_schema(path).field("price").type for path in paths}) > 1
    data = prepare(config, tmp_path / "out", seed=0)
    first = data.encoder.encode_columns({"price": [100.0, "100.25"]}).dense
    np.testing.assert_allclose(data.split("test").dense[:2], first, atol=1e-6)
