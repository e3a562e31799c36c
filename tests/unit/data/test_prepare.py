import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.batch import num_flat_rows
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.fingerprint import fingerprint
from dynens.data.inference.infer import with_fields
from dynens.data.prepare import prepare
from dynens.data.splits import SPLITS
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec, SplitConfig
from tests.unit.data.tables import EIGHTY, mixed_table, written


def test_everything_the_rest_relies_on(dataset, tmp_path):
    data = prepare(dataset, tmp_path / "out", seed=0)
    assert data.rows == {"train": 480, "valid": 60, "test": 60}
    assert data.schema.label.positive == "`click` == 1"
    train, test = data.split("train"), data.split("test")
    assert train.stats is not None
    assert test.stats is None
    assert train.stats.shape == (480, 2 * len(data.layout.fields))
    assert train.dense.shape == (480, data.layout.num_dense)
    assert train.ids.shape == (480, data.layout.ids_width)
    assert set(np.unique(train.labels)) == {0.0, 1.0}
    assert train.groups is not None
    assert train.sample_weight is None
    assert not train.ids.flags.writeable
    assert len(data.id_frequency) == num_flat_rows(data.layout.fields) == len(data.stats.table)
    assert data.id_frequency[1 : 1 + data.layout.fields[0].num_embeddings].sum() == 480
    with pytest.raises(DataError, match="no split 'dev'"):
        data.split("dev")


def test_raw_test_rows_encode_to_the_test_split(dataset, tmp_path):
    data = prepare(dataset, tmp_path / "out", seed=0)
    raw, test = data.raw_test(), data.split("test")
    assert raw.num_rows == 60
    again = data.encode_labelled(raw)
    np.testing.assert_array_equal(again.ids, test.ids)
    np.testing.assert_array_equal(again.labels, test.labels)
    np.testing.assert_array_equal(again.groups, test.groups)
    names = [field.name for field in data.encoder.input_fields]
    columns = {name: raw[name].to_pylist() for name in names}
    np.testing.assert_array_equal(data.encoder.encode_columns(columns).ids, test.ids)


def test_csv_and_parquet_give_the_same_rows(tmp_path):
    table = mixed_table(600).drop_columns(["tags"])
    splits = []
    for name in ("log.parquet", "log.csv"):
        config = dataset_from_files(written(tmp_path, table, name), label="click")
        splits.append(prepare(config, tmp_path / f"out-{name}", seed=0).split("train"))
    np.testing.assert_array_equal(splits[0].ids, splits[1].ids)
    np.testing.assert_allclose(splits[0].dense, splits[1].dense, atol=1e-6)
    np.testing.assert_array_equal(splits[0].stats, splits[1].stats)


def test_encoders_see_training_rows_only(tmp_path):
    table = mixed_table(600)
    country = table["country"].to_pylist()
    country[-60:] = ["only in test"] * 60
    table = table.set_column(1, "country", pa.array(country))
    config = dataset_from_files(written(tmp_path, table), label="click", split=EIGHTY)
    data = prepare(config, tmp_path / "o", seed=0)
    position = [f.name for f in data.layout.fields].index("country")
    assert (data.split("test").ids[:, position] == 0).all()


def test_what_was_left_out_or_unreadable_is_kept_for_the_user(tmp_path):
    rows = 600
    columns = {
        "request": [f"{i * 7919:016x}" for i in range(rows)],
        "price": ["oops"] + [f"{i % 83 / 4}" for i in range(rows - 1)],
        "click": [i % 3 % 2 for i in range(rows)],
    }
    config = dataset_from_files(written(tmp_path, pa.table(columns), "log.csv"), label="click")
    warnings = prepare(config, tmp_path / "o", seed=0).report["warnings"]
    assert any(w.startswith("request is left out") for w in warnings)
    assert "price: 1 values that are no numbers (such as 'oops') count as missing" in warnings


