"""Pairs of categories that tell the label together."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.batch import MISSING, OUT_OF_VOCABULARY
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import RawEntity, load_entities
from dynens.data.inference.infer import infer_schema, with_fields
from dynens.data.prepare import prepare
from dynens.errors import ConfigError, SchemaError
from dynens.rules import LabelRule
from dynens.schema import (
    DatasetConfig,
    EntityTable,
    FeatureSchema,
    FieldSpec,
    VocabularyPolicy,
)
from tests.unit.data.encoded import fit, same

ROWS = 12_000
PORTS = [f"port {i}" for i in range(20)]


def routes(rng, told_by):
    """Flights whose delay depends on the route, or on both its ends each for itself."""
    start, end = rng.integers(0, 20, ROWS), rng.integers(0, 20, ROWS)
    if told_by == "route":
        logit = rng.normal(0, 1.2, (20, 20))[start, end]
    else:
        logit = rng.normal(0, 1.2, 20)[start] + rng.normal(0, 1.2, 20)[end]
    distance = rng.normal(0, 1, ROWS)
    delayed = rng.random(ROWS) < 1 / (1 + np.exp(1 - logit - distance))
    names = np.array(PORTS)
    return pa.table(
        {"start": names[start], "end": names[end], "distance": distance, "y": delayed * 1}
    )


def crossed_in(path):
    fields = infer_schema(path, "y").dataset.features.fields
    return {f.name: f for f in fields if f.crossed is not None}


@pytest.mark.parametrize("seed", range(3))
def test_a_route_is_where_it_starts_and_ends(tmp_path, seed):
    pq.write_table(routes(np.random.default_rng(seed), "route"), tmp_path / "t.parquet")
    found = crossed_in(tmp_path / "t.parquet")
    assert list(found) == ["start × end"]
    assert found["start × end"].crossed == ("start", "end")


@pytest.mark.parametrize("seed", range(3))
def test_ends_that_tell_each_for_itself_are_no_route(tmp_path, seed):
    pq.write_table(routes(np.random.default_rng(seed), "ends"), tmp_path / "t.parquet")
    assert not crossed_in(tmp_path / "t.parquet")


def test_copies_of_rows_do_not_agree_with_themselves(tmp_path):
    rng = np.random.default_rng(0)
    minute, shop = rng.integers(0, 900, ROWS), rng.integers(0, 3, ROWS)
    x = rng.normal(size=ROWS)
    logit = x + rng.normal(0, 0.7, 900)[minute] + rng.normal(0, 0.7, 3)[shop]
    click = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    table = pa.table({"minute": minute.astype(str), "shop": shop.astype(str), "x": x, "y": click})
    rows = rng.permutation(np.append(np.arange(ROWS), np.arange(ROWS // 2)))
    pq.write_table(table.take(rows), tmp_path / "t.parquet")
    assert not crossed_in(tmp_path / "t.parquet")


def test_pairs_of_a_users_and_an_items_category_are_found_in_their_tables(tmp_path):
    rng = np.random.default_rng(0)
    job, kind = rng.integers(0, 8, 300), rng.integers(0, 12, 200)
    user, item = rng.integers(0, 300, ROWS), rng.integers(0, 200, ROWS)
    logit = rng.normal(0, 1.2, (8, 12))[job[user], kind[item]]
    log = {"user": user, "item": item, "y": rng.random(ROWS) < 1 / (1 + np.exp(-logit))}
    users = {"user": np.arange(300), "job": [f"job {i}" for i in job]}
    items = {"item": np.arange(200), "kind": [f"kind {i}" for i in kind]}
    for name, columns in (("log", log), ("users", users), ("items", items)):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    config = DatasetConfig(
        files=(str(tmp_path / "log.parquet"),),
        entities=(
            EntityTable(files=str(tmp_path / "users.parquet"), entity="user", key="user"),
            EntityTable(files=str(tmp_path / "items.parquet"), entity="item", key="item"),
        ),
        features=FeatureSchema(label=LabelRule(column="y")),
    )
    fields = with_fields(config, load_entities(config)).dataset.features.fields
    assert [f.crossed for f in fields if f.crossed] == [("job", "kind")]
    data = prepare(config, tmp_path / "out", seed=0)
    rows = pa.table({"user": [7, 7, 7], "item": [5, 9, 3]})
    ranked = data.encoder.encode_rank(7, {}, [5, 9, 3])
    same(ranked, data.encoder.encode_table(rows))


def tastes(rng, told_by):
    """Twelve rows a user, of six kinds; what they like: kinds, much or little, by the day."""
    user, kind, day = rng.integers(0, 1000, ROWS), rng.integers(0, 6, ROWS), np.arange(ROWS) // 500
    active = rng.random(ROWS) < 0.5
    logit = {
        "kind": rng.normal(0, 1.5, (1000, 6))[user, kind],
        "user": rng.normal(0, 1.5, 1000)[user] + rng.normal(0, 1, 6)[kind] - 3 * active,
        "day": rng.normal(0, 2.5, (1000, 24))[user, day],
    }[told_by]
    if told_by == "day":
        kind = (day + rng.integers(0, 2, ROWS)) % 24 // 2  # of which a user's day has few
    return pa.table(
        {
            "time": np.datetime64("2024-05-01", "s") + np.arange(ROWS) * np.timedelta64(173, "s"),
            "user": [f"u{i}" for i in user],
            "kind": [f"kind {i}" for i in kind],
            "active": [f"{i}" for i in active],
            "y": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))) * 1,
        }
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("told_by", "found"), [("kind", ["user × kind"]), ("user", []), ("day", [])]
)
def test_what_each_user_likes_has_few_rows(tmp_path, seed, told_by, found):
    pq.write_table(tastes(np.random.default_rng(seed), told_by), tmp_path / "t.parquet")
    pairs = crossed_in(tmp_path / "t.parquet")
    assert list(pairs) == found
    assert all(spec.vocabulary.min_count == 2 for spec in pairs.values())


def test_few_numbers_are_values_too(tmp_path):
    rng = np.random.default_rng(5)
    topic, slot = rng.integers(0, 25, ROWS), rng.integers(0, 12, ROWS)
    logit = rng.normal(0, 1.2, (25, 12))[topic, slot] + 0.05 * topic
    table = {
        "topic": topic,
        "item_slot": slot,
        "topic.value": rng.normal(size=ROWS),
        "y": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (pair,) = crossed_in(tmp_path / "t.parquet").values()
    assert pair.entity == "item"  # one of the two is
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    columns = {f.name: f.source for f in fields}
    assert len(columns) == len(fields)
    assert {columns[side] for side in pair.crossed} == {"topic", "item_slot"}


def test_pairs_have_ids_by_every_road(tmp_path):
    table = pa.table(
        {
            "a": ["x", "x", "y", "y", None, "x", "y", "x", "new", "rare"],
            "b": pa.array([1, 1, 2, 2, 1, None, 1, 7, 1, 2]),
        }
    )
    specs = [
        FieldSpec(name="a"),
        FieldSpec(name="b"),
        FieldSpec(name="a × b", crossed=("a", "b"), vocabulary=VocabularyPolicy(min_count=2)),
    ]
    encoder = fit(specs, table.slice(0, 8))
    at = encoder.field_columns()["a × b"][1].start
    ids = encoder.encode_table(table).ids[:, at].tolist()
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert min(ids[0], ids[2]) >= 2
    assert ids[4:6] == [MISSING, MISSING]
    assert ids[6:] == [OUT_OF_VOCABULARY] * 4
    columns = {name: table[name].to_pylist() for name in ("b", "a")}
    assert encoder.encode_columns(columns).ids[:, at].tolist() == ids
    assert encoder.encode_columns({"a": ["x"]}).ids[0, at] == MISSING
    assert [field.name for field in encoder.input_fields] == ["a", "b"]
    encoder.save(tmp_path)
    again = RowEncoder.load(tmp_path)
    np.testing.assert_array_equal(again.encode_table(table).ids, encoder.encode_table(table).ids)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crossed": ("a", "c")}, "crossed from 'c', which is no categorical field"),
        ({"crossed": ("a", "n")}, "crossed from 'n', which is no categorical field"),
        ({"crossed": ("a", "h")}, "whose values are hashed"),
        ({"crossed": ("a", "i")}, "its entity must be item"),
        ({"crossed": ("a", "a2"), "column": "a"}, "have no column"),
    ],
)
def test_pairs_that_cannot_be(changes, message):
    fields = [
        {"name": "a"},
        {"name": "a2"},
        {"name": "n", "kind": "numeric"},
        {"name": "h", "vocabulary": {"hash_buckets": 10}},
        {"name": "i", "entity": "item"},
        {"name": "pair", **changes},
    ]
    with pytest.raises((ConfigError, SchemaError, ValueError), match=message):
        FeatureSchema.model_validate({"label": {"column": "y"}, "fields": fields})


def test_pairs_of_ranking_requests(tmp_path):
    rng = np.random.default_rng(2)
    rows = 60
    table = pa.table({"slot": rng.choice(["p", "q"], rows), "item": rng.choice(["1", "2"], rows)})
    kinds = pa.table({"item": ["1", "2"], "kind": ["u", "v"]})
    entity = RawEntity("item", "item", kinds)
    specs = [
        FieldSpec(name="item", entity="item"),
        FieldSpec(name="kind", entity="item"),
        FieldSpec(name="slot"),
        FieldSpec(name="slot × kind", crossed=("slot", "kind"), entity="item"),
    ]
    encoder = fit(specs, table, [entity], item_key="item")
    rows = pa.table({"slot": ["q", "q"], "item": ["2", "1"]})
    same(encoder.encode_rank(None, {"slot": "q"}, ["2", "1"]), encoder.encode_table(rows))
    at = encoder.field_columns()["slot × kind"][1].start
    assert encoder.encode_table(rows).ids[:, at].min() >= 2
    assert encoder.item_table() is None  # a pair is neither the context's nor the item's


def test_values_of_numbers_with_decimal_commas_are_the_numbers_that_requests_send(tmp_path):
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 54, (2, 5000)) // [[1], [9]]  # of few rows each, whose size tells
    odds = np.exp(rng.normal(0, 1.6, (6, 6))[a // 9, b] + a / 20)
    clicks = (rng.random(5000) < odds / (1 + odds)) * 1
    rows = [f"{i},0;{j};{x:.2f};{y}" for i, j, x, y in zip(a, b, a / 7, clicks, strict=True)]
    path = tmp_path / "t.csv"
    path.write_text("a;b;x;y\n" + "\n".join(rows).replace(".", ","))
    fields = infer_schema(path, "y").dataset.features.fields
    assert [f.name for f in fields][-1] == "a.value × b"
    texts = pa.table({"a": [f"{i},0" for i in a], "b": b, "x": [f"{i}" for i in a]})
    encoder = fit(fields, texts)
    assert (encoder.encode_table(texts).ids > OUT_OF_VOCABULARY).all()
    as_numbers = {"a": a.astype(float).tolist(), "b": b.tolist(), "x": a.tolist()}
    as_texts = {name: texts[name].to_pylist() for name in texts.column_names}
    same(encoder.encode_columns(as_numbers), encoder.encode_table(texts))
    same(encoder.encode_columns(as_texts), encoder.encode_table(texts))
    few = {name: values[:5] for name, values in as_texts.items()}
    same(encoder.encode_columns(few), encoder.encode_table(texts.slice(0, 5)))
