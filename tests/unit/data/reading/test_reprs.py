"""Values with their types around them are read as they are without, alone and in columns."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynens.data.inference.infer import infer_schema
from dynens.data.reading.lists import split_lists, split_text
from dynens.data.reading.numbers import number, to_numbers
from dynens.data.reading.objects import objects_in, opened
from dynens.data.reading.reprs import unwrapped, unwrapped_column
from dynens.data.reading.values import canonical, canonical_texts

ROWS = 1500


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("[np.int64(144), np.int64(-129)]", "[144, -129]"),
        ("[np.float64(-2.0), np.float64(nan), nan, np.float32(1e-05)]", "[-2.0, nan, nan, 1e-05]"),
        (
            """[np.str_('re(d'), np.str_("it's"), np.str_('a\\'b')]""",
            """['re(d', "it's", 'a\\'b']""",
        ),
        ("[np.True_, numpy.bool_(False)]", "[True, False]"),
        ("(np.int64(4), np.int64(2))", "(4, 2)"),
        ("array([1., 2.])", "[1., 2.]"),
        ("array([np.float64(1.5), 2],\n      dtype=object)", "[1.5, 2]"),
        ("[array([1, 2]), array([], dtype=float64)]", "[[1, 2], []]"),
        ("[Decimal('1.50'), Timestamp('2024-05-06 00:00:00')]", "['1.50', '2024-05-06 00:00:00']"),
        ("frozenset({np.str_('a'), 'b'})", "{'a', 'b'}"),
        ("(20,[1,4],[1.0,-2e-05])", "[1,4]"),
        ("(20,[],[])", "[]"),
        ("(20,[1,4])", "(20,[1,4])"),
        ("Snp.int64(5) map(3) array of [1, 2] (1)", "Snp.int64(5) map(3) array of [1, 2] (1)"),
    ],
)
def test_types_around_values_say_nothing(written, plain):
    assert unwrapped(written) == plain
    assert split_text(written, ",") == split_text(plain, ",")
    values, lengths = split_lists(pa.array([written, plain]), ",")
    assert lengths[0] == lengths[1]
    assert values.to_pylist()[: lengths[0]] == values.to_pylist()[lengths[0] :]


@given(
    st.lists(st.text("nénp.int64(5)array[]'\"\\_,= \n", max_size=30), min_size=1, max_size=5),
    st.sampled_from(["{}", "np.str_('{}')", "array([{}])", "np.float64({})"]),
)
def test_columns_are_unwrapped_as_single_texts_are(texts, around):
    texts = [around.format(text) for text in texts]
    assert unwrapped_column(pa.array(texts)).to_pylist() == [unwrapped(text) for text in texts]


@pytest.mark.parametrize(
    ("written", "plain"),
    [("np.int64(5)", "5"), ("np.float64(3.250)", "3.25"), ("np.True_", "1"), ("np.int8(-3)", "-3")],
)
@pytest.mark.parametrize("decimal", [".", ","])
def test_single_cells_are_categories_and_numbers(written, plain, decimal):
    assert canonical(written) == plain
    assert canonical_texts(pa.array([written])).to_pylist() == [plain]
    assert number(written, "f", decimal) == float(plain)
    assert to_numbers(pa.array([written]), decimal).values[0] == float(plain)


def test_a_cell_that_is_no_number_inside_its_type_is_missing():
    assert canonical("np.float64(nan)") is None
    assert math.isnan(number("np.float64(nan)", "f"))
    numbers = to_numbers(pa.array(["np.float64(nan)", "np.float64(inf)", "1"]))
    assert (numbers.num_unreadable, numbers.num_non_finite) == (0, 2)


def test_objects_may_hold_them():
    table = pa.table({"o": ["{'a': np.int64(5), 'b': Decimal('2.5')}"] * 30})
    found = opened(table, objects_in(table))
    assert (found["o.a"][0].as_py(), found["o.b"][0].as_py()) == ("5", "2.5")


def test_lists_of_numpy_are_inferred_as_plain_ones(tmp_path):
    rng = np.random.default_rng(0)
    histories = [rng.choice(np.arange(100, 160), 4, replace=False) for _ in range(ROWS)]
    places = rng.normal(size=(ROWS, 3)).round(3)
    words = [rng.choice(["red", "blue", "green", "black"], 2) for _ in range(ROWS)]
    found = []
    for rows in (list, np.ndarray.tolist):
        columns = {
            n: [str(rows(r)) for r in c]
            for n, c in zip("hpw", (histories, places, words), strict=True)
        }
        assert ("np." in columns["h"][0]) == (rows is list)
        label = places[:, 0] + np.array([h[0] > 130 for h in histories]) > 0.5
        pacsv.write_csv(pa.table(columns | {"y": label.astype(int)}), tmp_path / "t.csv")
        found.append(infer_schema(tmp_path / "t.csv", "y").dataset.features.fields)
    assert found[0] == found[1]
    kinds = {f.name: (f.kind, f.separator) for f in found[0]}
    assert kinds["h"] == kinds["w"] == ("multi_valued", ",")
    assert kinds["p"] == ("dense_vector", ",")


def test_sparse_vectors_of_spark_are_lists_of_places(tmp_path):
    rng = np.random.default_rng(0)
    places = [sorted(rng.choice(30, size, replace=False)) for size in rng.integers(1, 6, ROWS)]
    texts = [f"(30,[{','.join(map(str, p))}],[{','.join(['1.5'] * len(p))}])" for p in places]
    label = [int(3 in p or 7 in p) ^ int(rng.random() < 0.1) for p in places]
    pacsv.write_csv(pa.table({"v": texts, "y": label}), tmp_path / "t.csv")
    (field,) = infer_schema(tmp_path / "t.csv", "y").dataset.features.fields
    assert (field.kind, field.separator) == ("multi_valued", ",")
    assert split_text(texts[0], ",") == [str(p) for p in places[0]]
