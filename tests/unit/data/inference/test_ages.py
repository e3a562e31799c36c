"""How long before a row its dates are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dynens.data.inference.infer import infer_schema
from dynens.data.inputs import InputFiles
from dynens.data.prepare import prepare
from dynens.layers.gaps import gaps
from dynens.models.selection import select_features
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from tests.unit.data.encoded import same
from tests.unit.layers.pairs import pairs_of

ROWS, DAY_S = 4000, 86_400
START = np.datetime64("2024-03-01").astype("datetime64[s]")


def log_of(tells=True, seed=0):
    """A week's log, in order, of articles that are some hours to weeks old; newer ones are read."""
    rng = np.random.default_rng(seed)
    now = np.sort(rng.uniform(0, 7, ROWS))
    age = np.exp(rng.normal(0, 2, ROWS))
    logit = -1.2 - (0.9 * np.log(age) if tells else 0)
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    return now, now - age, clicks


def as_dates(days):
    return START + np.round(days * DAY_S).astype("timedelta64[s]")


def as_unix(days):
    return as_dates(days).astype(np.int64)


def as_unix_or_never(days):
    return np.where(np.arange(ROWS) % 9 == 0, 0, as_unix(days))


def ages(tmp_path, now, published, clicks):
    table = {"published": published, "timestamp": now, "click": clicks}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    assert features.timestamp == "timestamp"
    return {f.name: f for f in features.fields if f.only_apart}


@pytest.mark.parametrize("written", [as_dates, as_unix, as_unix_or_never])
def test_an_age_that_tells_is_a_feature(tmp_path, written):
    now, published, clicks = log_of()
    found = ages(tmp_path, as_unix(now), written(published), clicks)
    assert set(found) == {"published.age", "timestamp.epoch_days"}
    assert found["published.age"].apart_from == "timestamp.epoch_days"
    assert {(f.derive, f.transform) for f in found.values()} == {("epoch_days", "standard")}


def test_an_age_that_tells_nothing_is_none(tmp_path):
    now, published, clicks = log_of(tells=False)
    assert ages(tmp_path, as_dates(now), as_dates(published), clicks) == {}


def test_numbers_that_are_no_times_have_no_age(tmp_path):
    now, published, clicks = log_of()
    assert ages(tmp_path, as_dates(now), 1000 - published, clicks) == {}


def test_a_count_of_no_known_unit_is_no_time_that_ages_are_counted_to(tmp_path):
    now, published, _ = log_of()
    clicks = (np.random.default_rng(3).random(ROWS) < 0.1 + now / 10).astype(int)
    assert ages(tmp_path, np.round(now * DAY_S * 1000), as_dates(published), clicks) == {}


def test_the_time_of_the_row_less_one_day_is_no_age(tmp_path):
    rng = np.random.default_rng(3)
    now = log_of()[0]
    clicks = (rng.random(ROWS) < 0.1 + now / 10).astype(int)
    launch = as_dates(rng.integers(0, 3, ROWS) / 24 - 30)
    assert ages(tmp_path, as_dates(now), launch, clicks) == {}


def fields_of(*names):
    scale = {"kind": "numeric", "derive": "epoch_days", "transform": "standard"}
    owner = {"published": "timestamp"}
    return tuple(
        FieldSpec(name=n, apart_from=owner.get(n), only_apart=True, **scale) for n in names
    )


def prepared(tmp_path, fields, missing=False):
    now, published, clicks = log_of()
    dates = as_dates(published)
    if missing:
        dates[::5] = np.datetime64("NaT")
    table = {"published": dates, "timestamp": as_dates(now), "click": clicks}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    schema = FeatureSchema(label=LabelRule(column="click"), fields=fields)
    files = (str(tmp_path / "t.parquet"),)
    return prepare(DatasetConfig(files=files, features=schema), tmp_path / "d", seed=0)


def test_an_age_does_not_depend_on_the_day(tmp_path):
    """Neither within training nor years after it, but for what single precision tells apart."""
    encoder = prepared(tmp_path, fields_of("published", "timestamp")).encoder
    assert encoder.layout.only_apart == encoder.layout.dense == ("published", "timestamp")
    days = np.array([1.0, 4.0, 400.0, 4000.0])
    columns = {"published": as_dates(days - 2).tolist(), "timestamp": as_dates(days).tolist()}
    dense = encoder.encode_columns(columns).dense
    per_day = float(encoder.encoders[0].heights[0])
    np.testing.assert_allclose((dense[:, 1] - dense[:, 0]) / per_day, 2.0, atol=1e-3)