def test_reuse_and_change(dataset, tmp_path):
    out = tmp_path / "out"
    said = []
    prepare(dataset, out, seed=0, progress=said.append)
    stamp = (out / "train.arrow").stat().st_mtime_ns
    prepare(dataset, out, seed=0, progress=said.append)
    assert said[-1] == "encoded data found, nothing has changed"
    assert (out / "train.arrow").stat().st_mtime_ns == stamp
    prepare(dataset, out, seed=1)
    assert (out / "train.arrow").stat().st_mtime_ns != stamp
    written(tmp_path, mixed_table(700))
    assert sum(prepare(dataset, out, seed=1).rows.values()) == 700
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.parquet", "out"]


def test_a_file_moved_to_another_part_or_folder_is_a_change(tmp_path):
    table = mixed_table(90)
    for i, folder in enumerate(("train/day=1", "train/day=2", "valid/day=3")):
        (tmp_path / folder).mkdir(parents=True)
        written(tmp_path / folder, table.slice(30 * i, 30), "log.parquet")
    parts = [str(tmp_path / part / "*" / "log.parquet") for part in ("train", "valid")]
    config = dataset_from_files(*parts, label="click")
    seen = {fingerprint(config, 0)}
    for source, target in (("train/day=2", "valid/day=2"), ("valid/day=3", "valid/day=4")):
        (tmp_path / source).rename(tmp_path / target)
        seen.add(fingerprint(config, 0))
    assert len(seen) == 3


def test_the_same_bytes_again(dataset, tmp_path):
    for name in ("a", "b"):
        prepare(dataset, tmp_path / name, seed=3)
    for file in sorted(p for p in (tmp_path / "a").rglob("*") if p.is_file()):
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert file.read_bytes() == other.read_bytes(), file.name


def test_given_files_and_missing_ones(tmp_path):
    table = mixed_table(600)
    train = written(tmp_path, table.slice(0, 400), "train.parquet")
    test = written(tmp_path, table.slice(400), "test.parquet")
    config = dataset_from_files(train, test=test, label="click", split=EIGHTY)
    assert prepare(config, tmp_path / "o", seed=0).rows == {"train": 355, "valid": 45, "test": 200}


def test_text_and_typed_files_together(tmp_path):
    table = mixed_table(600).drop_columns(["tags"])
    parts = [
        written(tmp_path, table.slice(0, 400), "train.csv"),
        written(tmp_path, table.slice(400, 100), "valid.parquet"),
        written(tmp_path, table.slice(500), "test.csv"),
    ]
    mixed = prepare(dataset_from_files(*parts, label="click"), tmp_path / "mixed", seed=0)
    typed = [written(tmp_path, t, f"{i}.parquet") for i, t in enumerate(map(pq_table, parts))]
    same = prepare(dataset_from_files(*typed, label="click"), tmp_path / "typed", seed=0)
    for split in ("train", "valid", "test"):
        np.testing.assert_array_equal(mixed.split(split).ids, same.split(split).ids)
        np.testing.assert_allclose(mixed.split(split).dense, same.split(split).dense, atol=1e-6)


def pq_table(path):
    return pacsv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)


def test_weights_and_negative_sampling(tmp_path):
    table = mixed_table(600).append_column("w", pa.array(np.full(600, 2.0)))
    features = FeatureSchema(
        label=LabelRule(column="click"),
        fields=(FieldSpec(name="country"),),
        sample_weight="w",
        negative_sampling_rate=0.25,
    )
    config = DatasetConfig(files=(str(written(tmp_path, table)),), features=features)
    train = prepare(config, tmp_path / "o", seed=0).split("train")
    np.testing.assert_array_equal(train.sample_weight, np.where(train.labels > 0, 2.0, 8.0))


