import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.inference import infer
from dynens.data.inference.infer import infer_schema, label_rule
from dynens.errors import DataError
from dynens.schema import load_dataset

ROWS = 3000


def made_table(seed=0):
    rng = np.random.default_rng(seed)
    code = rng.integers(100, 160, ROWS)
    effect = rng.normal(0, 1.2, 60)
    amount = rng.integers(1, 5000, ROWS)
    logit = effect[code - 100] + 0.8 * np.log(amount / 800)
    click = rng.random(ROWS) < 1 / (1 + np.exp(-logit))
    start, day = datetime.datetime(2023, 1, 1), datetime.timedelta(days=1)
    words = np.array(["red", "green", "blue", "big", "small", "old", "new"])
    return pa.table(
        {
            "row": np.arange(ROWS),
            "session": [f"{i:016x}" for i in rng.permutation(ROWS) * 7919],
            "user_id": rng.integers(0, 300, ROWS),
            "product_id": rng.integers(0, 40, ROWS),
            "shelf": code,
            "amount": amount,
            "ratio": rng.random(ROWS),
            "color": rng.choice(["red", "green", None], ROWS),
            "tags": ["|".join(rng.choice(words, rng.integers(1, 4))) for _ in range(ROWS)],
            "title": [" ".join(rng.choice(words, 6)) + f" {i}" for i in range(ROWS)],
            "event_time": [str(start + datetime.timedelta(minutes=9 * i)) for i in range(ROWS)],
            "signup_date": [str((start - day * int(d)).date()) for d in rng.integers(0, 900, ROWS)],
            "constant": ["x"] * ROWS,
            "nothing": pa.array([None] * ROWS, pa.string()),
            "is_purchased": click & (rng.random(ROWS) < 0.3),
            "copy": np.where(click, "A", "B"),
            "clicked": click.astype(int),
        }
    )


@pytest.fixture(scope="module", params=["csv", "parquet"])
def inferred(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("infer") / f"log.{request.param}"
    if request.param == "csv":
        pacsv.write_csv(made_table(), path)
    else:
        pq.write_table(made_table(), path)
    return infer_schema(path, "clicked")


def test_kinds(inferred):
    kinds = {f.name: f.kind for f in inferred.dataset.features.fields}
    assert kinds == {
        "user_id": "categorical",
        "product_id": "categorical",
        "shelf": "categorical",
        "shelf.size": "numeric",
        "amount": "numeric",
        "ratio": "numeric",
        "color": "categorical",
        "tags": "multi_valued",
        "title": "multi_valued",
        "event_time.hour": "categorical",
        "event_time.weekday": "categorical",
        "signup_date": "numeric",
    }


def test_roles(inferred):
    features = inferred.dataset.features
    assert features.timestamp == "event_time"
    assert (features.user_key, features.item_key, features.group) == (
        "user_id",
        "product_id",
        "user_id",
    )
    entities = {f.name: f.entity for f in features.fields}
    assert (entities["user_id"], entities["product_id"], entities["ratio"]) == (
        "user",
        "item",
        "context",
    )


def test_leaks_and_useless_columns_are_left_out_with_a_reason(inferred):
    excluded = inferred.excluded
    assert set(excluded) == {"row", "session", "constant", "nothing", "is_purchased", "copy"}
    assert "gives the label away" in excluded["copy"]
    assert "what follows the outcome" in excluded["is_purchased"]
    assert excluded["constant"] == "constant"
    assert excluded["nothing"] == "always missing"
    warned = " ".join(inferred.warnings)
    assert all(name in warned for name in ("row", "session", "is_purchased", "copy"))


def test_every_field_says_why(inferred):
    reasons = {f.name: f.why or "" for f in inferred.dataset.features.fields}
    assert all(reasons.values())
    assert "held-out AUC" in reasons["shelf"]
    assert "held-out AUC" in reasons["amount"]
    assert "free text" in reasons["title"]


def test_the_yaml_reads_back(inferred, tmp_path):
    path = tmp_path / "dataset.yaml"
    path.write_text(inferred.to_yaml(), encoding="utf-8")
    assert "# WARNING: copy is left out" in path.read_text()
    assert load_dataset(path).features == inferred.dataset.features


CLICKED = np.random.default_rng(7).random(400) < 0.2
MOMENTS = [datetime.datetime(2024, 5, 3, i % 24, i % 60) for i in range(400)]


def where_clicked(values, kind=None):
    return pa.array([v if c else None for v, c in zip(values, CLICKED, strict=True)], kind)


@pytest.mark.parametrize(
    "column",
    [
        where_clicked(MOMENTS, pa.timestamp("us")),
        where_clicked([str(moment) for moment in MOMENTS]),
        where_clicked([f"r{i % 60}" for i in range(400)]),
        where_clicked([i * 0.5 for i in range(400)]),
        where_clicked([[f"r{i % 60}"] for i in range(400)]),
    ],
    ids=["times", "texts of times", "texts", "numbers", "lists"],
)
def test_a_column_filled_after_the_outcome_only_is_left_out(tmp_path, column):
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(size=400), "ref": column, "y": CLICKED}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    result = infer_schema(tmp_path / "t.parquet", "y")
    assert [f.name for f in result.dataset.features.fields] == ["x"]
    assert "whether it is missing gives the label away" in result.excluded["ref"]


