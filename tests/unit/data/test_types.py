"""Every Arrow type a Parquet file may hold: used, or refused in one sentence."""

import datetime as dt
import decimal
import json
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.numbers import number, to_numbers
from dynens.data.reading.values import canonical, canonical_texts, plain
from dynens.errors import DataError

ROWS = 300
RNG = np.random.default_rng(5)
START = dt.datetime(2020, 1, 1)
SMALL = [int(i) for i in RNG.integers(0, 99, ROWS)]
TEXTS = [["a", "b", "c"][i % 3] for i in range(ROWS)]

USABLE = {
    "zoned times": pa.array(
        [START + dt.timedelta(hours=i) for i in SMALL], pa.timestamp("us", tz="Europe/Berlin")
    ),
    "days": pa.array([(START + dt.timedelta(days=i)).date() for i in SMALL]),
    "clock": pa.array([dt.time(i % 24, 30) for i in SMALL]),
    "durations": pa.array([dt.timedelta(seconds=i) for i in SMALL]),
    "decimals": pa.array([decimal.Decimal(i) / 4 for i in SMALL], pa.decimal128(10, 2)),
    "uint64": pa.array(RNG.integers(0, 2**64 - 1, 99, dtype=np.uint64)[SMALL]),
    "float16": pa.array(RNG.normal(size=ROWS).astype(np.float16)),
    "float32": pa.array(np.array(SMALL, np.float32) / 10),
    "uuids": pa.array([uuid.UUID(int=i % 9 + 1).bytes for i in SMALL], pa.uuid()),
    "fixed bytes": pa.array([b"id-%03d" % (i % 9) for i in SMALL], pa.binary(6)),
    "byte views": pa.array([b"id-%03d" % (i % 9) for i in SMALL], pa.binary_view()),
    "JSON texts": pa.array([f'"a{i % 5}"' for i in SMALL], pa.json_()),
    "bytes": pa.array([b"\xff" + bytes([i % 5]) for i in SMALL]),
    "fixed lists": pa.array([[1.0, float(i)] for i in SMALL], pa.list_(pa.float32(), 2)),
    "nested lists": pa.array([[[i % 7], list(range(i % 4))] for i in SMALL]),
    "integer lists": pa.array([list(range(i % 4)) for i in SMALL]),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "large texts": pa.array(TEXTS, pa.large_string()),
    "text views": pa.array(TEXTS, pa.string_view()),
    "large lists": pa.array([TEXTS[: i % 3] for i in SMALL], pa.large_list(pa.large_string())),
    "booleans": pa.array([i % 3 == 0 for i in SMALL]),
    "huge texts": pa.array([str(10**20 + i % 9) for i in SMALL]),
    "prices": pa.array([f"${i * 75.5:,.2f}" for i in SMALL]),
    "vectors as text": pa.array([f"{i / 7:.3f},{i % 5 / 3:.2f}" for i in SMALL]),
    "vectors as NumPy prints them": pa.array([f"[ {i / 7:.3f}  {i % 5 / 3:.2f}]" for i in SMALL]),
    "points": pa.array([f"POINT ({i / 7:.3f} {-i % 5 / 3:.2f})" for i in SMALL]),
    "lists as JSON": pa.array([json.dumps(TEXTS[: i % 4]) for i in SMALL]),
    "lists as Python prints them": pa.array([repr([i % 40, i % 3]) for i in SMALL]),
    "euros": pa.array([f"{i * 75.5:,.2f} €" for i in SMALL]),
    "percentages": pa.array([f"{i}%" for i in SMALL]),
}
LIST_OF_MAPS = pa.list_(pa.map_(pa.string(), pa.int64()))
UNUSABLE = {
    "list of maps": pa.array([[[("k", i)]] for i in SMALL], LIST_OF_MAPS),
    "nothing": pa.nulls(ROWS),
    "lists of nothing": pa.array([[]] * ROWS),
    "blank": pa.array([" "] * ROWS),
}
LABEL = pa.array(RNG.integers(0, 2, ROWS))


@pytest.mark.parametrize("name", USABLE)
def test_usable_types_encode_alike_by_every_road(tmp_path, name):
    pq.write_table(pa.table({"x": USABLE[name], "y": LABEL}), tmp_path / "t.parquet")
    data = prepare(dataset_from_files(tmp_path / "t.parquet", label="y"), tmp_path / "o", seed=0)
    raw, test = data.raw_test(), data.split("test")
    batch = data.encoder.encode_columns({"x": raw["x"].to_pylist()})
    np.testing.assert_array_equal(batch.ids, test.ids)
    np.testing.assert_allclose(batch.dense, test.dense, atol=1e-6)
    assert len(np.unique(test.ids, axis=0)) > 1 or len(np.unique(test.dense, axis=0)) > 1


