"""Parts of times that tell the label together."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema
from tests.unit.data.encoded import fit, same

ROWS = 8000
START = np.datetime64("2024-01-03T00:00:00")


def log(seed, told_by):
    """A quarter's log in order, of rows clicked in the evening, but not of weekends, say."""
    rng = np.random.default_rng(seed)
    seconds = np.sort(rng.integers(0, 90 * 86_400, ROWS))
    times = START + seconds.astype("timedelta64[s]")
    evening, weekend = seconds // 3600 % 24 >= 17, (seconds // 86_400 + 2) % 7 >= 5
    shop = rng.integers(0, 4, ROWS)
    logit = {
        "both": np.where(evening ^ weekend, 0.7, -0.7),
        "shop": np.where(evening ^ (shop > 1), 0.7, -0.7),
        "each": 0.7 * evening - 0.7 * weekend,
    }[told_by]
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int)
    names = np.array(["north", "east", "south", "west"])[shop]
    return pa.table({"event_time": times, "shop": names, "y": clicks})


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("told_by", "pairs"),
    [
        ("both", [("event_time.hour", "event_time.weekday")]),
        ("shop", [("event_time.hour", "shop")]),
        ("each", []),
    ],
)
def test_hours_tell_more_with_weekdays_or_shops(tmp_path, told_by, pairs, seed):
    table = log(seed, told_by)
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert [f.crossed for f in fields if f.crossed] == pairs
    encoder = fit(fields, table)
    columns = {name: table[name].to_pylist() for name in ("event_time", "shop")}
    texts = {**columns, "event_time": [str(time) for time in columns["event_time"]]}
    for rows in (columns, texts):
        same(encoder.encode_columns(rows), encoder.encode_table(table))
