"""Columns that go on with the time of the row are no features."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynens.data.inference.infer import infer_schema
from dynens.data.inference.passing import why_passing
from dynens.data.inference.profile import profile_column

ROWS = 3000
WHY = "it goes on with the time of the row, so that no later row has such values"


def inferred(path, columns):
    pq.write_table(pa.table(columns), path)
    return infer_schema(path, "y")


def test_what_goes_on_with_the_time_is_left_out(tmp_path):
    rng = np.random.default_rng(1)
    times = np.sort(1_700_000_000 + rng.integers(0, 300 * 86_400, ROWS))
    order = rng.permutation(ROWS)  # rows stand in no order
    columns = {
        "timestamp": times,
        "status_no": 10**17 + 900 * times + rng.integers(0, 900, ROWS),
        "case": [f"{i:06d}-x" for i in np.cumsum(rng.integers(90, 190, ROWS))],
        "year": 2023 + times / 31_556_952 - 53,
        "month_no": (times - times[0]) // (30 * 86_400),
        "price": rng.lognormal(3, 1, ROWS),
        "y": rng.random(ROWS) < np.linspace(0.0, 0.9, ROWS),
    }
    found = inferred(tmp_path / "t.parquet", {n: np.array(c)[order] for n, c in columns.items()})
    assert found.excluded == dict.fromkeys(["status_no", "case", "year"], WHY)


def test_the_time_of_the_row_once_more_is_left_out(tmp_path):
    rng = np.random.default_rng(3)
    times = np.sort(1_700_000_000 + rng.integers(0, 9 * 86_400, ROWS))
    moments = pa.array(times * 10**6, pa.timestamp("us", "Europe/Paris"))
    days = moments.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)
    columns = {
        "event_time": moments,
        "dt": days,
        "date_local": pc.strftime(pc.local_timestamp(moments), "%Y%m%d").cast(pa.int32()),
        "hour_utc": pc.strftime(moments.cast(pa.timestamp("us", "UTC")), "%Y-%m-%d %H:00"),
        "unix": times // 86_400 * 86_400,
        "asked": times - rng.exponential(3, ROWS).astype(np.int64),
        "due": pc.add(days.cast(pa.int32()), pa.array(rng.integers(0, 3, ROWS), pa.int32())).cast(
            pa.date32()
        ),
        "y": rng.random(ROWS) < 0.3,
    }
    found = inferred(tmp_path / "t.parquet", columns)
    assert found.dataset.features.timestamp == "event_time"
    again = ["dt", "date_local", "hour_utc", "unix"]
    why = "it is the time of the row once more, or its day or the like"
    assert found.excluded == dict.fromkeys(again, why)


def test_other_times_of_the_row_are_kept():
    rng = np.random.default_rng(2)
    times = 1_700_000_000.0 + 900 * np.arange(ROWS)
    opened = (times - rng.exponential(600, ROWS)).astype(np.int64)
    labels = (rng.random(ROWS) < 0.3).astype(np.float32)
    for number, passes in ((opened, False), (opened // 60 * 10**8, True)):
        column = pa.chunked_array([number])
        profile = profile_column("opened", column, labels)
        why = why_passing(profile, column, times, labels, is_id=False, is_code=False)
        assert (why is not None) is passes


def test_a_column_that_is_left_out_warns_once(tmp_path):
    number = np.arange(ROWS)
    columns = {"number": number, "x": number % 7, "y": number > 2000}
    columns["y"] = np.where(number % 100 == 0, ~columns["y"], columns["y"])
    found = inferred(tmp_path / "t.parquet", columns)
    assert [w for w in found.warnings if "number" in w] == [
        "number is left out: an id, different in (nearly) every row"
    ]
