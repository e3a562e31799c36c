"""Training rows without a label: which they are, and that they change nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest

from dynens.data.prepare import prepare
from dynens.data.prepared import PreparedData
from dynens.data.splits import LEFT_OUT, PARTS, split_rows
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, SplitConfig
from tests.unit.data.tables import written

NUM_ROWS = 600
FIELDS = tuple(FieldSpec(name=name, kind="categorical") for name in ("user", "item"))


def ratings(**columns: object) -> pa.Table:
    rng = np.random.default_rng(0)
    table = {"user": rng.integers(0, 20, NUM_ROWS), "item": rng.integers(0, 30, NUM_ROWS)}
    stars = rng.integers(1, 6, NUM_ROWS)
    return pa.table({**table, "stars": stars, "time": np.arange(NUM_ROWS), **columns})


def config_of(table: pa.Table, folder: Path, **label: str) -> DatasetConfig:
    rule = LabelRule(column="stars", positive="stars >= 4", **label)
    features = FeatureSchema(label=rule, fields=FIELDS)
    split = SplitConfig(by="random")
    return DatasetConfig(files=str(written(folder, table)), features=features, split=split)


def parts_of(config: DatasetConfig, out: Path) -> PreparedData:
    return prepare(config, out, seed=0)


def test_rows_of_the_rule_and_those_without_outcome_train_without_a_label(tmp_path: Path) -> None:
    stars = np.asarray(ratings()["stars"]).astype(float)
    stars[:50] = np.nan
    table = ratings(stars=pa.array(stars, from_pandas=True))
    data = parts_of(config_of(table, tmp_path, unlabelled="stars == 3"), tmp_path / "out")
    unlabelled = data.unlabelled
    assert unlabelled is not None
    assert len(unlabelled) == (stars == 3).sum() + 50 == data.report["rows_unlabelled"]
    assert unlabelled.labels is None
    has_none = (stars == 3) | np.isnan(stars)
    expected = data.encoder.encode_table(table.filter(pa.array(has_none)))
    np.testing.assert_array_equal(unlabelled.ids, expected.ids)


def test_nothing_else_depends_on_them(tmp_path: Path) -> None:
    with_, without = (
        parts_of(config_of(ratings(), tmp_path, **{rule: "stars == 3"}), tmp_path / rule)
        for rule in ("unlabelled", "drop")
    )
    assert without.unlabelled is None
    assert with_.rows == without.rows
    for part in ("train", "valid", "test"):
        one, other = with_.split(part), without.split(part)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.grades, other.grades)
    np.testing.assert_array_equal(with_.split("train").stats, without.split("train").stats)
    np.testing.assert_array_equal(with_.id_frequency, without.id_frequency)
    assert with_.raw_test().equals(without.raw_test())


def test_evaluation_leaves_them_out(tmp_path: Path) -> None:
    config = config_of(ratings(), tmp_path, unlabelled="stars == 3")
    data = parts_of(config, tmp_path / "out")
    told: list[str] = []
    batch = data.encode_file(config.files[0], told.append)
    stars = np.asarray(ratings()["stars"])
    assert len(batch) == (stars != 3).sum()
    assert any(f"{(stars == 3).sum()} rows have no label" in text for text in told)


def test_files_without_a_label_column(tmp_path: Path) -> None:
    config = config_of(ratings(weight=np.ones(NUM_ROWS)), tmp_path)
    features = config.features.model_copy(
        update={"sample_weight": "weight", "timestamp": "time", "group": "user"}
    )
    newer = pa.table({"user": ["3", "new"], "item": ["7", "8"]})
    pacsv.write_csv(newer, tmp_path / "newer.csv")
    files = (str(tmp_path / "newer.csv"),)
    config = config.model_copy(update={"features": features, "unlabelled_files": files})
    data = parts_of(config, tmp_path / "out")
    assert data.unlabelled is not None
    np.testing.assert_array_equal(data.unlabelled.ids, data.encoder.encode_table(newer).ids)
    assert sum(data.rows.values()) == NUM_ROWS
    assert data.report["rows_without_label"] == 2


def test_labels_in_files_without_labels_are_not_read(tmp_path: Path) -> None:
    config = config_of(ratings(), tmp_path)
    stars = pa.array([[1], None], pa.list_(pa.int64()))  # which no label may be
    table = pa.table({"user": [3, 4], "item": [7, 8], "stars": stars})
    files = (str(written(tmp_path, table, "open.parquet")),)
    data = parts_of(config.model_copy(update={"unlabelled_files": files}), tmp_path / "out")
    assert data.report["rows_unlabelled"] == 2
    assert sum(data.rows.values()) == NUM_ROWS


def test_weights_count_where_there_is_a_label(tmp_path: Path) -> None:
    stars = np.asarray(ratings()["stars"])
    weight = np.where(stars == 3, np.nan, 2.0)
    table = ratings(weight=pa.array(weight, from_pandas=True))
    config = config_of(table, tmp_path, unlabelled="stars == 3")
    features = config.features.model_copy(update={"sample_weight": "weight"})
    data = parts_of(config.model_copy(update={"features": features}), tmp_path / "out")
    assert set(np.unique(data.split("train").sample_weight)) == {2.0}
    labelled = LabelRule(column="stars", positive=">= 4")
    config = config.model_copy(update={"features": features.model_copy(update={"label": labelled})})
    with pytest.raises(DataError, match="sample weights in 'weight' must be positive"):
        parts_of(config, tmp_path / "other")


def test_rows_of_valid_and_test_files_need_a_label(tmp_path: Path) -> None:
    config = config_of(ratings(), tmp_path, unlabelled="stars == 3")
    files = {name: str(written(tmp_path, ratings(), f"{name}.parquet")) for name in ("a", "b")}
    given = {"valid_files": (files["a"],), "test_files": (files["b"],)}
    data = parts_of(config.model_copy(update=given), tmp_path / "out")
    stars = np.asarray(ratings()["stars"])
    assert data.rows == dict.fromkeys(("train", "valid", "test"), (stars != 3).sum())
    assert data.report["rows_unlabelled"] == (stars == 3).sum()


LABELS = np.tile([0, 1, np.nan], 300).astype(np.float32)
TRAIN_FILES = np.zeros(900, np.int8)
UNLABELLED_ROWS = np.isnan(LABELS)


def test_times_after_the_last_training_row_are_left_out() -> None:
    times = np.arange(900.0)
    times[2] = np.nan
    split = SplitConfig(by="time", fractions=(0.8, 0.1, 0.1))
    codes = split_rows(split, LABELS, TRAIN_FILES, 0, times=times)
    assert set(codes[~UNLABELLED_ROWS]) == {0, 1, 2}
    last = times[codes == 0].max()
    stays = UNLABELLED_ROWS & ~(times > last)
    np.testing.assert_array_equal(codes == PARTS.index("unlabelled"), stays)
    assert stays[2]
    np.testing.assert_array_equal(codes == LEFT_OUT, UNLABELLED_ROWS & (times > last))
    assert (codes == LEFT_OUT).sum() > 50


def test_times_of_validation_rows_stay_where_these_train_as_well() -> None:
    times = np.arange(900.0)
    split = SplitConfig(by="time", fractions=(0.8, 0.1, 0.1))
    before = split_rows(split, LABELS, TRAIN_FILES, 0, times=times)
    after = split_rows(split, LABELS, TRAIN_FILES, 0, times=times, train_on_valid=True)
    np.testing.assert_array_equal(after == 0, (before == 0) | (before == 1))
    np.testing.assert_array_equal(after == 2, before == 2)
    stays = UNLABELLED_ROWS & (times < times[before == 1].max())
    np.testing.assert_array_equal(after == PARTS.index("unlabelled"), stays)
    assert stays.sum() > (before == PARTS.index("unlabelled")).sum()


def test_groups_of_other_parts_are_left_out() -> None:
    groups = np.random.default_rng(0).integers(0, 50, 900)
    codes = split_rows(SplitConfig(by="group"), LABELS, TRAIN_FILES, 0, groups=groups)
    elsewhere = np.isin(groups, groups[(codes == 1) | (codes == 2)])
    np.testing.assert_array_equal(codes == LEFT_OUT, UNLABELLED_ROWS & elsewhere)
    np.testing.assert_array_equal(codes == PARTS.index("unlabelled"), UNLABELLED_ROWS & ~elsewhere)
