import json

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema, with_fields
from dynens.data.prepare import prepare
from dynens.data.reading.objects import objects_in, opened
from dynens.errors import DataError
from dynens.schema import load_dataset

TEXTS = ['{"os": "a", "app": {"v": 1.10}, "n": 9007199254740993}', "", None, '{"os": null}', "{"]


def test_the_keys_of_objects_are_columns_as_they_are_spelled():
    table = opened(pa.table({"x": range(5), "m": TEXTS}), {"m": ["os", "app.v", "n"]})
    assert table.to_pydict() == {
        "x": [0, 1, 2, 3, 4],
        "m.os": ["a", None, None, None, None],
        "m.app.v": ["1.10", None, None, None, None],
        "m.n": ["9007199254740993", None, None, None, None],
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"k": true}', "true"),
        ('{"k": [1, "b"]}', '["1", "b"]'),
        ('{"k": NaN}', "NaN"),
        (r'{"k": "\ud800"}', None),
        ("{'k': True}", "true"),
        ("{'k': None}", None),
        ("{'k': [1.5, 'it\\'s', None]}", '[1.5, "it\'s", null]'),
        ("{'k': nan}", None),
        (r"{'k': '\ud800'}", None),
        ("{'k': " + "[" * 100_000, None),
        ("{'k', 'l'}", None),
        ("[{'k': 1, 'l': 2}, {}, {'k': 'b'}]", '["1", "b"]'),
        ('[{"k": "a, b"}, 7]', None),
        ("[]", None),
        ("[" * 100_000, None),
        ("7", None),
    ],
)
def test_values_of_any_kind(text, value):
    assert opened(pa.table({"m": [text]}), {"m": ["k"]}).to_pydict() == {"m.k": [value]}


def test_objects_in_texts_of_objects_are_opened():
    text = str({"a": json.dumps({"b": 1}), "c": str({"d": str({"e": True})}), "f": "{x"})
    table = opened(pa.table({"m": [text]}), {"m": ["a.b", "c.d.e", "f"]})
    assert table.to_pydict() == {"m.a.b": ["1"], "m.c.d.e": ["true"], "m.f": ["{x"]}


def test_ever_other_keys_are_a_list(tmp_path):
    rng = np.random.default_rng(0)
    tags = [rng.choice(150, 8, replace=False) for _ in range(2000)]
    votes = [{f"tag {t}": int(i % 8 > 0) + i for i, t in enumerate(some)} for some in tags]
    texts = [str(some) if i % 2 else json.dumps(some) for i, some in enumerate(votes)]
    table = pa.table({"x": range(2001), "tags": [*texts, "[]"]})
    assert objects_in(table) == {"tags": ()}
    read = opened(table, {"tags": ()})
    assert read.column_names == ["x", "tags"]
    assert json.loads(read["tags"][5].as_py()) == [f"tag {t}" for t in tags[5]][1:]
    assert read["tags"][2000].as_py() is None
    pq.write_table(table.append_column("y", [rng.integers(0, 2, 2001)]), tmp_path / "t.parquet")
    (tmp_path / "t.yaml").write_text(infer_schema(tmp_path / "t.parquet", "y").to_yaml())
    found = load_dataset(tmp_path / "t.yaml")
    assert found.source.objects == {"tags": ()}
    (field,) = (f for f in found.features.fields if f.name == "tags")
    assert (field.kind, field.separator) == ("multi_valued", ",")


def test_a_file_without_the_column_stays_as_it_is():
    table = pa.table({"x": [1], "m": [[1]]})
    assert opened(table, {"m": ["a"], "other": ["b"]}) == table


def test_a_key_with_the_name_of_a_column_is_refused():
    table = pa.table({"m": ['{"os": "a"}'], "m.os": ["b"]})
    with pytest.raises(DataError, match="'os' of the JSON objects in 'm' and another column"):
        opened(table, {"m": ["os"]})


def test_texts_that_are_objects_are_found():
    texts = [json.dumps({"a": i, "b": {"c": i}} | {f"rare {i}": 1}) for i in range(200)]
    table = pa.table(
        {
            "m": [*texts[:198], None, "{broken"],
            "taken": ['{"a": 1}'] * 200,
            "taken.a": ["1"] * 200,
            "often broken": ['{"a": 1}'] * 150 + ["none"] * 50,
            "ids": [json.dumps({f"i{i}": 1}) for i in range(200)],
            "lists": ["[1, 2]"] * 200,
            "listed": [str([{"id": i, "name": "n"}]) for i in range(150)] + ["[]"] * 50,
        }
    )
    assert objects_in(table) == {"m": ("a", "b.c"), "listed": ("id", "name")}
    assert objects_in(table.slice(0, 10)) == {}


@pytest.mark.parametrize(
    ("ending", "kind"), [("csv", pa.string()), ("parquet", pa.string()), ("parquet", pa.json_())]
)
def test_objects_are_read_from_any_file(tmp_path, ending, kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    texts = [json.dumps({"os": f"o{i % 4}", "app": {"v": i % 7}}) for i in range(400)]
    table = pa.table({"device": pa.array(texts, kind), "y": labels})
    path = tmp_path / f"t.{ending}"
    (pacsv.write_csv if ending == "csv" else pq.write_table)(table, path)
    inferred = infer_schema(path, "y")
    (tmp_path / "t.yaml").write_text(inferred.to_yaml())
    found = load_dataset(tmp_path / "t.yaml")
    assert found.source.objects == {"device": ("os", "app.v")}
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "out", seed=0)
    assert {f.source for f in data.schema.fields} == {"device.os", "device.app.v"}
    raw = data.raw_test()
    columns = {name: raw[name].to_pylist() for name in ("device.os", "device.app.v")}
    np.testing.assert_array_equal(data.encoder.encode_columns(columns).ids, data.split("test").ids)


def test_numbers_of_objects_have_points_where_others_have_commas(tmp_path):
    lines = [
        f"""{i % 9},{i % 10}5;'{json.dumps({"v": i / 1000 + 0.0001})}';{i % 2}"""
        for i in range(200)
    ]
    text = "\n".join(["x;m;y", *(line.replace('"', '""').replace("'", '"') for line in lines)])
    (tmp_path / "t.csv").write_text(text)
    dataset = infer_schema(tmp_path / "t.csv", "y").dataset
    decimals = {f.source: f.decimal for f in dataset.features.fields if f.kind == "numeric"}
    assert decimals == {"x": ",", "m.v": "."}
    again = with_fields(dataset).dataset.features.fields
    assert again == dataset.features.fields