def test_soft_labels_go_with_their_rows_and_are_no_feature(tmp_path):
    table = mixed_table(600)
    answers = np.linspace(0, 1, 600)
    answers[::3] = np.nan
    table = table.append_column("score", pa.array(answers)).append_column(
        "position", pa.array(np.arange(600.0))
    )
    features = FeatureSchema(label=LabelRule(column="click"), soft_label="score")
    config = DatasetConfig(files=(str(written(tmp_path, table)),), features=features)
    assert "score" not in {
        field.source for field in with_fields(config, []).dataset.features.fields
    }
    fields = (FieldSpec(name="position", kind="numeric"),)
    features = features.model_copy(update={"fields": fields})
    data = prepare(config.model_copy(update={"features": features}), tmp_path / "o", seed=0)
    order = np.concatenate([data.split(s).dense[:, 0] for s in SPLITS]).argsort()
    found = np.concatenate([data.split(s).soft_labels for s in SPLITS])[order]
    np.testing.assert_array_equal(found, answers.astype(np.float32))


def test_files_to_validate_on_need_no_soft_labels(tmp_path):
    table = mixed_table(600)
    taught = table.append_column("score", pa.array(np.full(600, 0.25)))
    features = FeatureSchema(
        label=LabelRule(column="click"), fields=(FieldSpec(name="country"),), soft_label="score"
    )
    config = DatasetConfig(
        files=(str(written(tmp_path, taught)),),
        test_files=(str(written(tmp_path, table, "test.parquet")),),
        features=features,
    )
    data = prepare(config, tmp_path / "o", seed=0)
    assert set(data.split("train").soft_labels) == {0.25}
    assert np.isnan(data.split("test").soft_labels).all()


def test_a_file_is_in_one_part_only(dataset, tmp_path):
    (tmp_path / "link.parquet").symlink_to(dataset.files[0])
    twice = dataset.model_copy(update={"test_files": (str(tmp_path / "link.parquet"),)})
    with pytest.raises(DataError, match=r"link.parquet is given for train and for test; leave"):
        prepare(twice, tmp_path / "o", seed=0)


def test_a_soft_label_is_a_probability(tmp_path):
    table = mixed_table(600).append_column("score", pa.array(np.linspace(-1, 1, 600)))
    features = FeatureSchema(
        label=LabelRule(column="click"), fields=(FieldSpec(name="country"),), soft_label="score"
    )
    config = DatasetConfig(files=(str(written(tmp_path, table)),), features=features)
    with pytest.raises(DataError, match=r"'score' are probabilities, from 0 to 1, and -1 is not"):
        prepare(config, tmp_path / "o", seed=0)
    assert not (tmp_path / "o").exists()


def test_entities_label_rules_and_drops(tmp_path):
    rng = np.random.default_rng(0)
    log = pa.table(
        {
            "uid": rng.integers(0, 30, 500),
            "iid": rng.integers(0, 20, 500),
            "stars": rng.integers(1, 6, 500),
        }
    )
    users = pa.table({"uid": np.arange(30).astype(str), "job": rng.choice(["a", "b"], 30)})
    extra = pa.table({"uid": np.arange(25), "seen": [[1, 2]] * 25})
    items = pa.table({"id": np.arange(20), "kind": rng.choice(["x", "y"], 20)})
    paths = {
        name: str(written(tmp_path, table, f"{name}.parquet"))
        for name, table in (("log", log), ("users", users), ("extra", extra), ("items", items))
    }
    config = DatasetConfig(
        files=(paths["log"],),
        entities=(
            EntityTable(files=(paths["users"],), entity="user", key="uid"),
            EntityTable(files=(paths["extra"],), entity="user", key="uid"),
            EntityTable(files=(paths["items"],), entity="item", key="iid", key_in_table="id"),
        ),
        features=FeatureSchema(
            label=LabelRule(column="stars", positive="stars >= 4", drop="stars == 3"),
            fields=(
                FieldSpec(name="uid", entity="user"),
                FieldSpec(name="job", entity="user"),
                FieldSpec(name="seen", kind="multi_valued", entity="user"),
                FieldSpec(name="iid", entity="item"),
                FieldSpec(name="kind", entity="item"),
            ),
            user_key="uid",
            item_key="iid",
        ),
        split=SplitConfig(by="random"),
    )
    data = prepare(config, tmp_path / "out", seed=0)
    stars = np.array(log["stars"])
    assert sum(data.rows.values()) == (stars != 3).sum()
    assert data.report["rows_dropped"] == (stars == 3).sum()
    raw = data.raw_test()
    assert set(raw.column_names) >= {"uid", "iid", "job", "seen", "kind", "stars"}
    row = {name: raw[name][0].as_py() for name in raw.column_names}
    ranked = data.encoder.encode_rank(row["uid"], {}, [row["iid"]])
    np.testing.assert_array_equal(ranked.ids[0], data.split("test").ids[0])
    without = config.model_copy(update={"features": FeatureSchema(label=config.features.label)})
    inferred = prepare(without, tmp_path / "inferred", seed=0)
    names = {f.name: f.entity for f in inferred.schema.fields}
    assert names["job"] == "user"
    assert names["kind"] == "item"


