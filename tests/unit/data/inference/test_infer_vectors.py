"""Several numbers in one text."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.lists import weights_of

ROWS = 3000


def fields_of(tmp_path, texts, label=None):
    label = np.arange(ROWS) % 2 if label is None else label
    noise = np.random.default_rng(1).random(ROWS)
    pq.write_table(pa.table({"x": texts, "noise": noise, "y": label}), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    return [f for f in fields if f.source == "x"]


@pytest.mark.parametrize(
    ("written", "separator"),
    [
        ("({:.4f}, {:.4f})", ","),
        ("POINT ({:.6f} {:.6f})", None),
        ("POINT({:.6f} {:.6f})", None),
        ("[{:.3f}, {:.3f}]", ","),
        ("{:.5f};{:.5f}", ";"),
    ],
)
def test_coordinates_are_vectors(tmp_path, written, separator):
    places = np.random.default_rng(0).normal((40, -74), 0.1, (ROWS, 2))
    (field,) = fields_of(tmp_path, [written.format(*place) for place in places])
    assert (field.kind, field.length, field.separator) == ("dense_vector", 2, separator)


@pytest.mark.parametrize(
    ("written", "separator"), [("12:0.5,3:0.5", r"\,:"), ("1 0.5;2 0.5", r"\; ")]
)
def test_lists_with_weights_are_lists_without_them(tmp_path, written, separator):
    rng = np.random.default_rng(0)
    between, mark = separator[1:]
    texts = [
        between.join(
            f"{token}{mark}{rng.random():.3f}" for token in rng.choice(60, rng.integers(1, 5))
        )
        for _ in range(ROWS)
    ]
    (field,) = fields_of(tmp_path, texts)
    assert (field.kind, field.separator) == ("multi_valued", separator)
    assert "without their weights" in (field.why or "")


@pytest.mark.parametrize("written", ["lat:{:.3f},lon:{:.3f}", "{:.3f} {:.3f};{:.3f} {:.3f}"])
def test_named_or_many_numbers_are_no_weights(tmp_path, written):
    numbers = np.random.default_rng(0).random((ROWS, 4))
    fields = fields_of(tmp_path, [written.format(*row) for row in numbers])
    assert not any(weights_of(f.separator) for f in fields)


@pytest.mark.parametrize(
    ("written", "separator"), [("[{}, {}]", ","), ("{}/{}", "/"), ("{}:{}", ":"), ("{}x{}", "x")]
)
def test_few_numbers_in_their_order_are_vectors_too(tmp_path, written, separator):
    """More of the first than of the second make a click: as a set neither tells which is which."""
    rng = np.random.default_rng(0)
    numbers = rng.poisson(6, (ROWS, 2))
    label = rng.random(ROWS) < 1 / (1 + np.exp((numbers[:, 1] - numbers[:, 0]) / 2))
    texts = [written.format(*row) for row in numbers]
    *others, vector = fields_of(tmp_path, texts, label)
    assert (vector.name, vector.source, vector.kind) == ("x.numbers", "x", "dense_vector")
    assert (vector.length, vector.separator) == (2, separator)
    assert others
    assert all(f.kind != "dense_vector" for f in fields_of(tmp_path, texts, rng.permutation(label)))
    lists = [separator.join(map(str, row[: rng.integers(1, 4)])) for row in numbers]
    assert all(f.kind != "dense_vector" for f in fields_of(tmp_path, lists, label))


def test_texts_among_ordered_numbers_are_missing_there(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.poisson(40, (ROWS, 2))
    texts = [f"{a}/{b}" for a, b in numbers]
    texts[::99] = ["none taken"] * len(texts[::99])
    fields_of(tmp_path, texts, (numbers[:, 0] > 40).astype(int))
    dataset = dataset_from_files(tmp_path / "t.parquet", label="y")
    data = prepare(dataset, tmp_path / "out", seed=0)
    at = data.encoder.field_columns()["x.numbers"][0]
    values = ["40/60", "none taken", "1/2/3", None, 5]
    alone = data.encoder.encode_columns({"x": values}).dense[:, at]
    assert np.abs(alone[0]).min() > 0
    assert not alone[1:].any()
    column = pa.array([None if v is None else str(v) for v in values])
    together = np.zeros((5, 2), np.float32)
    encoder = next(e for e in data.encoder.encoders if e.spec.name == "x.numbers")
    encoder.encode(column, together, np.zeros((5, 0), np.int32))
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("separator", [",", " "])
def test_lists_of_equally_many_ids_stay_lists(tmp_path, separator):
    rng = np.random.default_rng(0)
    lists = rng.integers(10, 70, (ROWS, 4))
    texts = [separator.join(map(str, row)) for row in lists]
    ids, vector = fields_of(tmp_path, texts, (lists[:, 0] > 40).astype(int))
    assert (ids.kind, vector.kind) == ("multi_valued", "dense_vector")


def test_numbers_that_never_come_back_are_a_vector_alone(tmp_path):
    pairs = np.random.default_rng(0).integers(100_000, 999_999, (ROWS, 2))
    texts = [f"{a}:{b}" for a, b in pairs]
    (vector,) = fields_of(tmp_path, texts, (pairs[:, 1] > 600_000).astype(int))
    assert (vector.name, vector.kind) == ("x", "dense_vector")


def test_lists_of_two_integers_are_vectors_too_and_travel_as_lists(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.poisson(6, (ROWS, 2))
    label = (numbers[:, 0] > 6).astype(int)
    ids, vector = fields_of(tmp_path, numbers.tolist(), label)
    assert (ids.kind, vector.kind, vector.length) == ("multi_valued", "dense_vector", 2)
    dataset = dataset_from_files(tmp_path / "t.parquet", label="y")
    data = prepare(dataset, tmp_path / "out", seed=0)
    assert {f.name: f.kind for f in data.encoder.input_fields}["x"] == "multi_valued"
    sent = [[3, 9], (3, 9), ["3", "9"], "[3, 9]", "3,9", np.array([3, 9])]
    batch = data.encoder.encode_columns({"x": sent})
    assert len(np.unique(batch.dense, axis=0)) == len(np.unique(batch.ids, axis=0)) == 1
    raw, test = data.raw_test(), data.split("test")
    again = data.encoder.encode_columns({"x": raw["x"].to_pylist(), "noise": raw["noise"]})
    np.testing.assert_allclose(again.dense, test.dense, atol=1e-6)
