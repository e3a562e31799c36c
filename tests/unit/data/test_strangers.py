import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.prepare import prepare
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, SplitConfig


def told(tmp_path, split, test=None):
    """The warnings of a table whose every user has ten rows and each session five."""
    rng = np.random.default_rng(0)
    rows = np.arange(1000)
    columns = {
        "user": rows // 10,
        "session": [f"s{i}" for i in rows // 5],
        "town": rng.choice(["Bonn", "Köln"], 1000),
        "note": [f"n{i}" for i in rows],
        "at": 1_700_000_000 + 600 * rows,
        "y": rng.integers(0, 2, 1000),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    fields = tuple(FieldSpec(name=n) for n in ("user", "session", "town", "note"))
    config = DatasetConfig(
        files=(str(tmp_path / "t.parquet"),),
        features=FeatureSchema(
            label=LabelRule(column="y"), fields=fields, timestamp="at", group="user"
        ),
        split=split,
    )
    if test is not None:
        pq.write_table(pa.table(columns | test), tmp_path / "test.parquet")
        config = config.model_copy(update={"test_files": (str(tmp_path / "test.parquet"),)})
    warnings = prepare(config, tmp_path / "out", seed=0).report["warnings"]
    return [warning.split(" have a value of ") for warning in warnings]


@pytest.mark.parametrize(
    ("by", "columns"), [("random", []), ("time", ["user", "session"]), ("group", ["session"])]
)
def test_values_that_do_not_come_back_are_told(tmp_path, by, columns):
    warnings = told(tmp_path, SplitConfig(by=by))
    assert [text.split(" that no ")[0] for _, text in warnings] == columns


def test_a_file_that_spells_values_otherwise_is_told(tmp_path):
    towns = {"town": np.array(["BONN"] * 940 + ["Bonn"] * 60), "at": np.arange(1000)}
    ((share, text),) = told(tmp_path, SplitConfig(by="random"), towns)
    assert share == "94% of the test rows"
    assert text.startswith("town that no training row has, or one alone; are values spelled alike")
