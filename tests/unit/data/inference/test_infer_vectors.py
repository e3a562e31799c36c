"""Several numbers in one text."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema

ROWS = 3000


def fields_of(tmp_path, texts, label=None):
    label = np.arange(ROWS) % 2 if label is None else label
    pq.write_table(pa.table({"x": texts, "y": label}), tmp_path / "t.parquet")
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
