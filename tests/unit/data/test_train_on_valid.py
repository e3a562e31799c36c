"""Rows that judge in one pass and train in another."""

import numpy as np
import pyarrow as pa

from dynens.batch import OUT_OF_VOCABULARY
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.schema import SplitConfig
from tests.unit.data.tables import mixed_table, written

BY_TIME = SplitConfig(fractions=(0.8, 0.1, 0.1))


def test_validation_rows_train_and_can_still_be_told_apart(tmp_path):
    table = mixed_table(600)
    user = table["user_id"].to_pylist()
    user[480:540] = [1000 + i % 3 for i in range(60)]  # seen in no row before
    table = table.set_column(0, "user_id", pa.array(user))
    config = dataset_from_files(written(tmp_path, table), label="click", split=BY_TIME)
    before = prepare(config, tmp_path / "before", seed=0)
    after = prepare(config, tmp_path / "after", seed=0, train_on_valid=True)
    assert before.rows == {"train": 480, "valid": 60, "test": 60}
    assert after.rows == before.rows
    assert (before.trains_on_valid, after.trains_on_valid) == (False, True)
    valid, train = after.split("valid"), after.split("train")
    assert (len(valid), len(train)) == (60, 540)
    for name in ("labels", "groups"):
        theirs = getattr(before.split("valid"), name)
        np.testing.assert_array_equal(getattr(valid, name), theirs)
        np.testing.assert_array_equal(getattr(train, name)[480:], theirs)
    np.testing.assert_array_equal(valid.dense.shape, before.split("valid").dense.shape)
    at = [field.name for field in after.layout.fields].index("user_id")
    assert (before.split("valid").ids[:, at] == OUT_OF_VOCABULARY).all()
    assert (valid.ids[:, at] != OUT_OF_VOCABULARY).all()
    assert valid.stats is None
    assert train.stats is not None
    assert train.stats.shape[0] == 540
    np.testing.assert_array_equal(after.split("test").labels, before.split("test").labels)


def test_rows_given_for_validation_train_in_the_order_they_were_read(tmp_path):
    table = mixed_table(600)
    train, valid = (
        written(tmp_path, part, name)
        for part, name in ((table.slice(0, 500), "a.parquet"), (table.slice(500), "b.parquet"))
    )
    config = dataset_from_files(train, label="click", valid=valid)
    both = [
        prepare(config, tmp_path / f"out-{known}", seed=0, train_on_valid=known)
        for known in (False, True)
    ]
    assert len(both[1].split("train")) == both[0].rows["train"] + 100
    held_out, known = (data.split("valid") for data in both)
    np.testing.assert_array_equal(known.labels, held_out.labels)
    assert known.labels is not None
    assert known.grades is None


def test_encoded_data_of_one_pass_are_not_those_of_the_other(tmp_path):
    config = dataset_from_files(written(tmp_path), label="click", split=BY_TIME)
    prepare(config, tmp_path / "o", seed=0)
    assert len(prepare(config, tmp_path / "o", seed=0, train_on_valid=True).split("train")) == 540
    assert len(prepare(config, tmp_path / "o", seed=0).split("train")) == 480