def test_bytes_that_are_no_text_are_one_category_each(tmp_path):
    ids = [bytes([0xC8 + i // 16, 0xF0 + i % 16]) for i in SMALL]
    columns = {"x": ids, "name": [b"\xc3\xa9"] * ROWS, "y": LABEL}
    pq.write_table(pa.table(columns), tmp_path / "t.pq")
    table = pq.read_table(tmp_path / "t.pq")
    assert canonical(ids[0]) == ids[0].hex()
    assert canonical_texts(plain(table["x"])).to_pylist() == [i.hex() for i in ids]
    assert canonical_texts(plain(table["name"]))[0].as_py() == canonical(b"\xc3\xa9") == "é"
    data = prepare(dataset_from_files(tmp_path / "t.pq", label="y"), tmp_path / "o", seed=0)
    for sent in (ids, [i.hex() for i in ids]):
        known = data.encoder.encode_columns({"x": sent}).ids
        assert len(np.unique(known)) > 50


def test_lists_written_as_text_are_the_lists(tmp_path):
    vectors = [[i / 7, i % 5 / 3] for i in SMALL]
    words = [[f"w{i % 12}", f"w{i % 7}"] for i in SMALL]
    batches = []
    for name, as_text in (("lists", False), ("texts", True)):
        path = tmp_path / f"{name}.parquet"
        columns = {
            "v": [repr(v) for v in vectors] if as_text else vectors,
            "w": [repr(w) for w in words] if as_text else words,
            "y": LABEL,
        }
        pq.write_table(pa.table(columns), path)
        data = prepare(dataset_from_files(path, label="y"), tmp_path / name, seed=0)
        assert data.schema.field("v").kind == "dense_vector"
        batches.append(data.split("test"))
    np.testing.assert_allclose(batches[0].dense, batches[1].dense, atol=1e-6)
    np.testing.assert_array_equal(batches[0].ids, batches[1].ids)


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_columns_are_left_out(tmp_path, name):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"x": UNUSABLE[name], "y": LABEL}), path)
    with pytest.raises(DataError, match="no column to predict the label from: x: "):
        infer_schema(path, "y")
    pq.write_table(pa.table({"x": UNUSABLE[name], "ok": SMALL, "y": LABEL}), path)
    assert list(infer_schema(path, "y").excluded) == ["x"]


def test_row_numbers_without_a_name(tmp_path):
    path = tmp_path / "t.parquet"
    order = RNG.permutation(ROWS)
    pq.write_table(pa.table({"": order, "Unnamed: 0": order, "ok": SMALL, "y": LABEL}), path)
    assert list(infer_schema(path, "y").excluded) == ["(no name)", "Unnamed: 0"]


def test_a_birthday_is_not_the_time_of_the_row(tmp_path):
    path = tmp_path / "t.parquet"
    days = [str((START - dt.timedelta(days=97 * i)).date()) for i in SMALL]
    pq.write_table(pa.table({"birth_date": days, "y": LABEL}), path)
    features = infer_schema(path, "y").dataset.features
    assert features.timestamp is None
    assert features.fields[0].derive == "epoch_days"
    pq.write_table(pa.table({"shipped": sorted(days), "y": LABEL}), path)
    assert infer_schema(path, "y").dataset.features.timestamp == "shipped"


@pytest.mark.parametrize(
    "kind", [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
)
def test_a_time_of_the_day_is_its_seconds(tmp_path, kind):
    seconds = RNG.integers(0, 86_400, ROWS)
    clock = [dt.time(s // 3600, s // 60 % 60, s % 60) for s in seconds.tolist()]
    column = pa.array([*clock[1:], None], kind)
    table = pa.table({"clock": column, "x": SMALL, "y": LABEL})
    pq.write_table(table, tmp_path / "t.parquet")
    features = infer_schema(tmp_path / "t.parquet", "y").dataset.features
    assert [f.kind for f in features.fields if f.source == "clock"] == ["numeric"]
    np.testing.assert_array_equal(to_numbers(column).values, [*seconds[1:], np.nan])
    assert number(clock[0], "clock") == seconds[0] == number(clock[0].isoformat(), "clock")
