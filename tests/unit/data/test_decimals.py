"""Numbers with decimal commas."""

import numpy as np
import pyarrow as pa
import pytest

from dynens.data.decimals import comma_column, with_points
from dynens.data.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.presets import dataset_from_files


def test_numbers_get_points_and_other_texts_stay():
    texts = ["1,5", "-1.234.567,89 €", "1.234", "12", "a,b", "3,5,7", "31.12.2024", None]
    table = with_points(pa.table({"x": texts, "n": range(8)}))
    assert table["x"].to_pylist() == [
        *("1.5", "-1234567.89 €", "1234", "12", "a,b", "3,5,7", "31.12.2024"),
        None,
    ]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["12,50", "3,0", "1.200,75"], True),
        (["0,125", "12,5", "7"], True),
        (["12,5 %", "$3,2", "1.200,75€"], True),
        (["1,200", "2,500", "3,750"], False),  # thousands as likely
        (["1,2,3", "4,5", "6"], False),
        (["a,b", "c,d", "e,f"], False),
        (["1.5", "2.5", "3"], False),
    ],
)
def test_what_can_only_be_decimal_commas(texts, found):
    table = pa.table({"word": ["a"] * 30, "x": texts * 10})
    assert comma_column(table) == ("x" if found else None)


def test_a_semicolon_file_is_read_with_its_commas(tmp_path):
    rng = np.random.default_rng(0)
    price = rng.normal(50, 10, 400).round(2)
    lines = [f"{p:.2f}".replace(".", ",") + f";{i % 3 % 2}" for i, p in enumerate(price)]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["price;y", *lines]))
    inferred = infer_schema(path, "y")
    assert inferred.dataset.source.decimal == ","
    assert any("decimal commas, as price has them" in w for w in inferred.warnings)
    assert inferred.dataset.features.field("price").kind == "numeric"
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "o", seed=0)
    assert set(map(float, data.raw()["price"].to_pylist())) <= set(price.tolist())
    other = tmp_path / "other.csv"
    other.write_text("price;y\n50,25;1\n")
    points = data.encoder.encode_columns({"price": [50.25]})
    np.testing.assert_array_equal(data.encode_file(str(other)).dense, points.dense)