def test_a_column_that_is_seldom_there_is_no_leak(tmp_path):
    known = np.flatnonzero(CLICKED)[:5]
    ref = [f"r{i}" if i in known else None for i in range(400)]
    columns = {"x": np.random.default_rng(0).normal(size=400), "ref": ref, "y": CLICKED}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert not infer_schema(tmp_path / "t.parquet", "y").excluded


def test_a_strong_column_is_kept_but_warned_of(tmp_path):
    rng = np.random.default_rng(0)
    label = rng.random(ROWS) < 0.4
    table = pa.table({"score": label + rng.normal(0, 0.2, ROWS), "y": label})
    pq.write_table(table, tmp_path / "t.parquet")
    result = infer_schema(tmp_path / "t.parquet", "y")
    assert [f.name for f in result.dataset.features.fields] == ["score"]
    assert "score nearly tells the label by itself" in result.warnings[0]


def test_an_identifier_that_stands_for_one_class_is_kept_and_warned_of(tmp_path):
    rng = np.random.default_rng(0)
    town = rng.integers(0, 100, ROWS)
    urban = rng.random(100) < 0.4
    table = pa.table({"town": [f"t{i}" for i in town], "x": rng.random(ROWS), "y": urban[town]})
    pq.write_table(table, tmp_path / "t.parquet")
    result = infer_schema(tmp_path / "t.parquet", "y")
    assert not result.excluded
    assert "town nearly tells the label by itself" in result.warnings[0]


def test_a_few_texts_among_numbers_are_warned_of(tmp_path):
    rng = np.random.default_rng(0)
    values = [f"{x:.3f}" if i % 20 else "oops" for i, x in enumerate(rng.normal(size=400))]
    table = pa.table({"m": values, "x": rng.normal(size=400), "y": rng.integers(0, 2, 400)})
    pacsv.write_csv(table, tmp_path / "t.csv")
    (warning,) = infer_schema(tmp_path / "t.csv", "y").warnings
    assert "numbers and texts stand together in m ('oops'): their values are cat" in warning


