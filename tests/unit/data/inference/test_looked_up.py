"""The categories of a history's items."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.batch import MISSING, OUT_OF_VOCABULARY, PADDING
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import load_entities
from dynens.data.inference.infer import infer_schema, with_fields
from dynens.data.prepare import prepare
from dynens.report.html import value_name
from dynens.schema import DatasetConfig

ROWS, ITEMS, TOPICS, USERS = 6000, 200, 8, 400


def reading(seed=0, told_by="topic"):
    """Impressions of news beside what the user read, and the news."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, TOPICS, ITEMS)
    taste = rng.dirichlet(np.full(TOPICS, 0.2), USERS)
    of_topic = [np.flatnonzero(topic == t) for t in range(TOPICS)]
    read = [
        [rng.choice(of_topic[t]) for t in rng.choice(TOPICS, rng.integers(0, 8), p=taste[u])]
        for u in range(USERS)
    ]
    user, item = rng.integers(0, USERS, ROWS), rng.integers(0, ITEMS, ROWS)
    alike = np.array(
        [any(topic[i] == topic[j] for j in read[u]) for u, i in zip(user, item, strict=True)]
    )
    again = np.array([i in read[u] for u, i in zip(user, item, strict=True)])
    chance = {
        "topic": np.where(alike, 0.5, 0.15),
        "the item itself": np.where(again, 0.9, 0.2),
        "popular topics": 0.1 + topic[item] / 12,
        "nothing": np.full(ROWS, 0.3),
    }[told_by]
    rows = pa.table(
        {
            "user_id": [f"U{u}" for u in user],
            "news_id": [f"N{i}" for i in item],
            "history": [" ".join(f"N{i}" for i in read[u]) for u in user],
            "click": (rng.random(ROWS) < chance).astype(int),
        }
    )
    news = pa.table(
        {
            "news_id": [f"N{i}" for i in range(ITEMS)],
            "topic": [f"t{t}" for t in topic],
            "writer": [f"w{w}" for w in rng.integers(0, 40, ITEMS)],
        }
    )
    return rows, news


def flat(rows, news):
    """The news' columns in every row."""
    places = [int(name[1:]) for name in rows["news_id"].to_pylist()]
    for name in ("topic", "writer"):
        rows = rows.append_column(name, news[name].take(pa.array(places)))
    return rows


def through(features):
    return {f.name: (f.through, f.vocabulary_of) for f in features.fields if f.through}


def dataset(tmp_path, rows, news):
    """With the news in a table of their own."""
    pq.write_table(rows, tmp_path / "rows.parquet")
    pq.write_table(news, tmp_path / "news.parquet")
    return DatasetConfig(
        files=(str(tmp_path / "rows.parquet"),),
        features={"label": {"column": "click"}, "user_key": "user_id", "item_key": "news_id"},
        entities=({"files": str(tmp_path / "news.parquet"), "entity": "item", "key": "news_id"},),
    )


EXPECTED = {"history.topic": (("history.words", "news_id"), "topic")}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("told_by", ["topic", "the item itself", "popular topics", "nothing"])
def test_only_categories_that_tell_by_meeting_are_looked_up(tmp_path, told_by, seed):
    table = flat(*reading(seed, told_by))
    pq.write_table(table, tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    assert through(found) == (EXPECTED if told_by == "topic" else {})


def test_a_looked_up_field_is_called_like_no_other(tmp_path):
    rows, news = reading()
    table = flat(rows, news).rename_columns({"topic": "words"})
    pq.write_table(table, tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    assert through(found) == {"history.words_": (("history.words", "news_id"), "words")}


@pytest.mark.parametrize("spelled", ["N{}", "n{}", "{}"])
@pytest.mark.parametrize("separator", [" ", "|", ","])
def test_however_keys_are_spelled_and_listed(tmp_path, spelled, separator):
    table = flat(*reading())
    for name in ("history", "news_id"):
        texts = [t.replace("N", spelled[:-2]) for t in table[name].to_pylist()]
        if name == "history":
            texts = [t.replace(" ", separator) for t in texts]
        table = table.set_column(table.column_names.index(name), name, pa.array(texts))
    pq.write_table(table, tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    (field,) = [f for f in found.fields if f.through]
    assert (field.name, field.vocabulary_of) == ("history.topic", "topic")
    assert found.field(field.through[0]).keep == "last"


def test_they_are_found_in_an_items_table(tmp_path):
    config = dataset(tmp_path, *reading())
    found = with_fields(config, load_entities(config)).dataset.features
    assert through(found) == EXPECTED
    field = found.field("history.topic")
    assert field.entity == found.field("history.words").entity
    assert field.why.startswith(
        "the topic of each news_id in history.words; where history.topic and"
    )


def test_values_are_looked_up_alike_in_tables_requests_and_a_loaded_encoder(tmp_path):
    rows, news = reading()
    data = prepare(dataset(tmp_path, rows, news), tmp_path / "data", seed=0)
    encoder, loaded = data.encoder, RowEncoder.load(tmp_path / "data" / "encoder")
    at = {name: ids for name, (_, ids) in encoder.field_columns().items()}
    some = rows.slice(0, 50).drop_columns(["click"])
    ids = encoder.encode_table(some).ids
    topic_of = dict(zip(news["news_id"].to_pylist(), news["topic"].to_pylist(), strict=True))
    topics = next(e for e in encoder.encoders if e.spec.name == "topic").vocabulary
    for row, history in zip(ids, some["history"].to_pylist(), strict=True):
        width = at["history.topic"].stop - at["history.topic"].start
        expected = [topics.id_of(topic_of[n]) for n in history.split()][:width] or [MISSING]
        assert row[at["history.topic"]].tolist() == expected + [PADDING] * (width - len(expected))
    assert (loaded.encode_table(some).ids == ids).all()
    names = [value_name(loaded, name, 2) for name in ("topic", "history.topic")]
    assert names == [topics.values[0].as_py()] * 2
    columns = {name: some[name].to_pylist() for name in ("user_id", "history")}
    for i, news_id in enumerate(some["news_id"].to_pylist()[:10]):
        context = {"history": columns["history"][i]}
        whole = encoder.encode_rank(columns["user_id"][i], context, [news_id])
        assert (whole.ids == ids[i]).all()
        candidates = encoder.candidates(columns["user_id"][i], context, [news_id])
        assert (candidates.encoded().ids == ids[i]).all()


def test_news_without_a_category_are_out_of_vocabulary(tmp_path):
    rows, news = reading()
    rows = rows.set_column(2, "history", pa.array(["N1 N999 N2"] * ROWS))
    config = dataset(tmp_path, rows, news.filter(pa.array(np.arange(ITEMS) != 2)))
    fields = [
        {"name": "news_id", "entity": "item"},
        {"name": "topic", "entity": "item"},
        {"name": "history", "kind": "multi_valued", "separator": " "},
        {
            "name": "read",
            "kind": "multi_valued",
            "through": ["history", "news_id"],
            "vocabulary_of": "topic",
        },
    ]
    features = {**config.features.model_dump(), "fields": fields}
    config = DatasetConfig(**{**config.model_dump(), "features": features})
    encoder = prepare(config, tmp_path / "data", seed=0).encoder
    row = encoder.encode_table(rows.slice(0, 1)).ids[0, encoder.field_columns()["read"][1]]
    assert row[0] > MISSING
    assert row[1:].tolist() == [OUT_OF_VOCABULARY, OUT_OF_VOCABULARY]
