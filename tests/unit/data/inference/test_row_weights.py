"""Which columns weigh rows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.encoding.entities import RawEntity
from dynens.data.inference.infer import infer_fields, infer_schema
from dynens.data.inference.roles import find_weight
from dynens.schema import DatasetConfig


@pytest.mark.parametrize(
    ("name", "values", "is_weight", "is_warned_of"),
    [
        ("sample_weight", [1.0, 5.0], True, False),
        ("Row Weight", ["1", "2.5"], True, False),
        ("case_wt", [1, 0], False, True),
        ("sample_weight", [1.0, None], False, True),
        ("weight", [60.0, 80.0], False, False),
    ],
)
def test_weights_of_rows(name, values, is_weight, is_warned_of):
    table, warnings = pa.table({"x": [1, 2], name: values}), []
    assert find_weight(table, warnings) == (name if is_weight else None)
    assert [w.startswith(f"'{name}' is named like a weight") for w in warnings] == (
        [True] if is_warned_of else []
    )


def test_weights_of_rows_are_no_feature(tmp_path):
    labels = np.arange(400) % 4 == 0
    table = {"x": np.arange(400) % 7, "sample_weight": np.where(labels, 1, 5), "y": labels}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    inferred = infer_schema(tmp_path / "t.parquet", "y")
    assert inferred.dataset.features.sample_weight == "sample_weight"
    assert [f.name for f in inferred.dataset.features.fields] == ["x", "x.size"]
    assert inferred.warnings == []


@pytest.mark.parametrize("where", ["excluded", "an entity table"])
def test_other_columns_weigh_no_rows_whatever_their_names(where):
    labels = np.arange(400) % 4 == 0
    table = pa.table({"x": np.arange(400) % 7, "row_weight": np.arange(400) % 9 + 1, "y": labels})
    features = {"label": {"column": "y"}}
    if where == "excluded":
        features["excluded"] = ["row_weight"]
    config = DatasetConfig(name="t", files=("t.parquet",), features=features)
    joined = pa.table({"item_id": ["a"], "row_weight": [1.0]})
    entities = [] if where == "excluded" else [RawEntity("item", "item_id", joined)]
    assert infer_fields(config, table, entities).dataset.features.sample_weight is None
