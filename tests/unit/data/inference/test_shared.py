"""Fields that hold the same values."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, VocabularyPolicy

ROWS, ITEMS = 4000, 60


def behaviour(seed=0, told_by="meeting"):
    """Histories, items and clicks, which `told_by` makes likelier."""
    rng = np.random.default_rng(seed)
    popularity = rng.dirichlet(np.full(ITEMS, 0.4))
    user = rng.integers(0, 300, ROWS)
    active = rng.random(300)
    lengths = 1 + rng.binomial(12, active[user])
    history = [rng.choice(ITEMS, n, p=popularity) for n in lengths]
    item = rng.choice(ITEMS, ROWS)
    meets = np.array([i in h for i, h in zip(item, history, strict=True)])
    chance = {
        "meeting": np.where(meets, 0.5, 0.2),
        "popularity": np.clip(0.1 + 8 * popularity[item], 0, 0.9),
        "length": 0.1 + lengths / 20,
        "activity": 0.1 + 0.7 * active[user],
        "nothing": np.full(ROWS, 0.3),
        "leak": meets * 0.9,
        "copy": meets * 1.0,
    }[told_by]
    return pa.table(
        {
            "user_id": user,
            "item_id": [f"i{i}" for i in item],
            "watched": ["|".join(f"i{i}" for i in h) for h in history],
            "shop": [f"s{i}" for i in rng.integers(0, 20, ROWS)],
            "click": (rng.random(ROWS) < chance).astype(int),
        }
    )


def inferred(table, tmp_path):
    pq.write_table(table, tmp_path / "t.parquet")
    return infer_schema(tmp_path / "t.parquet", "click")


def shared(table, tmp_path):
    fields = inferred(table, tmp_path).dataset.features.fields
    return {f.name: f.vocabulary_of for f in fields if f.vocabulary_of}


def test_a_history_that_holds_the_item_shares_its_vocabulary(tmp_path):
    found = inferred(behaviour(), tmp_path)
    watched = found.dataset.features.field("watched")
    assert watched.vocabulary_of == "item_id"
    both = "where watched and item_id have a value in common"
    assert f"{both} 52% are positive, elsewhere 19%" in watched.why
    assert not [w for w in found.warnings if "watched" in w]


@pytest.mark.parametrize("told_by", ["popularity", "length", "activity", "nothing"])
@pytest.mark.parametrize("seed", range(1, 6))
def test_values_that_tell_no_more_by_meeting_do_not(tmp_path, told_by, seed):
    assert shared(behaviour(seed, told_by), tmp_path) == {}


def test_rows_sorted_by_label_show_it_too(tmp_path):
    table = pa.concat_tables([behaviour(seed) for seed in range(8)]).sort_by("click")
    assert shared(table, tmp_path) == {"watched": "item_id"}


def test_a_meeting_that_nearly_tells_the_label_is_warned_of(tmp_path):
    found = inferred(behaviour(told_by="leak"), tmp_path)
    (warning,) = found.warnings
    assert warning.startswith("watched nearly tells the label (where watched and item_id have ")
    assert found.dataset.features.field("watched").vocabulary_of == "item_id"


def test_a_meeting_that_is_the_label_is_left_out(tmp_path):
    found = inferred(behaviour(told_by="copy"), tmp_path)
    assert found.excluded["watched"].startswith("it gives the label away completely: where watched")
    assert "watched" not in [f.name for f in found.dataset.features.fields]


def test_the_end_that_is_kept_decides(tmp_path):
    rng = np.random.default_rng(0)
    item = rng.integers(0, ITEMS, ROWS)
    old = rng.integers(0, ITEMS, (ROWS, 15))
    clicks = (rng.random(ROWS) < np.where((old == item[:, None]).any(axis=1), 0.8, 0.2)).astype(int)
    new = rng.integers(0, ITEMS, (ROWS, 20))
    table = {"item_id": item, "click": clicks}
    lists = {"long": np.hstack([old, new]), "short": old}
    for name, values in lists.items():
        column = ["|".join(map(str, row)) for row in values]
        found = shared(pa.table({**table, "watched": column}), tmp_path)
        assert found == ({"watched": "item_id"} if name == "short" else {})


@pytest.mark.parametrize(
    ("num_values", "common", "name", "found"),
    [
        (4, 4, "c", False),
        (9, 9, "", False),
        (9, 9, "c", True),
        (40, 40, "c", True),
        (40, 8, "c", True),
        (40, 4, "c", False),
        (40, 7, "", False),
    ],
)
def test_values_must_be_many_and_the_same(tmp_path, num_values, common, name, found):
    rng = np.random.default_rng(0)
    home, shop = rng.integers(0, num_values, (2, ROWS))
    shop = np.where(rng.random(ROWS) < 0.3, home, shop)
    clicks = (rng.random(ROWS) < np.where(home == shop, 0.7, 0.3)).astype(int)
    table = {
        "home": [f"{name}{i}" for i in home],
        "shop": [f"{name}{i if i < common else i + 100}" for i in shop],
        "click": clicks,
    }
    assert bool(shared(pa.table(table), tmp_path)) is found


def test_one_field_may_stand_between_two(tmp_path):
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")
    values = {name: rng.integers(0, 30, ROWS) for name in names}
    for name in ("a", "c"):
        values[name] = np.where(rng.random(ROWS) < 0.3, values["b"], values[name])
    logit = -1 + 2.0 * (values["a"] == values["b"]) + 1.5 * (values["c"] == values["b"])
    table = {name: [f"v{i}" for i in values[name]] for name in names}
    table["click"] = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    assert shared(pa.table(table), tmp_path) == {"b": "a", "c": "b"}


def test_categories_that_are_equal_share_one(tmp_path):
    rng = np.random.default_rng(0)
    sides = {name: [f"c{i}" for i in rng.integers(0, 15, ROWS)] for name in ("home", "shop")}
    equal = np.array(sides["home"]) == np.array(sides["shop"])
    clicks = (rng.random(ROWS) < np.where(equal, 0.7, 0.3)).astype(int)
    found = shared(pa.table({**sides, "click": clicks}), tmp_path)
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
        FieldSpec(
            name="watched",
            kind="multi_valued",
            entity="user",
            vocabulary=policy,
            vocabulary_of="item",
        ),
        FieldSpec(name="last", entity="user", vocabulary_of="item"),
        FieldSpec(name="item", entity="item", vocabulary=policy),
    )
    schema = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    data = prepare(
        DatasetConfig(files=(str(tmp_path / "t.parquet"),), features=schema), tmp_path / "d", seed=0
    )
    watched, last, item = (e.vocabulary.values.to_pylist() for e in data.encoder.encoders)
    assert set(item) == {"a", "c", "d"}
    assert watched == [*item, "b", "z"]
    assert last == [*item, "b", "q"]
    assert [f.vocabulary_of for f in data.layout.fields] == ["item", "item", None]
    values = {"watched": [["c", "a"]], "last": ["a"], "item": ["a"]}
    first, second, last, item = data.encoder.encode_columns(values).ids[0]
    assert first != second == last == item


def searches(seed, told_by):
    """Queries, titles with some of their words in capitals, and clicks."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(80)])
    popular = rng.dirichlet(np.full(80, 0.5))
    worth = rng.normal(0, 0.8, 80)
    queries = [rng.choice(80, rng.integers(1, 4), p=popular) for _ in range(400)]
    query = rng.integers(0, 400, ROWS)
    logit = np.full(ROWS, -1.0)
    titles = []
    for row in range(ROWS):
        own = queries[query[row]]
        title = rng.choice(80, rng.integers(3, 7), p=popular)
        if rng.random() < 0.5:
            title[0] = own[0]
        titles.append(" ".join(words[title]).title())
        told = np.isin(own, title).any() if told_by == "meeting" else worth[title].mean()
        logit[row] += 2 * told
    return pa.table(
        {
            "query": [" ".join(words[queries[i]]) for i in query],
            "title": titles,
            "click": (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
        }
    )


def test_words_of_a_query_and_a_title_meet(tmp_path):
    assert shared(searches(0, "meeting"), tmp_path) in (
        {"query.words": "title"},
        {"title": "query.words"},
    )


def test_words_of_titles_with_commas_meet(tmp_path):
    rng = np.random.default_rng(0)
    brand, kind, size, asked = rng.integers(0, 6, (4, ROWS))
    titles = [f"Brand{b} kind{k}, size {s}" for b, k, s in zip(brand, kind, size, strict=True)]
    sizes = rng.integers(0, 6, ROWS)
    queries = [f"cheap KIND{a} size {s}" for a, s in zip(asked, sizes, strict=True)]
    clicks = rng.random(ROWS) < np.where(asked == kind, 0.6, 0.2)
    table = {"query": queries, "title": titles, "click": clicks.astype(int)}
    found = inferred(pa.table(table), tmp_path).dataset.features
    assert (found.field("title").kind, found.field("title").separator) == ("multi_valued", ",")
    sides = {"query.words", "title.words"}  # though `size` is in both of every row
    assert [{f.name, f.vocabulary_of} for f in found.fields if f.vocabulary_of] == [sides]


@pytest.mark.parametrize("seed", range(3))
def test_words_that_tell_by_themselves_do_not_meet(tmp_path, seed):
    assert shared(searches(seed, "words"), tmp_path) == {}


def test_lists_of_few_values_may_hold_the_items(tmp_path):
    rng = np.random.default_rng(0)
    genres = np.array([f"genre {i}" for i in range(5)])
    likes, genre = rng.random((ROWS, 5)) < 0.4, rng.integers(0, 5, ROWS)
    clicks = rng.random(ROWS) < np.where(likes[np.arange(ROWS), genre], 0.5, 0.2)
    likes = ["|".join(genres[row]) for row in likes]
    table = {"likes": likes, "genre": genres[genre], "click": clicks.astype(int)}
    assert shared(pa.table(table), tmp_path) == {"likes": "genre"}


@pytest.mark.parametrize("names", [("asked", "known"), ("known", "asked")])
def test_of_two_lists_the_share_is_taken_that_tells(tmp_path, names):
    rng = np.random.default_rng(0)
    lists = {
        name: [rng.choice(30, n, replace=False) for n in rng.integers(2, 9, ROWS)] for name in names
    }
    met = [len({*a} & {*k}) / len(a) for a, k in zip(lists["asked"], lists["known"], strict=True)]
    columns = {n: [";".join(f"s{i}" for i in row) for row in rows] for n, rows in lists.items()}
    table = pa.table(columns | {"click": (rng.random(ROWS) < 0.1 + np.array(met)).astype(int)})
    dataset = inferred(table, tmp_path).dataset
    asked = dataset.features.field("asked")
    assert (asked.vocabulary_of, asked.share) == ("known", True)
    data = prepare(dataset, tmp_path / "data", seed=0)
    assert data.encoder.layout.shares == ("asked",)
