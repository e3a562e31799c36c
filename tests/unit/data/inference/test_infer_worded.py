"""Texts that are numbers among words have their size; codes with digits have none."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.inference.worded import Worded, worded
from dynens.data.prepare import prepare

ROWS = 2000


def fields_of(tmp_path, texts, label):
    noise = np.random.default_rng(1).random(ROWS)
    pq.write_table(pa.table({"x": texts, "noise": noise, "y": label}), tmp_path / "t.parquet")
    fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    return [f for f in fields if f.source == "x"]


def rows(seed=0):
    """(numbers, a label that their size tells)."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(11, 3000, ROWS)
    return numbers, (rng.random(ROWS) < numbers / 3000).astype(int)


@pytest.mark.parametrize(
    "written",
    [
        *("{} sq. ft", "{:,} sq m", "${}/hr", "${:,}/mo", "€{} per month", "from ${}", "up to {}"),
        *("{}.56 (USD)", "#{:,}", "#{:,} in Books", "{:,} global ratings", "Based on {} reviews"),
        *("Score: {}", "Level {}", "{} min read", "{} hours ago", '{}"'),
    ],
)
def test_one_number_among_words_has_its_size_beside_the_text(tmp_path, written):
    numbers, label = rows()
    *others, size = fields_of(tmp_path, [written.format(n) for n in numbers], label)
    assert (size.name, size.kind, size.unit) == ("x.size", "numeric", "*")
    assert others


@pytest.mark.parametrize("written", ['="{}"', "'{}", "{},- €", "{}.50-"])
def test_marks_around_numbers_leave_them_numbers(tmp_path, written):
    numbers, label = rows()
    (field,) = fields_of(tmp_path, [written.format(n) for n in numbers], label)
    assert (field.kind, field.unit) == ("numeric", None)


def test_words_that_change_what_a_number_means_stay_visible(tmp_path):
    numbers, label = rows()
    texts = [f"£{n} {'pcm' if i % 3 else 'pw'}" for i, n in enumerate(numbers)]
    texts[::25] = ["POA"] * len(texts[::25])
    fields = {f.name: f for f in fields_of(tmp_path, texts, label)}
    assert {n: f.kind for n, f in fields.items()} == {
        "x": "categorical",
        "x.words": "multi_valued",
        "x.size": "numeric",
    }
    data = prepare(dataset_from_files(tmp_path / "t.parquet", label="y"), tmp_path / "o", seed=0)
    words = next(e for e in data.encoder.encoders if e.spec.name == "x.words").vocabulary
    assert {"pcm", "pw"} <= set(words.values.to_pylist())
    alone = data.encoder.encode_columns({"x": ["£700 pcm", "£700 pw", "POA", None, "£2,900 pcm"]})
    at = data.encoder.field_columns()["x.size"][0].start
    assert alone.dense[0, at] == alone.dense[1, at] < alone.dense[4, at]
    raw, test = data.raw_test(), data.split("test")
    again = data.encoder.encode_columns({n: raw[n].to_pylist() for n in ("x", "noise")})
    np.testing.assert_allclose(again.dense, test.dense, atol=1e-6)
    np.testing.assert_array_equal(again.ids, test.ids)


@pytest.mark.parametrize(
    "written",
    ["{0} of {1}", "{0} ({1}%)", "{0}'{1}\"", "{0} rooms {1} beds", "{0}.5° N, {1}.25° W"],
)
def test_several_numbers_among_words_are_a_vector_where_one_tells(tmp_path, written):
    numbers, label = rows()
    other = np.random.default_rng(1).integers(1, 12, ROWS)
    texts = [written.format(*pair) for pair in zip(numbers // 60, other, strict=True)]
    *others, vector = fields_of(tmp_path, texts, label)
    assert (vector.kind, vector.separator, vector.length) == ("dense_vector", r"\d", 2)
    assert others
    untold = fields_of(tmp_path, texts, np.random.default_rng(2).permutation(label))
    assert all(f.kind != "dense_vector" for f in untold)


@pytest.mark.parametrize("written", ["[{},{})", "({}.5, {}.0]"])
def test_intervals_are_categories_with_their_ends_beside_them(tmp_path, written):
    rng = np.random.default_rng(0)
    starts = rng.integers(1, 15, ROWS) * 10
    ends = starts + rng.integers(1, 3, ROWS) * 100
    texts = [written.format(*ends) for ends in zip(starts, ends, strict=True)]
    label = (rng.random(ROWS) < starts / 150).astype(int)
    whole, vector = fields_of(tmp_path, texts, label)
    assert (whole.kind, vector.kind, vector.length) == ("categorical", "dense_vector", 2)
    (alone,) = fields_of(tmp_path, texts, rng.permutation(label))
    assert alone.kind == "categorical"


def test_names_with_numbers_that_tell_nothing_and_numberings_have_no_size(tmp_path):
    numbers, label = rows()
    shuffled = np.random.default_rng(5).permutation(label)
    towns = [f"Town {n % 40}" for n in numbers]
    assert [f.kind for f in fields_of(tmp_path, towns, shuffled)] == ["categorical"]
    for order in (np.arange(ROWS), np.random.default_rng(3).permutation(ROWS)):
        assert not fields_of(tmp_path, [f"Order {i}" for i in order], shuffled)


WORDS = ["Red", "Big", "Old", "New", "Sea", "Sun", "Ice", "Oak", "Elm"]


@pytest.mark.parametrize(
    "written",
    [
        *("SKU-2024-{0}", "A{0}", "{0}{3}", "({1}) {1}-{0}", "10.{2}.{2}.{1}", "{2}.{2}.{1}"),
        *("{0:05d} EUR", "2024-05-{2:02d} no", "{4} {5} ({0})", "{0} {4}{5} St", "x@{0}.com"),
        *("https://x.com/p/{0}", "Mozilla/5.0 Gecko/{0}", "{0}a7-{0}f", "{0} {3}{6}", "v{0} beta"),
    ],
)
def test_digits_of_codes_addresses_and_titles_are_no_amounts(written):
    rng = np.random.default_rng(0)
    letters = [*"ABCDEFGHJK"]
    columns = [rng.integers(1, top, ROWS) for top in (9999, 999, 28)]
    columns += [rng.choice(kind, ROWS) for kind in (letters, WORDS, WORDS, letters)]
    texts = dict.fromkeys(written.format(*row) for row in zip(*columns, strict=True))
    assert worded(pa.array(texts)) is None


def test_ways_are_the_different_words_around_numbers():
    texts = [f"{n} {unit} ago" for n in range(1, 60) for unit in ("hours", "days")]
    assert worded(pa.array(texts)) == Worded(1, 2)
    assert worded(pa.array([str(n) for n in range(100)])) is None
    assert worded(pa.array([f"{n} {n}" for n in range(100)])) is None


def test_a_growing_number_among_words_passes_with_the_time(tmp_path):
    rng = np.random.default_rng(0)
    times = np.sort(1_700_000_000 + rng.integers(0, 300 * 86_400, ROWS))
    numbers = 10_000 + np.cumsum(rng.integers(50, 90, ROWS))
    at = rng.permutation(ROWS)
    table = {
        "timestamp": times[at],
        "ticket": [f"Ticket no. {n}" for n in numbers[at]],
        "y": rng.integers(0, 2, ROWS),
    }
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert "goes on with the time" in infer_schema(tmp_path / "t.parquet", "y").excluded["ticket"]
