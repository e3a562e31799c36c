"""Which texts of digits are amounts."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.inference.infer import infer_schema

ROWS = 3000


def fields_of(tmp_path, texts):
    """The fields of a column of texts, beside another of numbers."""
    rng = np.random.default_rng(1)
    table = {"x": rng.normal(size=len(texts)), "y": rng.random(len(texts)) < 0.3}
    pq.write_table(pa.table({"c": texts} | table), tmp_path / "t.parquet")
    found = infer_schema(tmp_path / "t.parquet", "y")
    return [f for f in found.dataset.features.fields if f.source == "c"], found.warnings


@pytest.mark.parametrize("fewest", [1, 2])
@pytest.mark.parametrize(("mark", "separator"), [(",", ","), (" ", None)])
def test_codes_of_three_digits_in_lists_are_no_thousands(tmp_path, mark, separator, fewest):
    rng = np.random.default_rng(0)
    texts = [
        mark.join(map(str, rng.choice(300, n, replace=False) + 100))
        for n in rng.integers(fewest, 6, ROWS).tolist()
    ]
    (field,), warnings = fields_of(tmp_path, texts)
    assert (field.kind, field.separator) == ("multi_valued", separator)
    assert not warnings


@pytest.mark.parametrize(
    ("low", "high"), [(1, 10**7), (100, 10**6), (100_000, 999_999), (100_000, 1_300_000)]
)
def test_thousands_are_numbers(tmp_path, low, high):
    rng = np.random.default_rng(0)
    sizes = np.exp(rng.uniform(np.log(low), np.log(high), ROWS)).astype(int)
    for mark in ", ":
        texts = [f"{size:,}".replace(",", mark) for size in sizes.tolist()]
        (field,), _ = fields_of(tmp_path, texts)
        assert field.kind == "numeric"


def test_numbers_of_most_rows_have_their_size_beside_them_as_the_warning_says(tmp_path):
    rng = np.random.default_rng(0)
    other = rng.random(ROWS) < 0.06
    driven = rng.integers(0, np.where(other, 500, 100)) / 10 + 10
    texts = [f"{d} {'km/kg' if o else 'kmpl'}" for d, o in zip(driven, other, strict=True)]
    fields, (warning,) = fields_of(tmp_path, texts)
    assert {(f.name, f.kind, f.unit) for f in fields} >= {("c.size", "numeric", "kmpl")}
    assert "stand together in c" in warning


def test_few_numbers_among_texts_are_not_warned_of(tmp_path):
    rng = np.random.default_rng(0)
    texts = np.where(
        rng.random(ROWS) < 0.1,
        [f"w{i}" for i in rng.integers(0, 60, ROWS)],
        rng.integers(0, 5, ROWS).astype(str),
    )
    (field,), warnings = fields_of(tmp_path, texts)
    assert field.kind == "categorical"
    assert not warnings


def test_amounts_in_several_currencies_warn_and_say_which(tmp_path):
    rng = np.random.default_rng(0)
    amounts = rng.integers(100, 90_000, ROWS) / 100
    marks = rng.choice(["EUR", "USD", "JPY"], ROWS, p=[0.6, 0.399, 0.001])
    texts = [f"{mark} {amount:,.2f}" for mark, amount in zip(marks, amounts, strict=True)]
    (size, words), warnings = fields_of(tmp_path, texts)
    assert (size.kind, words.kind, words.name) == ("numeric", "multi_valued", "c.words")
    (told,) = (warning for warning in warnings if "currencies" in warning)
    assert "c has amounts in several currencies (EUR, USD), which are read as if" in told
    (alone,), warnings = fields_of(tmp_path, [f"EUR {amount:,.2f}" for amount in amounts])
    assert alone.kind == "numeric"
    assert not warnings
