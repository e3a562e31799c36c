import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.flatten import flat, holding
from dynens.errors import DataError

DEVICES = [{"os": "a", "app": {"version": 3}}, None, {"os": None, "app": {"version": 4}}]


def test_the_fields_of_structs_are_columns():
    table = flat(
        pa.table({"x": [1, 2, 3], "device": DEVICES, "t": pa.array(["u"] * 3, "string_view")})
    )
    assert table.to_pydict() == {
        "x": [1, 2, 3],
        "device.os": ["a", None, None],
        "device.app.version": [3, None, 4],
        "t": ["u"] * 3,
    }
    assert table["t"].type == pa.string()
    with pytest.raises(DataError, match=r"both called 'device\.os'"):
        flat(pa.table({"device.os": ["a"], "device": DEVICES[:1]}))


def test_the_columns_that_some_are_made_from():
    names = ["x", "device", "a.b"]
    assert holding(names, None) == names
    assert holding(names, ["device.os", "a.b"]) == ["device", "a.b"]
    assert holding(names, ["x", "devices"]) == ["x"]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_structs_are_read_as_their_fields_from_any_file(tmp_path, ending):
    rng = np.random.default_rng(0)
    devices = [{"os": f"o{i % 4}", "app": {"v": i % 7}, "tags": [[1]]} for i in range(400)]
    table = pa.table({"device": devices, "y": rng.integers(0, 2, 400)})
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    assert list(infer_schema(path, "y").excluded) == ["device.tags"]
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "out", seed=0)
    assert {f.source for f in data.schema.fields} == {"device.os", "device.app.v"}
    raw = data.raw()
    columns = {name: raw[name].to_pylist() for name in ("device.os", "device.app.v")}
    np.testing.assert_array_equal(data.encoder.encode_columns(columns).ids, data.split("test").ids)
