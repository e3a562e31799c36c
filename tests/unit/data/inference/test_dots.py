"""Vectors of one space."""

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

ROWS, LENGTH = 3000, 6


def table_of(told_by, seed=0):
    """A query's and a document's vector, another of the same length, and clicks."""
    rng = np.random.default_rng(seed)
    query, doc, other = rng.normal(size=(3, ROWS, LENGTH))
    weights = rng.normal(size=LENGTH)
    logit = {"product": (query * doc).sum(axis=1), "one": doc @ weights, "nothing": np.zeros(ROWS)}
    clicks = (rng.random(ROWS) < 1 / (1 + np.exp(-logit[told_by]))).astype(int)
    lists = {"query": query, "other": other, "doc": doc}
    # Lists in one column, texts in another.
    texts = [str(row) for row in query.round(4).tolist()]
    columns = {name: pa.array(list(rows)) for name, rows in lists.items()}
    return pa.table({**columns, "query": texts, "click": clicks})


def products_found(tmp_path, table):
    pq.write_table(table, tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "click").dataset.features.fields
    assert {f.kind for f in fields} == {"dense_vector"}
    return {f.name: f.dot_with for f in fields if f.dot_with}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("told_by", "found"), [("product", {"doc": "query"}), ("one", {}), ("nothing", {})]
)
def test_products_that_tell_the_label(tmp_path, told_by, found, seed):
    assert products_found(tmp_path, table_of(told_by, seed)) == found


def test_places_of_one_city_have_no_product(tmp_path):
    rng = np.random.default_rng(0)
    start, end = rng.normal((40.7, -74.0), 0.1, (2, ROWS, 2))
    far = np.abs(start + end).sum(axis=1)
    columns = {"start": list(start), "end": list(end), "click": (far > np.median(far)).astype(int)}
    assert products_found(tmp_path, pa.table(columns)) == {}


def fields(*products, length=LENGTH):
    ties = dict(products)
    sizes = {"doc": LENGTH, "query": length}
    return tuple(
        FieldSpec(name=name, kind="dense_vector", length=size, dot_with=ties.get(name))
        for name, size in sizes.items()
    )


def test_vectors_of_a_product_have_one_scale_each(tmp_path):
    table = table_of("product")
    doc = np.stack(table["doc"].to_numpy()) * 3.0
    doc[:, 0] += 2.0
    table = table.set_column(table.column_names.index("doc"), "doc", pa.array(list(doc)))
    pq.write_table(table, tmp_path / "t.parquet")
    schema = FeatureSchema(label=LabelRule(column="click"), fields=fields(("doc", "query")))
    files = (str(tmp_path / "t.parquet"),)
    data = prepare(DatasetConfig(files=files, features=schema), tmp_path / "d", seed=0)
    dense = data.encoder.encode_table(table).dense
    size = np.sqrt((doc**2).mean())
    np.testing.assert_allclose(dense[:, :LENGTH], doc / size, rtol=0.02)
    (dot,) = data.layout.dots
    assert (dot.taker, dot.owner, dot.length) == ("doc", "query", LENGTH)
    products = (dense[:, :LENGTH] * dense[:, LENGTH:]).sum(axis=1)
    assert abs(products.mean() - dot.middle) < 0.2 / dot.scale
    assert products.std() * dot.scale == pytest.approx(1, rel=0.1)
    data.encoder.save(tmp_path / "encoder")
    assert RowEncoder.load(tmp_path / "encoder").layout == data.layout


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (lambda: fields(("doc", "title")), "which is no field"),
        (lambda: fields(("doc", "query"), length=7), "must be dense vectors of one length"),
        (lambda: fields(("doc", "query"), ("query", "doc")), "say it of one of two"),
        (lambda: fields(("doc", "doc")), "say it of one of two"),
    ],
)
def test_products_that_cannot_be(specs, message):
    with pytest.raises((SchemaError, ValueError), match=message):
        FeatureSchema(label=LabelRule(column="click"), fields=specs())
