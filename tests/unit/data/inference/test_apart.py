"""Numbers that measure the same."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.encoding.encoders import RowEncoder
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.errors import SchemaError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec

ROWS = 4000


def rows_of(table, logit, seed):
    rng = np.random.default_rng(seed)
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    return pa.table({**table, "click": clicks})


def trips(seed=0, told_by="gap"):
    """Two dates a few days apart, and clicks."""
    rng = np.random.default_rng(seed)
    booked = rng.integers(0, 400, ROWS)
    days = rng.exponential(20, ROWS).astype(int)
    logit = {
        "gap": 1.5 - 0.7 * np.log1p(days),
        "first": np.sin(booked / 40),
        "second": np.sin((booked + days) / 40),
        "nothing": np.zeros(ROWS),
    }[told_by]
    day = np.datetime64("2023-01-01")
    table = {"booked": day + booked, "arrives": day + booked + days}
    return rows_of(table, logit, seed)


def apart(table, tmp_path):
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "click").dataset.features.fields
    return {f.name: (f.apart_from, f.transform) for f in fields if f.apart_from}


def test_the_days_between_two_dates(tmp_path):
    assert apart(trips(), tmp_path) == {"arrives": ("booked", "standard")}


def test_the_days_between_two_dates_may_tell_little(tmp_path):
    table = trips(seed=4)
    noise = np.random.default_rng(4).random(ROWS) < 0.6
    clicks = np.where(noise, np.random.default_rng(5).integers(0, 2, ROWS), table["click"])
    table = table.set_column(2, "click", pa.array(clicks))
    assert apart(table, tmp_path) == {"arrives": ("booked", "standard")}


@pytest.mark.parametrize("told_by", ["first", "second", "nothing"])
@pytest.mark.parametrize("seed", range(1, 4))
def test_what_either_tells_by_itself_is_no_difference(tmp_path, told_by, seed):
    assert apart(trips(seed, told_by), tmp_path) == {}


def test_the_share_of_a_limit(tmp_path):
    rng = np.random.default_rng(0)
    balance = np.exp(rng.normal(7, 1.2, ROWS))
    share = np.exp(rng.normal(-0.8, 0.5, ROWS))
    table = {"balance": balance, "limit": balance / share, "age": rng.integers(18, 80, ROWS) + 0.5}
    found = apart(rows_of(table, 2 * np.log(share) + 1.6, 0), tmp_path)
    assert found == {"limit": ("balance", "log")}


@pytest.mark.parametrize(
    ("logit", "is_found"),
    [
        (lambda a, b: 2.0 * (a > b), True),
        (lambda a, b: -2 * np.abs(a - b), True),
        (lambda a, b: 2 * a + 2 * b, False),
        (lambda a, b: 2 * a * b, False),
        (lambda a, b: -2 * a * b, False),
        (lambda a, b: 3.0 * ((a > 0) & (b < 0)), False),
    ],
)
def test_numbers_that_only_lie_alike_are_apart_where_their_sum_tells_less(
    tmp_path, logit, is_found
):
    rng = np.random.default_rng(0)
    price, budget = rng.normal(0, 1, (2, ROWS))
    table = {"price": np.exp(4 + 0.6 * price), "budget": np.exp(4 + 0.6 * budget)}
    found = apart(rows_of(table, logit(price, budget), 0), tmp_path)
    assert [(name, owner) for name, (owner, _) in found.items()] == (
        [("budget", "price")] if is_found else []
    )


def test_each_of_three_is_apart_from_one_other(tmp_path):
    rng = np.random.default_rng(0)
    first = rng.normal(0, 10, ROWS)
    steps = rng.normal(0, 1, (2, ROWS))
    table = {"a": first, "b": first + steps[0], "c": first + steps[0] + steps[1]}
    found = apart(rows_of(table, 1.5 * steps[0] - 1.5 * steps[1], 0), tmp_path)
    assert len(found) == 2
    assert {scale for _, scale in found.values()} == {"standard"}


def test_a_difference_that_nearly_is_the_label_is_warned_of(tmp_path):
    table = trips(told_by="gap")
    days = np.asarray(table["arrives"]) - np.asarray(table["booked"])
    late = (days.astype("timedelta64[D]").astype(int) > 14).astype(int)
    late[::100] = 1 - late[::100]
    pq.write_table(table.set_column(2, "click", pa.array(late)), tmp_path / "t.parquet")
    (warning,) = infer_schema(tmp_path / "t.parquet", "click").warnings
    assert warning.startswith("how far apart arrives and booked are nearly tells the label (held-")


def loans(factor, seed=0):
    """Loans and what of them was paid back, which is more where they were paid back in full."""
    rng = np.random.default_rng(seed)
    loan = np.exp(rng.normal(9, 0.6, ROWS))
    lost = rng.random(ROWS) < 0.25
    table = {"loan": loan.round(), "paid": (loan * factor(rng.random(ROWS), lost)).round()}
    return pa.table({**table, "age": rng.integers(18, 80, ROWS) + 0.5, "click": lost.astype(int)})


def test_a_column_whose_difference_from_another_is_the_label_is_left_out(tmp_path):
    table = loans(lambda share, lost: np.where(lost, 0.7 * share, 1.1))
    pq.write_table(table, tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click")
    assert [f.name for f in found.dataset.features.fields] == ["loan", "age"]
    assert not any(f.apart_from for f in found.dataset.features.fields)
    (why,) = found.excluded.values()
    assert why == "how many times larger it and loan are gives the label away completely " + (
        "(held-out AUC 1)"
    )
    assert found.warnings == [f"paid is left out: {why}"]


def test_a_difference_that_is_the_label_is_no_feature(tmp_path):
    """Neither tells much by itself: who knows which of the two came later."""
    table = loans(lambda share, lost: np.where(lost, 0.97, 1.03))
    pq.write_table(table, tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click")
    assert [(f.name, f.apart_from) for f in found.dataset.features.fields] == [
        *(("loan", None), ("paid", None), ("age", None))
    ]
    (warning,) = found.warnings
    assert "are gives the label away (held-out AUC 1.000); leave one out if" in warning
    names = table.column_names
    pq.write_table(
        table.rename_columns(["revenue" if n == "paid" else n for n in names]),
        tmp_path / "t.parquet",
    )
    assert list(infer_schema(tmp_path / "t.parquet", "click").excluded) == ["revenue"]


def test_encoded_values_have_one_scale(tmp_path):
    """Of 0, 10, 20 and 30 mean and deviation, which the others take over."""
    first = np.array([0.0, 10.0, 20.0, 30.0] * 25)
    second = first + np.array([1.0, 2.0, 3.0, 8.0] * 25)
    table = pa.table({"a": first, "b": second, "y": [0, 1, 1, 0] * 25})
    pq.write_table(table, tmp_path / "t.parquet")
    fields = (
        FieldSpec(name="b", kind="numeric", transform="standard", apart_from="a"),
        FieldSpec(name="a", kind="numeric", transform="standard"),
    )
    schema = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    files = (str(tmp_path / "t.parquet"),)
    data = prepare(DatasetConfig(files=files, features=schema), tmp_path / "d", seed=0)
    _, a = data.encoder.encoders
    mean, scale = float(a.knots[0]), float(a.heights[0])
    dense = data.encoder.encode_columns({"a": [mean], "b": [mean + 2.0]}).dense
    np.testing.assert_allclose(dense, [[2 * scale, 0.0]], atol=1e-6)
    assert {(gap.taker, gap.owner) for gap in data.layout.gaps} == {("b", "a")}
    # About 1, 2, 3 and 8 in equal parts, so thirds are 1 and some 2, 2 and 3, 8 and some 3; widths
    # of a third are the median of the other values' distances from its median.
    small, middling, large = ((g.middle / scale, 1 / g.scale / scale) for g in data.layout.gaps)
    np.testing.assert_allclose(small, (1, 1), rtol=1e-4)
    np.testing.assert_allclose(large, (8, 5), rtol=1e-4)
    assert 1.99 <= middling[0] <= 3.01
    assert 0.49 <= middling[1] <= 1.01
    data.encoder.save(tmp_path / "encoder")
    assert RowEncoder.load(tmp_path / "encoder").layout == data.layout
    # Encoders of early versions have one gap per pair, which their networks take.
    written = tmp_path / "encoder" / "encoder.json"
    meta = json.loads(written.read_text())
    meta["fields"][0]["state"]["gap"] = meta["fields"][0]["state"].pop("gaps")[0]
    written.write_text(json.dumps(meta))
    assert RowEncoder.load(tmp_path / "encoder").layout.gaps == data.layout.gaps[:1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("a", "standard", "b")], "which is no field"),
        ([("a", "standard", "b"), ("b", "log", None)], "their transforms are"),
        ([("a", "quantile", "b"), ("b", "quantile", None)], "make both standard"),
        ([("a", "log", "b"), ("b", "log", "a")], "apart from itself"),
    ],
)
def test_scales_that_cannot_be(fields, message):
    specs = tuple(
        FieldSpec(name=name, kind="numeric", transform=transform, apart_from=owner)
        for name, transform, owner in fields
    )
    with pytest.raises((SchemaError, ValueError), match=message):
        FeatureSchema(label=LabelRule(column="y"), fields=specs)
