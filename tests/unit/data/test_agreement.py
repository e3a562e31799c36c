from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.batch import OUT_OF_VOCABULARY
from dynens.data.agreement import unified_schema
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.encoding.entities import load_entities
from dynens.data.prepare import prepare
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec
from tests.unit.data.tables import mixed_table, written

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


def test_a_column_in_two_spellings_that_both_become_fields_is_refused(tmp_path):
    """As where several files are given as training rows, which inference looks at together."""
    table = mixed_table(300)
    for name, price in (("p1", "price"), ("p2", "Price")):
        names = [price if column == "price" else column for column in table.column_names]
        pq.write_table(table.rename_columns(names), tmp_path / f"{name}.parquet")
    config = dataset_from_files(tmp_path / "p[12].parquet", label="click")
    says = r"p[12]\.parquet has a column '[Pp]rice' where other files have '[Pp]rice'; spell them"
    with pytest.raises(DataError, match=says):
        prepare(config, tmp_path / "out", seed=0)


@pytest.mark.parametrize(
    ("name", "value"), [("zip", 10_001), ("ShopID", 10_001.0), ("sku", 10_001)]
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("given", ["train", "test"])
def test_ids_may_be_numbers_in_one_file_and_texts_in_another(tmp_path, name, value, ending, given):
    numbers = [value + i % 9 for i in range(300)]
    texts = [f"K{i % 3}A 0B1" if i % 20 else str(10_001 + i % 9) for i in range(300)]
    for part, ids in (("a", numbers), ("b", texts)):
        table = mixed_table(300).drop_columns("tags").append_column(name, [ids])
        written(tmp_path, table, f"{part}.{ending}")
    train = tmp_path / (f"[ab].{ending}" if given == "train" else f"a.{ending}")
    others = {} if given == "train" else {"test": str(tmp_path / f"b.{ending}")}
    data = prepare(dataset_from_files(train, label="click", **others), tmp_path / "out", seed=0)
    assert data.schema.field(name).kind == "categorical"
    forms = [data.encoder.encode_columns({name: [v]}).ids for v in (10_001, 10_001.0, "10001")]
    assert all((ids == forms[0]).all() for ids in forms)
    at = [field.name for field in data.layout.fields].index(name)
    unseen = (data.split("test").ids[:, at] == OUT_OF_VOCABULARY).sum()
    assert unseen == (0 if given == "train" else 285)


NAIVE, BERLIN = pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((NAIVE, BERLIN), (BERLIN, NAIVE), (BERLIN, pa.timestamp("ns", "Europe/Berlin"))),
        *((NAIVE, pa.timestamp("ms")), (NAIVE, pa.timestamp("us", "UTC")), (NAIVE, pa.date32())),
        *((NAIVE, pa.string()), (pa.string(), BERLIN)),
    ],
)
@pytest.mark.parametrize("given", ["train", "test"])
def test_times_may_differ_in_type_between_files(tmp_path, first, second, given):
    table, paths = mixed_table(300), []
    at, start = table.column_names.index("time"), 1_700_000_000_000_000
    for i, kind in enumerate((first, second)):
        times = pa.array([start + (300 * i + k) * 1_800_000_000 for k in range(300)]).cast(NAIVE)
        column = times.cast(kind, safe=False)
        paths.append(written(tmp_path, table.set_column(at, "time", column), f"{i}.parquet"))
    files = (paths, {}) if given == "train" else (paths[0], {"test": str(paths[1])})
    data = prepare(
        dataset_from_files(files[0], label="click", **files[1]), tmp_path / "out", seed=0
    )
    assert data.schema.timestamp == "time"
    assert data.report["split_by"] == "time"
    last = pq.read_table(paths[1]).slice(300 - data.rows["test"])
    alike = (
        data.encoder.encode_table(last),
        data.encoder.encode_columns({name: last[name].to_pylist() for name in last.column_names}),
    )
    for batch in alike:
        np.testing.assert_array_equal(data.split("test").ids, batch.ids)


TAGS = [["7", "3"], [], ["3"], None] * 75
VECTORS = [[0.5 * i, float(i % 7)] for i in range(300)]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.nulls(300, pa.list_(pa.null())), pa.array(TAGS)),
        (pa.array(TAGS, pa.large_list(pa.string())), pa.array(TAGS).cast(pa.list_(pa.int32()))),
        (pa.array(VECTORS, pa.list_(pa.float32(), 2)), pa.array(VECTORS)),
    ],
)
def test_lists_may_differ_in_type_between_files(tmp_path, first, second):
    table = mixed_table(300).drop_columns(["tags", "time"])
    for i, column in enumerate((first, second)):
        written(tmp_path, table.append_column("list", column), f"{i}.parquet")
    config = dataset_from_files(tmp_path / "[01].parquet", label="click")
    data = prepare(config, tmp_path / "out", seed=0)
    assert data.schema.field("list").kind in ("multi_valued", "dense_vector")
    raw = data.raw_test()
    batch = data.encoder.encode_columns({name: raw[name].to_pylist() for name in raw.column_names})
    np.testing.assert_array_equal(data.split("test").ids, batch.ids)
    np.testing.assert_allclose(data.split("test").dense, batch.dense, atol=1e-6)


def test_labels_may_be_spelled_in_two_ways(tmp_path):
    """As in the census of UCI, whose test file has a full stop behind them."""
    table = mixed_table(300).drop_columns("tags")
    at, clicks = table.column_names.index("click"), table["click"].to_pylist()
    for name, words in (("train", ("<=50K", ">50K")), ("test", ("<=50K.", ">50K."))):
        labels = table.set_column(at, "click", [[words[click] for click in clicks]])
        written(tmp_path, labels, f"{name}.csv")
    config = dataset_from_files(
        tmp_path / "train.csv", label="click", test=str(tmp_path / "test.csv")
    )
    data = prepare(config, tmp_path / "out", seed=0)
    rarer = min((0, 1), key=clicks.count)
    assert data.split("test").labels.tolist() == [click == rarer for click in clicks]


@pytest.mark.parametrize("given", ["train", "test"])
def test_labels_of_other_words_are_named_with_their_files(tmp_path, given):
    table = mixed_table(300).drop_columns("tags")
    at, clicks = table.column_names.index("click"), table["click"].to_pylist()
    words = {"1": ("0", "1"), "2": ("no", "yes"), "3": ("0", "0")}
    for name, said in words.items():
        labels = table.set_column(at, "click", [[said[click] for click in clicks]])
        written(tmp_path, labels, f"{name}.csv")
    others = {} if given == "train" else {"test": str(tmp_path / "2.csv")}
    train = tmp_path / ("[12].csv" if given == "train" else "1.csv")
    with pytest.raises(DataError, match=r"holds '0' and '1' in .*1\.csv but 'no' and 'yes' in .*2"):
        prepare(dataset_from_files(train, label="click", **others), tmp_path / "out", seed=0)
    config = dataset_from_files(tmp_path / "[13].csv", label="click")
    assert sum(prepare(config, tmp_path / "out", seed=0).rows.values()) == 600


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
