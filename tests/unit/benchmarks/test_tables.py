"""Tables against notebooks: the same rows for all, and models that take what tables hold."""

from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import tables
from dynens.errors import BadInputError


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    city = rng.choice(np.array(["Rome", "Oslo", None], object), rows)
    age = np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows))
    bought = (np.nan_to_num(age) + (city == "Rome") + rng.normal(size=rows) > 0.5).astype(int)
    return pd.DataFrame({"city": city, "age": age, "old": rng.random(rows) < 0.5, "y": bought})


def test_parts_hold_every_row_once(tmp_path: Path) -> None:
    source = tmp_path / "t.csv"
    pd.DataFrame({"row": range(101), "y": [0, 1] * 50 + [0]}).to_csv(source, index=False)
    first = {n: pd.read_csv(f)["row"].tolist() for n, f in tables.cut(source, 1, tmp_path).items()}
    assert sorted(chain.from_iterable(first.values())) == list(range(101))
    assert [len(first[name]) for name in ("train", "valid", "test")] == [71, 15, 15]
    again = {n: pd.read_csv(f)["row"].tolist() for n, f in tables.cut(source, 1, tmp_path).items()}
    other = {n: pd.read_csv(f)["row"].tolist() for n, f in tables.cut(source, 2, tmp_path).items()}
    assert first == again
    assert first != other


def test_notebooks_take_texts_gaps_and_unseen_values() -> None:
    train, test = table(400, 0), table(400, 1)
    test.loc[:5, "city"] = "Lima"
    aucs = tables.notebooks(
        train.drop(columns="y"), test.drop(columns="y"), train["y"], test["y"], seed=0
    )
    assert set(aucs) == {"hgb", "lr"}
    assert min(aucs.values()) > 0.7


def test_rows_without_a_label_are_one_sentence(tmp_path: Path) -> None:
    part = tmp_path / "train.csv"
    table(10, 0).to_csv(part, index=False)
    with pytest.raises(BadInputError, match="2 rows of train have no label"):
        tables.features(str(part), "y", np.zeros(8))