@pytest.mark.parametrize(("known", "is_told"), [(10, True), (20, False)])
def test_keys_that_a_table_lacks_are_told_where_they_are_many(tmp_path, known, is_told):
    rng = np.random.default_rng(0)
    log = {"uid": rng.integers(0, 20, 400), "x": rng.normal(size=400), "y": [0, 1] * 200}
    users = {"uid": np.arange(known), "job": rng.choice(["a", "b"], known)}
    config = DatasetConfig(
        files=(str(written(tmp_path, pa.table(log), "log.parquet")),),
        entities=(
            EntityTable(
                files=(str(written(tmp_path, pa.table(users), "users.parquet")),),
                entity="user",
                key="uid",
            ),
        ),
        features=FeatureSchema(
            label=LabelRule(column="y"),
            fields=(FieldSpec(name="job", entity="user"), FieldSpec(name="x", kind="numeric")),
            user_key="uid",
        ),
    )
    warnings = prepare(config, tmp_path / "out", seed=0).report["warnings"]
    share = (np.asarray(log["uid"]) >= known).mean()
    told = [w for w in warnings if f"{share:.0%} of the rows have a uid that the user table" in w]
    assert bool(told) is is_told


def test_parts_given_as_files_are_not_said_to_be_cut(tmp_path):
    rng = np.random.default_rng(0)
    names = ("train", "valid", "test")
    for name in names:
        times = 1_700_000_000 + rng.integers(0, 10_000_000, 400)
        columns = {"event_time": times, "x": rng.normal(size=400), "y": rng.integers(0, 2, 400)}
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    train, valid, test = (tmp_path / f"{name}.parquet" for name in names)
    config = dataset_from_files(train, valid=valid, label="y")
    report = prepare(config, tmp_path / "two", seed=0).report
    assert any("rows are cut at random" in warning for warning in report["warnings"])
    whole = dataset_from_files(train, valid=valid, test=test, label="y")
    report = prepare(whole, tmp_path / "three", seed=0).report
    assert not any("rows are cut" in warning for warning in report["warnings"])


@pytest.mark.parametrize("unreadable", [0, 3])
def test_rows_without_a_time_are_said_to_be_trained_on(tmp_path, unreadable):
    rows = 600
    days = [f"2024-{1 + i // 60:02}-{1 + i // 3 % 20:02}" for i in range(rows)]
    days[rows - unreadable :] = [None] * unreadable
    columns = {
        "day": days,
        "x": [i % 7 for i in range(rows)],
        "y": [i % 3 % 2 for i in range(rows)],
    }
    config = DatasetConfig(
        files=(str(written(tmp_path, pa.table(columns))),),
        features=FeatureSchema(
            label=LabelRule(column="y"),
            fields=(FieldSpec(name="x", kind="numeric"),),
            timestamp="day",
        ),
    )
    report = prepare(config, tmp_path / "out", seed=0).report
    assert report["split_by"] == "time"
    told = [w for w in report["warnings"] if w.startswith("3 rows have no time in day")]
    assert bool(told) is bool(unreadable)
