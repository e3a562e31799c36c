"""Fields that hold the same values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, VocabularyPolicy

ROWS, ITEMS = 3000, 60


def behaviour(seed=0, told_by="meeting"):
    """Histories, items and clicks: likelier where both meet, where items are popular, nowhere."""
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(ITEMS, 0.4))
    history = [rng.choice(ITEMS, rng.integers(1, 9), p=popularity) for _ in range(ROWS)]
    item = rng.choice(ITEMS, ROWS)
    meets = np.array([i in h for i, h in zip(item, history, strict=True)])
    chance = {
        "meeting": np.where(meets, 0.5, 0.2),
        "popularity": np.clip(0.1 + 8 * popularity[item], 0, 0.9),
        "nothing": np.full(ROWS, 0.3),
    }[told_by]
    return pa.table(
        {
            "item_id": [f"i{i}" for i in item],
            "watched": ["|".join(f"i{i}" for i in h) for h in history],
            "shop": [f"s{i}" for i in rng.integers(0, 20, ROWS)],
            "click": (rng.random(ROWS) < chance).astype(int),
        }
    )


def shared(table, tmp_path):
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "click").dataset.features.fields
    return {f.name: f.vocabulary_of for f in fields if f.vocabulary_of}, fields


def test_a_history_that_holds_the_item_shares_its_vocabulary(tmp_path):
    found, fields = shared(behaviour(), tmp_path)
    assert found == {"watched": "item_id"}
    (why,) = [f.why for f in fields if f.name == "watched"]
    assert "its values are those of item_id: where they meet 49% are positive, elsewhere 18%" in why


@pytest.mark.parametrize("told_by", ["popularity", "nothing"])
@pytest.mark.parametrize("seed", [1, 2])
def test_values_that_tell_no_more_by_meeting_do_not(tmp_path, told_by, seed):
    found, _ = shared(behaviour(seed, told_by), tmp_path)
    assert found == {}


def test_categories_that_are_equal_share_one(tmp_path):
    rng = np.random.default_rng(0)
    sides = {name: [f"c{i}" for i in rng.integers(0, 15, ROWS)] for name in ("home", "shop")}
    equal = np.array(sides["home"]) == np.array(sides["shop"])
    clicks = (rng.random(ROWS) < np.where(equal, 0.7, 0.3)).astype(int)
    found, _ = shared(pa.table({**sides, "click": clicks}), tmp_path)
    assert len(found) == 1
    assert set(found) | set(found.values()) == {"home", "shop"}


def test_equal_values_have_equal_ids(tmp_path):
    table = pa.table(
        {
            "watched": [["a", "b"], ["b", "c"], ["z", "c"], None] * 25,
            "last": ["b", "q", None, "a"] * 25,
            "item": ["a", "d", "c", "d"] * 25,
            "y": [0, 1, 1, 0] * 25,
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    policy = VocabularyPolicy(min_count=1)
    fields = (
        FieldSpec(name="watched", kind="multi_valued", entity="user", vocabulary_of="item"),
        FieldSpec(name="last", entity="user", vocabulary_of="item"),
        FieldSpec(name="item", entity="item", vocabulary=policy),
    )
    schema = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    data = prepare(
        DatasetConfig(files=(str(tmp_path / "t.parquet"),), features=schema), tmp_path / "d", seed=0
    )
    watched, last, item = (e.vocabulary.values.to_pylist() for e in data.encoder.encoders)
    assert watched == last == item
    assert set(item) == {"a", "b", "c", "d", "q", "z"}
    assert [f.vocabulary_of for f in data.layout.fields] == ["item", "item", None]
    values = {"watched": [["c", "a"]], "last": ["a"], "item": ["a"]}
    first, second, last, item = data.encoder.encode_columns(values).ids[0]
    assert first != second == last == item