def test_integers_that_are_categories_keep_their_size(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "grade": rng.integers(1, 6, 2000),
            "day": rng.integers(0, 100, 2000),
            "shop_id": rng.integers(0, 100, 2000),
            "KeywordID": rng.integers(0, 100, 2000),
            "hoursPaid": rng.integers(0, 100, 2000),
            "day.size": rng.normal(size=2000),
            "y": rng.integers(0, 2, 2000),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert {f.name: (f.kind, f.source) for f in features.fields} == {
        "grade": ("categorical", "grade"),
        "grade.size": ("numeric", "grade"),
        "day": ("categorical", "day"),
        "day.size_": ("numeric", "day"),
        "shop_id": ("categorical", "shop_id"),
        "KeywordID": ("categorical", "KeywordID"),
        "hoursPaid": ("categorical", "hoursPaid"),
        "hoursPaid.size": ("numeric", "hoursPaid"),
        "day.size": ("numeric", "day.size"),
    }


@pytest.mark.parametrize(("values", "is_category"), [(16, True), (60, False)])
def test_integers_of_many_rows_each_are_categories_whatever_their_size_tells(
    tmp_path, values, is_category
):
    rng = np.random.default_rng(0)
    code = rng.integers(0, values, 3000)
    clicked = (rng.random(3000) < 0.2 + 0.5 * code / values).astype(int)
    pq.write_table(pa.table({"level": code, "y": clicked}), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    kinds = {f.name: f.kind for f in fields}
    category = {"level": "categorical", "level.size": "numeric"}
    assert kinds == (category if is_category else {"level": "numeric"})


def test_structures_are_left_out_aloud(tmp_path):
    rng = np.random.default_rng(0)
    maps = pa.array([[[("a", 1)]]] * 400, pa.list_(pa.map_(pa.string(), pa.int64())))
    scores = [rng.random(i % 4) for i in range(400)]
    table = {"s": maps, "scores": scores, "rounded": [s.round(1) for s in scores]}
    pq.write_table(pa.table(table | {"y": [0, 0, 1, 1] * 100}), tmp_path / "t.parquet")
    first, second = infer_schema(tmp_path / "t.parquet", "y").warnings[:2]
    assert first == "s is left out: a list of maps"
    assert second.startswith("scores is left out: lists of fractions that hardly come back; give")


def test_a_type_that_nothing_reads_is_refused_in_a_sentence(tmp_path):
    runs = pa.RunEndEncodedArray.from_arrays([100, 400], ["a", "b"])
    table = pa.table({"x": runs, "y": [0, 1] * 200})
    with (
        pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as w,
    ):
        w.write_table(table)
    with pytest.raises(DataError, match="a column has a type that cannot be used") as caught:
        infer_schema(tmp_path / "t.arrow", "y")
    assert "\n" not in str(caught.value)


def test_a_quote_that_is_not_closed_is_warned_of(tmp_path):
    path = tmp_path / "t.tsv"
    words = ['"tv' if i in (100, 150) else "ok" for i in range(400)]
    rows = [f"{word}\t{i % 7}\t{i % 3 % 2}" for i, word in enumerate(words)]
    path.write_text("\n".join(["title\tn\ty", *rows]))
    (warning,) = [w for w in infer_schema(path, "y").warnings if "quoting" in w]
    assert "title holds a text of 51 lines" in warning


@pytest.mark.parametrize("unit", [1000, 1024])
def test_large_numbers_whose_size_tells_are_no_hashes(tmp_path, unit):
    rng = np.random.default_rng(3)
    amount = np.round(rng.normal(3000, 400, ROWS))
    click = rng.random(ROWS) < 1 / (1 + np.exp(-(amount - 3000) / 300))
    pq.write_table(
        pa.table({"amount": (amount * unit).astype(int), "click": click}), tmp_path / "t.parquet"
    )
    (field, *_) = infer_schema(tmp_path / "t.parquet", "click").dataset.features.fields
    assert field.kind == "numeric"


def test_a_positive_value_that_is_a_guess_is_warned_of(tmp_path):
    path = tmp_path / "t.parquet"
    x = np.random.default_rng(0).normal(size=ROWS)
    words = pa.table({"x": x, "state": np.where(x > 1, "churned", "stayed")})
    pq.write_table(words, path)
    warnings = infer_schema(path, "state").warnings
    assert "'churned' counts as the positive label" in warnings[0]
    assert "'state == stayed'" in warnings[0]
    pq.write_table(words.append_column("y", pa.array(np.where(x > 1, "no", "yes"))), path)
    assert not any("positive" in warning for warning in infer_schema(path, "y").warnings)
    assert not any("positive" in w for w in infer_schema(path, "state == stayed").warnings)


def test_nothing_to_learn_from(tmp_path):
    pq.write_table(pa.table({"id": np.arange(100), "y": [0, 1] * 50}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no column to predict the label from: id: an id"):
        infer_schema(tmp_path / "t.parquet", "y")


def test_wide_tables_bucket_the_strongest_numbers_only(tmp_path):
    rng = np.random.default_rng(0)
    columns = {f"x{i}": rng.normal(size=500) for i in range(100)}
    table = pa.table({**columns, "y": columns["x7"] + rng.normal(size=500) > 0})
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert len(fields) == 100
    bucketed = [f.name for f in fields if f.buckets]
    assert len(bucketed) == 60
    assert "x7" in bucketed


def test_files_sorted_by_label_are_sampled_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "SAMPLE_ROWS", 200)
    label = np.sort(np.random.default_rng(0).integers(0, 2, ROWS))
    table = pa.table({"x": label + np.random.default_rng(1).normal(size=ROWS), "y": label})
    pacsv.write_csv(table, tmp_path / "t.csv")
    fields = infer_schema(tmp_path / "t.csv", "y").dataset.features.fields
    assert [f.name for f in fields] == ["x"]


def test_ids_that_seldom_meet_in_a_sample_are_still_ids(tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "SAMPLE_ROWS", 1000)
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**40, 5000)[rng.integers(0, 5000, 40_000)]
    table = pa.table(
        {
            "user_id": rng.integers(0, 5000, 40_000),
            "device": hashes,
            "request": rng.integers(0, 2**60, 40_000),
            "amount": rng.integers(0, 10**9, 40_000),
            "y": rng.integers(0, 2, 40_000),
        }
    )
    amount = table["amount"].to_numpy()
    table = table.set_column(4, "y", pa.array(amount + rng.normal(0, 3e8, 40_000) > 5e8))
    pq.write_table(table, tmp_path / "t.parquet")
    result = infer_schema(tmp_path / "t.parquet", "y")
    kinds = {f.name: f.kind for f in result.dataset.features.fields}
    assert kinds == {"user_id": "categorical", "device": "categorical", "amount": "numeric"}
    assert list(result.excluded) == ["request"]
    assert result.dataset.features.user_key == "user_id"


def test_label_options():
    assert label_rule("clicked").column == "clicked"
    rule = label_rule("rating >= 4")
    assert (rule.column, rule.positive) == ("rating", "rating >= 4")
    assert label_rule("a>b", ["a>b", "c"]).column == "a>b"


def test_fractions_of_any_size_are_no_hashes(tmp_path):
    rng = np.random.default_rng(0)
    sizes = [f"{x:.3E}" for x in 10 ** rng.uniform(-30, 30, ROWS)]
    table = pa.table({"size": sizes, "y": rng.integers(0, 2, ROWS)})
    pq.write_table(table, tmp_path / "t.parquet")
    (field,) = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (field.name, field.kind) == ("size", "numeric")


@pytest.mark.parametrize(("texts", "warnings"), [(50, 1), (150, 0)])
def test_texts_that_come_first_are_no_more_than_others(tmp_path, texts, warnings):
    rng = np.random.default_rng(0)
    values = ["oops"] * texts + [f"{x:.3f}" for x in rng.normal(size=400 - texts)]
    table = pa.table({"m": values, "x": rng.normal(size=400), "y": rng.integers(0, 2, 400)})
    for rows in (table, table.take(rng.permutation(400))):
        pq.write_table(rows, tmp_path / "t.parquet")
        found = infer_schema(tmp_path / "t.parquet", "y")
        assert found.dataset.features.field("m").kind == "categorical"
        assert len(found.warnings) == warnings


def test_parts_of_a_date_that_tell_the_label(tmp_path):
    rng = np.random.default_rng(0)
    arrives, booked = rng.integers(0, 700, (2, 4000))
    day = np.datetime64("2023-01-02")  # a Monday
    months = (day + arrives).astype("datetime64[M]").astype(int) % 12
    chance = 0.2 + 0.3 * (arrives % 7 >= 5) + 0.3 * (months == 6)
    table = {
        "arrives": day + arrives,
        "booked": day + booked,
        "y": (rng.random(4000) < chance).astype(int),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    found = [(f.name, f.kind, f.derive) for f in fields]
    assert found == [
        ("arrives", "numeric", "epoch_days"),
        ("arrives.weekday", "categorical", "weekday"),
        ("arrives.month", "categorical", "month"),
        ("booked", "numeric", "epoch_days"),
    ]


def test_numbers_that_are_days(tmp_path):
    rng = np.random.default_rng(0)
    start = np.datetime64("2011-01-01")
    days = [str(start + int(i)).replace("-", "") for i in rng.integers(0, 700, ROWS)]
    columns = {
        "joined": [int(day) for day in days],
        "part": 20_110_000 + rng.integers(0, 700, ROWS),  # not all of them days
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    kinds = {f.name: (f.derive, f.time_format) for f in fields}
    assert kinds["joined"] == ("epoch_days", "yyyymmdd")
    assert kinds["part"][0] is None
