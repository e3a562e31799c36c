"""Numbers with decimal commas."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.decimals import comma_columns, points_in
from dynens.data.reading.numbers import number, to_numbers
from dynens.data.reading.sources import iter_tables
from dynens.schema import load_dataset


def test_numbers_get_points_and_other_texts_stay():
    texts = ["1,5", "-1.234.567,89 €", "1.234", "12", "a,b", "3,5,7", "31.12.2024", None]
    table = points_in(pa.table({"x": texts, "n": range(8)}), ("x", "n"))
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
        (["85,3 m²", "1.120,5 m²", "7,0 m²"], True),
        (["1.065.399 €", "450.000 €", "950 €"], True),
        (["192.168.100", "450.000", "1.2"], False),
        ([None, None], False),
        (["192.168.100.101", "192.168.100.102", "192.168.101.103"], False),
    ],
)
def test_what_can_only_be_decimal_commas(texts, found):
    table = pa.table({"word": ["a"] * 10 * len(texts), "x": pa.array(texts * 10, pa.string())})
    assert comma_columns(table) == (["x"] if found else [])


def test_points_in_some_texts_and_commas_in_others():
    texts = ["4,5", "4.5", "3", "€ 12,50", "7.25"]
    table = pa.table({"x": texts * 10, "thousands": [*texts[:4], "1.250"] * 10})
    assert comma_columns(table, cents=True) == ["x"]
    assert comma_columns(table) == []  # of a file of which other columns have points only
    assert points_in(table, ["x"])["x"].to_pylist()[:5] == ["4.5", "4.5", "3", "€ 12.50", "7.25"]


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
    assert set(map(float, data.raw_test()["price"].to_pylist())) <= set(price.tolist())
    other = tmp_path / "other.csv"
    other.write_text("price;y\n50,25;1\n")
    points = data.encoder.encode_columns({"price": [50.25]})
    np.testing.assert_array_equal(data.encode_file(str(other)).dense, points.dense)


@pytest.mark.parametrize("points", ["1,234", "0.25"])
def test_a_column_that_can_only_have_points_keeps_them(tmp_path, points):
    rng = np.random.default_rng(0)
    share = [f"{v:.1f} %".replace(".", ",") for v in rng.random(400) * 100]
    other = [f"{v:,}" if "," in points else f"{v / 1000:.2f}" for v in rng.integers(1, 3000, 400)]
    lines = [
        f"{a}\t{b}\t{c}" for a, b, c in zip(share, other, rng.integers(0, 2, 400), strict=True)
    ]
    (tmp_path / "t.tsv").write_text("\n".join(["share\tother\ty", *lines]))
    inferred = infer_schema(tmp_path / "t.tsv", "y")
    decimals = {f.source: f.decimal for f in inferred.dataset.features.fields}
    assert decimals == {"share": ",", "other": "."}
    assert any("but for columns that can only have points" in w for w in inferred.warnings)
    (tmp_path / "t.yaml").write_text(inferred.to_yaml())
    data = prepare(load_dataset(tmp_path / "t.yaml"), tmp_path / "prepared", seed=0)
    at = {e.spec.name: e.spec.decimal for e in data.encoder.encoders}
    assert (at["share"], at["other"]) == (",", ".")


def test_only_numbers_lose_their_commas_in_files_and_requests_alike(tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.choice(["36,5", "40", "XL"], 400)
    versions = rng.choice(["1.200", "1200", "1.100"], 400)
    prices = [f"{p:.2f}".replace(".", ",") for p in rng.normal(5000, 900, 400)]
    rows = zip(prices, sizes, versions, range(400), strict=True)
    lines = [f"{p};{s};v{v};{i % 3 % 2}" for p, s, v, i in rows]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["price;size;version;y", *lines]))
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "o", seed=0)
    assert data.schema.field("price").decimal == ","
    vocabulary = next(e for e in data.encoder.encoders if e.spec.name == "size").vocabulary
    assert set(vocabulary.values.to_pylist()) == {"36,5", "40", "XL"}
    (_, table), *_ = iter_tables([str(path)], data.dataset.source)
    encoded = data.encode_file(str(path))
    for decimal in (",", "."):
        price = [text.replace(",", decimal) for text in table["price"].to_pylist()]
        values = table.to_pydict() | {"price": price}
        for part in ({n: v[:3] for n, v in values.items()}, values):
            found = data.encoder.encode_columns(part)
            np.testing.assert_array_equal(found.ids, encoded.ids[: len(found)])
            np.testing.assert_array_equal(found.dense, encoded.dense[: len(found)])


def test_cents_behind_commas_are_found_in_any_format_and_lists_are_not(tmp_path):
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "price": [f"{p:.2f}".replace(".", ",") for p in rng.normal(50, 9, 400)],
            "pair": [f"{a},{b}" for a, b in rng.integers(1, 30, (400, 2))],
            "y": rng.integers(0, 2, 400),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    fields = {f.name: f for f in infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields}
    assert (fields["price"].kind, fields["price"].decimal) == ("numeric", ",")
    assert fields["pair"].kind == "multi_valued"


@pytest.mark.parametrize(
    ("texts", "is_found"),
    [
        (["1.158", "484", "8.250", "12.600"], True),
        (["1.158 EUR", "484 EUR", "8.250 EUR"], True),
        (["1.158", "484", "8.25"], False),  # eight and a quarter
        (["1.158", "8.251"], False),  # three decimals each
        (["1.158", "1484"], False),
        (["0.158", "484"], False),
    ],
)
def test_points_that_part_thousands(texts, is_found):
    column = pa.array(texts * 60)
    assert comma_columns(pa.table({"c": column}), cents=True) == (["c"] if is_found else [])
    assert comma_columns(pa.table({"c": column.slice(0, 30)})) == []  # may be chance


@pytest.mark.parametrize(
    ("text", "value"), [("1,396E+01", 13.96), ("1\u202f774,29 €", 1774.29), ("1.234,5e-1", 123.45)]
)
def test_powers_of_ten_and_narrow_spaces(text, value):
    assert number(text, "f", ",") == to_numbers(pa.array([text]), ",").values[0] == value
    assert comma_columns(pa.table({"c": pa.array([text] * 60)})) == ["c"]


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["257,43-", "12,50", "1.234,50-", "3,20- EUR"], [-257.43, 12.5, -1234.5, -3.2]),
        (["2.253,- €", "950,- €", "1.067.000,-- €"], [2253, 950, 1_067_000]),
    ],
)
def test_minus_and_dashes_behind_numbers_with_commas(texts, values):
    assert comma_columns(pa.table({"c": pa.array(texts * 60)})) == ["c"]
    assert to_numbers(pa.array(texts), ",").values.tolist() == values
    assert [number(text, "f", ",") for text in texts] == values


@pytest.mark.parametrize("decimal", [".", ","])
def test_a_minus_behind_is_one_before(tmp_path, decimal):
    values = np.random.default_rng(0).normal(0, 300, 400).round(2)
    texts = [f"{abs(v):.2f}{'-' if v < 0 else ''}".replace(".", decimal) for v in values]
    lines = [
        f"{t};{int(v > 0)};{i % 3 % 2}" for i, (t, v) in enumerate(zip(texts, values, strict=True))
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["amount;z;y", *lines]))
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "o", seed=0)
    assert data.schema.field("amount").kind == "numeric"
    read = sorted(map(float, data.raw_test()["amount"].to_pylist()))
    assert set(read) <= set(values.tolist())
    assert read[0] < 0
