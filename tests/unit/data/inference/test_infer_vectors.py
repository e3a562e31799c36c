"""Several numbers in one text."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema
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
