import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.flatten import flat, holding
from dynens.data.reading.sources import read_table
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


ITEMS = [[{"sku": "a", "tags": ["p", "q"]}, None], None, [], [{"sku": None, "tags": []}]]


@pytest.mark.parametrize("first", [0, 2])
def test_the_fields_of_structs_in_lists_are_lists_and_lists_of_lists_are_one(first):
    kind = pa.large_list(pa.list_(pa.string()))
    paths = pa.array([[["x"], ["y", "z"]], [None], None, [["x"], []]], kind)
    pairs = pa.array([[[1, 2]], None, [[3, 4], [5, 6]], []], pa.list_(pa.list_(pa.int8(), 2)))
    table = flat(pa.table({"items": ITEMS, "path": paths, "pairs": pairs}).slice(first))
    assert table.to_pydict() == {
        "items.sku": [["a", None], None, [], [None]][first:],
        "items.tags": [["p", "q"], None, [], []][first:],
        "path": [["x", "y", "z"], [], None, ["x"]][first:],
        "pairs": [[1, 2], None, [3, 4, 5, 6], []][first:],
    }
    assert flat(table) == table


def test_maps_are_opened_as_objects_are(tmp_path):
    rng = np.random.default_rng(0)
    visits = [None if i == 3 else [("home", i % 7), ("é", 2.5)][: 1 + i % 2] for i in range(400)]
    maps = pa.array(visits, pa.map_(pa.string(), pa.float64()))
    assert flat(pa.table({"m": maps}).slice(2, 3))["m"].to_pylist() == [
        '{"home": 2.0}',
        None,
        '{"home": 4.0}',
    ]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"m": maps, "y": rng.integers(0, 2, 400)}), path)
    dataset = infer_schema(path, "y").dataset
    assert {f.source for f in dataset.features.fields} == {"m.home", "m.é"}
    table = read_table([str(path)], dataset.source)
    assert table["m.é"].to_pylist()[:4] == [None, "2.5", None, None]


def test_categories_in_structs_are_read_from_all_groups_of_rows(tmp_path):
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, 1], pa.int8()), ["a", "b"])
    device = pa.StructArray.from_arrays([codes], names=["os"])
    pq.write_table(pa.table({"device": device}), tmp_path / "t.parquet", row_group_size=2)
    table = read_table([str(tmp_path / "t.parquet")])
    assert table.to_pydict() == {"device.os": ["a", "b", "a", "b"]}


def test_the_columns_that_some_are_made_from():
    names = ["x", "device", "a.b"]
    assert holding(names, None) == names
    assert holding(names, ["device.os", "a.b"]) == ["device", "a.b"]
    assert holding(names, ["x", "devices"]) == ["x"]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_structs_are_read_as_their_fields_from_any_file(tmp_path, ending):
    rng = np.random.default_rng(0)
    tags = [[[f"t{i % 5}"], [f"t{i % 3}"]] for i in range(400)]
    devices = [{"os": f"o{i % 4}", "app": {"v": i % 7}, "tags": tags[i]} for i in range(400)]
    table = pa.table({"device": devices, "y": rng.integers(0, 2, 400)})
    marks = [[[("a", i)]] for i in range(400)]
    marks = pa.array(marks, pa.list_(pa.map_(pa.string(), pa.int64())))
    table = table.append_column("marks", marks)
    path = tmp_path / f"t.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    assert list(infer_schema(path, "y").excluded) == ["marks"]
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "out", seed=0)
    assert {f.source for f in data.schema.fields} == {"device.os", "device.app.v", "device.tags"}
    raw = data.raw_test()
    columns = {name: raw[name].to_pylist() for name in raw.column_names}
    np.testing.assert_array_equal(data.encoder.encode_columns(columns).ids, data.split("test").ids)
