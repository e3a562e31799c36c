"""Tables that the data tests share."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from dynens.schema import SplitConfig

EIGHTY = SplitConfig(fractions=(0.8, 0.1, 0.1))


def mixed_table(num_rows: int = 400, seed: int = 0) -> pa.Table:
    """Categories, numbers with gaps, tags, times and a label that depends on them."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, 25, num_rows)
    price = np.round(rng.lognormal(size=num_rows), 3)
    country = rng.choice(["DE", "FR", "日本"], num_rows)
    logit = 0.8 * np.log(price) + (country == "FR") - 0.7
    age = rng.integers(18, 80, num_rows).astype(float)
    age[rng.random(num_rows) < 0.1] = np.nan
    tags = [list(rng.choice(["a", "b", "c", "d"], rng.integers(0, 4))) for _ in range(num_rows)]
    return pa.table(
        {
            "user_id": user,
            "country": pa.array(country, mask=rng.random(num_rows) < 0.05),
            "price": price,
            "age": pa.array(age, from_pandas=True),
            "tags": pa.array(tags, pa.list_(pa.string())),
            "time": 1_600_000_000 + np.arange(num_rows) * 600,
            "click": (rng.random(num_rows) < 1 / (1 + np.exp(-logit))).astype(int),
        }
    )


def written(tmp_path, table=None, name="log.parquet"):
    path = tmp_path / name
    table = mixed_table(600) if table is None else table
    if name.endswith(".csv"):
        pacsv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    return path
