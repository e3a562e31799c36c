"""Columns that say the same as an earlier one."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema

ROWS = 3000


@pytest.mark.parametrize("write", [pq.write_table, pacsv.write_csv])
def test_the_same_values_in_another_type_are_a_copy(tmp_path, write):
    days = np.random.default_rng(0).integers(0, 99, ROWS)
    table = {"days": days, "days_f": days.astype(float), "text": days.astype(str)}
    table |= {"later": np.append(days[:-1], 100), "y": days > 50}
    path = tmp_path / ("t.csv" if write is pacsv.write_csv else "t.parquet")
    write(pa.table(table), path)
    fields = infer_schema(path, "y").dataset.features.fields
    assert {f.source for f in fields} == {"days", "later"}


def test_a_column_that_is_another_one_again_is_left_out_aloud(tmp_path):
    rng = np.random.default_rng(0)
    genre = rng.choice(["pop", None, "jazz"], ROWS)
    columns = {
        "genre": genre,
        "price": rng.normal(size=ROWS),
        "genre.1": genre,
        "nothing": pa.nulls(ROWS),
        "nothing.1": pa.nulls(ROWS),
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "y")
    assert [f.name for f in found.dataset.features.fields] == ["genre", "price"]
    assert found.warnings == ["genre.1 is left out: the same as genre in every row"]
    assert found.excluded["nothing.1"] == "always missing"
