"""Which columns are the time of the row, its request, or a number of the row."""

import datetime

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema, with_fields
from dynens.data.reading.lists import PREFIXES
from dynens.data.reading.times import to_seconds

ROWS = 3000


def test_parts_of_the_time_do_not_take_a_columns_name(tmp_path):
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    columns = {
        "ts": 1_700_000_000 + 900 * np.arange(ROWS),
        "ts.hour": rng.integers(0, 24, ROWS),
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(columns), path)
    names = [f.name for f in infer_schema(path, "y").dataset.features.fields]
    assert names == ["ts.hour_", "ts.weekday", "ts.hour", "ts.hour.size"]


@pytest.mark.parametrize(
    ("layout", "time_format"),
    [("%d/%m/%Y %H:%M", "day_first"), ("%Y%m%d%H", "yyyymmddhh"), ("%Y-%m-%d %H:%M UTC", "auto")],
)
def test_how_the_time_of_the_row_is_written(tmp_path, layout, time_format):
    path = tmp_path / "t.csv"
    start, step = datetime.datetime(2024, 1, 1), datetime.timedelta(minutes=31)
    rng = np.random.default_rng(0)
    columns = {
        "time": [(start + i * step).strftime(layout) for i in range(ROWS)],
        "due": [(start + int(i) * 97 * step).strftime(layout) for i in rng.integers(0, 99, ROWS)],
        "y": rng.integers(0, 2, ROWS),
    }
    pacsv.write_csv(pa.table(columns), path)
    features = infer_schema(path, "y").dataset.features
    assert (features.timestamp, features.time_format) == ("time", time_format)
    assert features.field("time.hour").time_format == time_format
    if time_format != "yyyymmddhh":
        due = features.field("due")
        assert (due.derive, due.time_format) == ("epoch_days", time_format)