def test_seconds_are_told_apart(tmp_path):
    encoder = prepared(tmp_path, fields_of("published", "timestamp")).encoder
    moments = [str(START + np.timedelta64(10 * i, "s")) for i in range(30)]
    dense = encoder.encode_columns({"published": moments, "timestamp": moments}).dense
    steps = np.diff(dense[:, 0]) * DAY_S / float(encoder.encoders[0].heights[0])
    np.testing.assert_allclose(steps, 10.0, atol=1.0)


@pytest.mark.parametrize("date", [1e308, -1e308, "9999-12-31", "0001-01-01"])
def test_absurd_dates_have_a_finite_age(tmp_path, date):
    encoder = prepared(tmp_path, fields_of("published", "timestamp")).encoder
    dense = torch.from_numpy(
        encoder.encode_columns({"published": [date], "timestamp": [str(START)]}).dense
    )
    assert (
        gaps(dense, dense, pairs_of(select_features(encoder.layout, None), gaps)).isfinite().all()
    )


def test_a_date_that_is_missing_is_told(tmp_path):
    encoder = prepared(tmp_path, fields_of("published", "timestamp"), missing=True).encoder
    assert encoder.layout.dense == ("published", "published#missing", "timestamp")
    dense = encoder.encode_columns({"published": [None, str(START)]}).dense
    assert dense[:, 1].tolist() == [1.0, 0.0]
    assert 1 in select_features(encoder.layout, None).dense_columns


def test_a_time_that_is_missing_is_that_of_the_middle_of_training(tmp_path):
    encoder = prepared(tmp_path, fields_of("published", "timestamp")).encoder
    dense = encoder.encode_columns({"published": [str(START)]}).dense
    assert dense.shape == (1, 2)
    assert dense[0, 1] == 0.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([{"name": "a", "kind": "numeric", "only_apart": True}], "nor is it"),
        ([{"name": "a", "only_apart": True}], "without buckets"),
        ([{"name": "a", "kind": "numeric", "buckets": 8, "only_apart": True}], "without buckets"),
    ],
)
def test_what_only_apart_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        FeatureSchema(label=LabelRule(column="y"), fields=fields)


def test_times_as_numbers_are_read_alike_in_any_unit_and_type(tmp_path):
    now, published, clicks = log_of()
    moments = as_dates(published)
    table = pa.table({"at": as_dates(now), "seen_ms": moments.astype(np.int64) * 1000, "y": clicks})
    pq.write_table(table, tmp_path / "t.parquet")
    dataset = infer_schema(tmp_path / "t.parquet", "y").dataset
    fields = {f.name: f for f in dataset.features.fields if f.source == "seen_ms"}
    assert {*fields} == {"seen_ms", "seen_ms.age"}
    assert {f.derive for f in fields.values()} == {"epoch_days"}
    assert not fields["seen_ms"].only_apart
    encoder = prepare(dataset, tmp_path / "out", seed=0).encoder
    whole = encoder.encode_table(table)
    numbers = as_unix(published)
    for other in (numbers, numbers * 10**6, moments, [f"{m}Z" for m in moments]):
        column = pa.array(other)
        changed = table.set_column(1, "seen_ms", column)
        pq.write_table(changed, tmp_path / "other.parquet")
        files = InputFiles(str(tmp_path / "other.parquet"), dataset, encoder)
        for _, rows in files.tables():
            same(encoder.encode_table(rows), whole)
        assert not files.warnings
        values = {"at": table["at"].to_pylist(), "seen_ms": column.to_pylist()}
        same(encoder.encode_columns(values), whole)


@pytest.mark.parametrize(("low", "high"), [(7e8, 4e9), (1e9, 4e9)])
def test_numbers_in_billions_are_no_times(tmp_path, low, high):
    rng = np.random.default_rng(0)
    now, _, _ = log_of()
    cents = rng.integers(int(low), int(high), ROWS)
    clicks = rng.random(ROWS) < np.where(cents > 2e9, 0.6, 0.2)
    table = pa.table({"at": as_dates(now), "cents": cents, "y": clicks.astype(int)})
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert [(f.name, f.derive) for f in fields if f.source == "cents"] == [("cents", None)]
