"""Preparation over random tables: whatever the columns, rows encode alike by every road."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.prepare import prepare
from dynens.errors import DynensError

VALUES = {
    "text": (pa.string(), st.one_of(st.none(), st.text(max_size=6), st.sampled_from("abc"))),
    "int": (pa.int64(), st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))),
    "small": (pa.int32(), st.integers(0, 15)),
    "float": (pa.float64(), st.one_of(st.none(), st.floats())),
    "bool": (pa.bool_(), st.one_of(st.none(), st.booleans())),
    "list": (
        pa.list_(pa.string()),
        st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=4)),
    ),
    "missing": (pa.string(), st.none()),
}


@st.composite
def tables(draw):
    num_rows = draw(st.integers(1, 60))
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    columns = {}
    for i, kind in enumerate(kinds):
        arrow, values = VALUES[kind]
        drawn = draw(st.lists(values, min_size=num_rows, max_size=num_rows))
        columns[f"{kind} {i} é"] = pa.array(drawn, arrow)
    columns["y"] = pa.array(np.arange(num_rows) % 2)
    return pa.table(columns)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tables())
def test_any_table_is_prepared_or_refused_in_a_sentence(table):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        pq.write_table(table, path)
        try:
            data = prepare(dataset_from_files(path, label="y"), Path(folder) / "out", seed=0)
        except DynensError as error:
            sentence = str(error)
        else:
            check(data, table)
            return
    assert sentence
    assert "\n" not in sentence


def check(data, table):
    for name in ("train", "valid", "test"):
        batch = data.split(name)
        assert np.isfinite(batch.dense).all()
        start = 0
        for field in data.layout.fields:
            ids = batch.ids[:, start : start + field.width]
            assert ids.max() < field.num_embeddings
            assert ids.min() >= (-1 if field.width > 1 else 0)
            assert (ids[:, 0] >= 0).all()
            start += field.width
    assert np.isfinite(data.split("train").stats).all()
    whole = data.encoder.encode_table(table)
    rows = {name: table[name].to_pylist() for name in table.column_names}
    columns = data.encoder.encode_columns(rows)
    np.testing.assert_array_equal(columns.ids, whole.ids)
    np.testing.assert_allclose(columns.dense, whole.dense, atol=1e-6)
    for start in range(0, table.num_rows, 7):
        part = data.encoder.encode_table(table.slice(start, 7))
        np.testing.assert_array_equal(part.ids, whole.ids[start : start + 7])


def test_five_hundred_columns(tmp_path):
    rng = np.random.default_rng(0)
    columns = {f"c{i}": rng.integers(0, 5 + i, 120) for i in range(250)}
    columns |= {f"x{i}": rng.normal(size=120) for i in range(250)}
    pq.write_table(pa.table({**columns, "y": rng.integers(0, 2, 120)}), tmp_path / "t.parquet")
    data = prepare(dataset_from_files(tmp_path / "t.parquet", label="y"), tmp_path / "o", seed=0)
    assert len({field.source for field in data.schema.fields}) == 500