@pytest.mark.parametrize(
    ("name", "unit"), [("t", 1000), ("created", 1), ("epoch_ms", 1000), ("seconds_since", 1.0)]
)
def test_numbers_that_are_the_time_of_the_row(tmp_path, name, unit):
    rng = np.random.default_rng(0)
    times = 1_700_000_000 + np.cumsum(rng.integers(1, 900, ROWS))
    columns = {name: times * unit, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert features.timestamp == name
    assert [f.name for f in features.fields] == [f"{name}.hour", f"{name}.weekday", "x"]


@pytest.mark.parametrize(
    "name",
    [
        *("sent_at", "Search Date", "served_ts", "event_time_ms", "Order\nDate"),
        *("Event Time (UTC)", "unixReviewTime"),
    ],
)
def test_a_name_tells_the_time_of_the_row_in_no_order(tmp_path, name):
    rng = np.random.default_rng(0)
    times = 1_700_000_000_000 + rng.permutation(ROWS) * 877_123
    columns = {name: times, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "y").dataset.features.timestamp == name


def test_numbers_in_no_order_are_no_time_of_the_row_and_no_hash(tmp_path):
    rng = np.random.default_rng(0)
    times = 1_700_000_000_000 + rng.permutation(ROWS) * 877_123
    columns = {"t": times, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    result = infer_schema(tmp_path / "t.parquet", "y")
    assert result.dataset.features.timestamp is None
    assert "name it in features.timestamp" in result.excluded["t"]


@pytest.mark.parametrize(
    ("name", "step", "is_time"),
    [("Time", 90.5, True), ("timestamp", 90_500, True), ("level", 90, False), ("time", 1, False)],
)
def test_times_since_the_first_row(tmp_path, name, step, is_time):
    """Of 1,000 rows and more: days named as times, days without such a name, and minutes."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.integers(0, 3, ROWS)) * step
    columns = {name: times, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert features.timestamp == (name if is_time else None)
    shuffled = columns | {name: rng.permutation(times)}
    pq.write_table(pa.table(shuffled), tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "y").dataset.features.timestamp is None


@pytest.mark.parametrize(
    ("name", "days", "is_time"),
    [
        ("date_", np.arange(1, 15), True),
        ("Day No", np.arange(730, 760), True),
        ("week", np.arange(53, 0, -1), True),
        ("level", np.arange(1, 15), False),
        ("day", np.tile(np.arange(1, 31), 3), False),
    ],
)
def test_days_that_are_counted(tmp_path, name, days, is_time):
    """In order, and not back to the first of the next month."""
    rng = np.random.default_rng(0)
    numbers = days[np.arange(ROWS) * len(days) // ROWS]
    columns = {name: numbers, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert features.timestamp == (name if is_time else None)
    assert any(f.source == name for f in features.fields) is not is_time
    if is_time:
        assert features.time_format == "count"


START = datetime.datetime(2024, 3, 1)


def test_a_column_without_a_name_is_no_time(tmp_path):
    """As pandas writes an index of times that has none."""
    rows = [f"{START + datetime.timedelta(hours=i)},{i % 7},{i % 2}" for i in range(500)]
    (tmp_path / "t.csv").write_text("\n".join([",x,y", *rows]))
    features = infer_schema(tmp_path / "t.csv", "y").dataset.features
    assert features.timestamp is None
    assert {field.source for field in features.fields} == {"x"}


def dated(seed=0):
    """A listing's date, then the time of the row, which the rows stand in the order of."""
    rng = np.random.default_rng(seed)
    times = [START + datetime.timedelta(minutes=int(m)) for m in np.arange(ROWS) * 7]
    listed = [
        t - datetime.timedelta(days=int(d))
        for t, d in zip(times, rng.integers(0, 400, ROWS), strict=True)
    ]
    return pa.table(
        {
            "created_at": [str(t) for t in listed],
            "event_time": [str(t) for t in times],
            "x": rng.random(ROWS),
            "click": rng.integers(0, 2, ROWS),
        }
    )


@pytest.mark.parametrize("name", ["event_time", "served", "date"])
def test_the_time_of_the_row_is_the_one_that_rows_are_in_the_order_of(tmp_path, name):
    table = dated().rename_columns(["created_at", name, "x", "click"])
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    assert features.timestamp == name
    assert features.field("created_at").derive == "epoch_days"


def test_a_date_in_no_order_is_a_feature_and_asked_about(tmp_path):
    pq.write_table(dated().drop_columns(["event_time"]), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click")
    assert found.dataset.features.timestamp is None
    assert found.dataset.features.field("created_at").derive == "epoch_days"
    assert any("created_at is a feature; if it is the time of the row" in w for w in found.warnings)


def test_a_column_named_as_the_time_of_the_row_is_it_in_any_order(tmp_path):
    table = dated().drop_columns(["event_time"])
    pq.write_table(table.take(np.random.default_rng(1).permutation(ROWS)), tmp_path / "t.parquet")
    given = dataset_from_files(tmp_path / "t.parquet", label="click", timestamp="created_at")
    assert with_fields(given).dataset.features.timestamp == "created_at"


def test_event_times_in_no_order_are_times_of_the_row_all_the_same(tmp_path):
    table = dated().drop_columns(["created_at"])
    pq.write_table(table.take(np.random.default_rng(1).permutation(ROWS)), tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "click").dataset.features.timestamp == "event_time"


def test_a_name_alone_makes_no_row_number(tmp_path):
    rng = np.random.default_rng(3)
    table = {
        "": rng.permutation(ROWS),
        "row": rng.choice(list("ABCDEFGH"), ROWS),
        "index": rng.integers(0, 30, ROWS),
        "Unnamed: 0": rng.permutation(ROWS),
        "click": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "click")
    assert {f.source for f in found.dataset.features.fields} == {"row", "index"}
    assert set(found.excluded) == {"Unnamed: 0", "(no name)"}


def test_a_count_of_rows_is_no_time(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"order": 1_700_000_000 + np.arange(ROWS), "x": rng.normal(size=ROWS)}
    table = pa.table(columns | {"y": rng.integers(0, 2, ROWS)})
    pq.write_table(table, tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "y").dataset.features.timestamp is None


def test_dates_have_no_hour(tmp_path):
    rng = np.random.default_rng(0)
    days = [
        f"2024{1 + i // 28 % 12:02d}{1 + i % 28:02d}" for i in np.sort(rng.integers(0, 336, ROWS))
    ]
    table = pa.table(
        {"event_date": days, "x": rng.normal(size=ROWS), "y": rng.integers(0, 2, ROWS)}
    )
    pacsv.write_csv(table, tmp_path / "t.csv")
    features = infer_schema(tmp_path / "t.csv", "y").dataset.features
    assert features.timestamp == "event_date"
    assert "event_date.hour" not in [f.name for f in features.fields]


def test_the_requests_of_rows_are_no_feature(tmp_path):
    rng = np.random.default_rng(0)
    table = {"impression_id": np.arange(ROWS) // 8, "x": rng.random(ROWS)}
    table["click"] = rng.integers(0, 2, ROWS)
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "click").dataset.features
    assert features.request_id == "impression_id"
    assert [f.name for f in features.fields] == ["x"]


def test_rows_sorted_by_another_date_keep_the_time_of_the_event(tmp_path):
    table = dated().rename_columns(["signup_date", "event_time", "x", "click"])
    pq.write_table(table.sort_by("signup_date"), tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "click").dataset.features.timestamp == "event_time"


def test_numbers_of_the_rows_are_left_out_in_any_order(tmp_path):
    path = tmp_path / "t.parquet"
    rng = np.random.default_rng(0)
    order, rank = rng.permutation(ROWS) + 5000, rng.permutation(ROWS)
    columns = {"order_number": order, "rank": rank, "y": rng.random(ROWS) < rank / ROWS}
    pq.write_table(pa.table(columns), path)
    assert list(infer_schema(path, "y").excluded) == ["order_number"]


def test_numbers_with_a_unit_are_no_times(tmp_path):
    rng = np.random.default_rng(0)
    times = [f"{1_700_000_000 + 60 * i} ticks" for i in range(ROWS)]
    table = pa.table({"time": times, "x": rng.random(ROWS), "y": rng.integers(0, 2, ROWS)})
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert features.timestamp is None


def visits(rng, gaps):
    """Four rows of each of 500 visits, in the order of a count of ms, and what a visit brings."""
    visit = np.repeat(np.arange(500), 4)
    ids = rng.permutation(500)[visit]
    return pa.table(
        {
            "timestamp": np.cumsum(rng.integers(1, gaps, 500))[visit],
            "cart_id": ids,
            "token": [f"t{i:05x}" for i in ids],
            "shop_id": rng.integers(0, 20, 2000),
            "words": [f"red {i} shoes" for i in ids],
            "y": (rng.random(2000) < 0.3) * 1,
        }
    )


def test_ids_that_pass_by_are_no_features(tmp_path):
    table = visits(np.random.default_rng(3), 5_000_000)
    pq.write_table(table, tmp_path / "t.parquet")
    inferred = infer_schema(tmp_path / "t.parquet", "y")
    assert set(inferred.excluded) == {"cart_id", "token"}
    assert all("do not come back" in why for why in inferred.excluded.values())
    pq.write_table(table.drop_columns("timestamp"), tmp_path / "t.parquet")
    assert not infer_schema(tmp_path / "t.parquet", "y").excluded  # no time says that they pass


def test_beginnings_of_ids_that_pass_by_must_tell_of_later_rows(tmp_path):
    rng = np.random.default_rng(6)
    visit = np.sort(rng.integers(0, 900, ROWS))
    country = rng.choice(["DE", "FR", "US"], 900)[visit]
    trend = np.where(visit < 450, 0.15, 0.45)  # beginnings of a count tell when a row was
    rates = np.where(country == "US", trend + 0.3, trend)
    columns = {
        "timestamp": 1_700_000_000 + 900 * np.arange(ROWS),
        "visit": [f"s{i}" for i in visit],
        "basket": [
            f"{c}{i:05x}" for c, i in zip(country, rng.permutation(900)[visit], strict=True)
        ],
        "y": (rng.random(ROWS) < rates) * 1,
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    inferred = infer_schema(tmp_path / "t.parquet", "y")
    assert set(inferred.excluded) == {"visit"}
    assert inferred.dataset.features.field("basket.parts").separator == PREFIXES


def test_a_count_of_any_unit_tells_the_order(tmp_path):
    pq.write_table(visits(np.random.default_rng(3), 5_000_000), tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert (features.timestamp, features.time_format) == ("timestamp", "count")
    assert not [f for f in features.fields if f.source == "timestamp"]
    seconds = to_seconds(pa.array([0, 20_240_131, 1_500_000_000_000]), "count")
    assert seconds.tolist() == [0, 20_240_131, 1_500_000_000_000]


@pytest.mark.parametrize("name", ["srch_id", "display_id", "session_id", "qid"])
def test_rows_of_one_request(tmp_path, name):
    table = visits(np.random.default_rng(3), 5_000_000)
    table = table.rename_columns([name if n == "cart_id" else n for n in table.column_names])
    pq.write_table(table, tmp_path / "t.parquet")
    assert infer_schema(tmp_path / "t.parquet", "y").dataset.features.request_id == name


@pytest.mark.parametrize(
    ("user", "item"),
    [
        ("User-ID", "ISBN"),
        ("user id", "Book.Id"),
        ("customerNo", "ad_key"),
        ("reviewerID", "Product (ASIN)"),
        ("user_hash", "item-uuid"),
        ("uid", "content_id"),
        ("contact_id", "episode_id"),
        ("cookie", "prop_id"),
    ],
)
def test_keys_whatever_joins_their_words(tmp_path, user, item):
    rng = np.random.default_rng(0)
    ids = {user: rng.integers(0, 90, ROWS), item: rng.integers(0, 60, ROWS)}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(ids | {"y": rng.integers(0, 2, ROWS)}), path)
    features = infer_schema(path, "y").dataset.features
    assert (features.user_key, features.item_key) == (user, item)


def test_a_player_is_no_user_beside_one(tmp_path):
    rng = np.random.default_rng(0)
    ids = {"player": rng.integers(0, 90, ROWS), "account": rng.integers(0, 60, ROWS)}
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(ids | {"y": rng.integers(0, 2, ROWS)}), path)
    assert infer_schema(path, "y").dataset.features.user_key == "account"


@pytest.mark.parametrize("name", ["click_bool", "is_booked", "booking_flag", "was clicked", "clk"])
def test_what_comes_before_the_outcome_and_has_its_name_is_left_out(tmp_path, name):
    rng = np.random.default_rng(0)
    clicked = rng.random(ROWS) < 0.1
    bought = clicked & (rng.random(ROWS) < 0.6)
    table = pa.table({name: clicked, "x": rng.normal(size=ROWS), "y": bought})
    pq.write_table(table, tmp_path / "t.parquet")
    assert "its name speaks of" in infer_schema(tmp_path / "t.parquet", "y").excluded[name]


@pytest.mark.parametrize(("name", "words"), [("id", "a hash that is"), ("seen", "like a time")])
def test_an_id_is_no_time_whatever_its_size(tmp_path, name, words):
    rng = np.random.default_rng(0)
    table = {
        name: 10**18 + 10**12 * rng.permutation(3000),
        "x": rng.integers(0, 3, 3000),
        "y": rng.integers(0, 2, 3000),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert words in infer_schema(tmp_path / "t.parquet", "y").excluded[name]
