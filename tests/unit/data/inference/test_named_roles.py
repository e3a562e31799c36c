"""Roles that the user gives to columns."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import with_fields
from dynens.errors import DataError, SchemaError

ROWS = 600
TABLE = pa.table(
    {
        "when": 1_600_000_000 + 600 * pa.array(range(ROWS)).to_numpy(),
        "shop": ["north", "south"] * (ROWS // 2),
        "x": [i % 7 for i in range(ROWS)],
        "click": [i % 3 % 2 for i in range(ROWS)],
    }
)


@pytest.mark.parametrize("role", ["timestamp", "user_key", "item_key", "group"])
def test_a_role_of_a_column_that_is_nowhere_is_told_before_anything_is_inferred(tmp_path, role):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    given = dataset_from_files(tmp_path / "t.parquet", label="click")
    features = given.features.model_copy(update={role: "nope"})
    with pytest.raises(SchemaError, match=rf"column 'nope' \({role}\), which no file has"):
        with_fields(given.model_copy(update={"features": features}))


def test_a_time_that_no_value_tells_is_refused(tmp_path):
    pq.write_table(TABLE, tmp_path / "t.parquet")
    given = dataset_from_files(tmp_path / "t.parquet", label="click", timestamp="shop")
    with pytest.raises(DataError, match=r"timestamp column 'shop' holds no time .*'north'"):
        with_fields(given)
