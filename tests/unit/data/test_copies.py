"""Rows that repeat others: found, kept in one part, told of; other rows are cut as ever."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.data.copies import copies_in, of_copies
from dynens.data.prepare import prepare
from dynens.data.reading.row_hashes import hash_rows
from dynens.data.splits import TRAIN, split_rows
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec, SplitConfig


def rows_of(num_rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "x": rng.normal(size=num_rows),
            "shop": rng.choice(["a", "b", None], num_rows),
            "tags": [[str(i % 7), None][: i % 3] for i in range(num_rows)],
            "y": rng.integers(0, 2, num_rows),
        }
    )


def again(table: pa.Table, rows: list[int]) -> pa.Table:
    return pa.concat_tables([table, table.take(rows)])


def prepared(table: pa.Table, folder: Path) -> tuple[dict[float, set[str]], list[str], Path]:
    """(parts by the value of x, warnings, the folder)."""
    folder.mkdir()
    pq.write_table(table, folder / "t.parquet")
    fields = (
        FieldSpec(name="x", kind="numeric"),
        FieldSpec(name="shop"),
        FieldSpec(name="tags", kind="multi_valued"),
    )
    features = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    data = DatasetConfig(
        name="t",
        files=(str(folder / "t.parquet"),),
        features=features,
        split=SplitConfig(by="random"),
    )
    out = prepare(data, folder / "data", seed=1)
    parts: dict[float, set[str]] = {}
    for part in ("train", "valid", "test"):
        for value in out.split(part).dense[:, 0].tolist():
            parts.setdefault(value, set()).add(part)
    return parts, out.report["warnings"], folder / "data"


def test_copies_are_in_one_part_and_told_of(tmp_path: Path) -> None:
    table = rows_of(600)
    parts, warnings, _ = prepared(again(table, list(range(0, 600, 4))), tmp_path / "a")
    assert all(len(of_value) == 1 for of_value in parts.values())
    assert [w for w in warnings if w.startswith("20% of the rows repeat another")]


def test_test_rows_that_train_are_told_of() -> None:
    rows = np.arange(300, dtype=np.uint64)
    given = np.repeat(np.array([0, 2], np.int8), [200, 100])
    assert of_copies(rows, given) == []
    rows[200:230] = rows[:30]
    (warning,) = of_copies(rows, given)
    assert warning.startswith("30% of the test rows stand among the training rows")


def test_a_table_of_few_distinct_rows_is_cut_row_by_row(tmp_path: Path) -> None:
    table = again(rows_of(40), [i % 40 for i in range(600)])
    parts, warnings, _ = prepared(table, tmp_path / "a")
    assert np.mean([len(of_value) > 1 for of_value in parts.values()]) > 0.9
    assert not any("repeat" in warning for warning in warnings)


def test_rows_without_copies_are_cut_as_ever() -> None:
    labels = np.arange(400) % 2 * np.float32(1)
    given = np.zeros(400, np.int8)
    numbers = np.arange(400, dtype=np.uint64)
    plain = split_rows(SplitConfig(by="random"), labels, given, 1)
    same = split_rows(SplitConfig(by="random"), labels, given, 1, copies=numbers)
    assert np.array_equal(plain, same)
    numbers[100:200] = numbers[:100]
    kept = split_rows(SplitConfig(by="random"), labels, given, 1, copies=numbers)
    assert np.array_equal(kept[100:200], kept[:100])
    assert (kept == TRAIN).mean() == pytest.approx(0.7, abs=0.01)


def test_each_part_has_its_share_of_each_class_however_rows_repeat() -> None:
    """Twelve positives fifty times each: those drawn are whole, and every part has some."""
    copies = np.concatenate([np.repeat(np.arange(12), 50), np.arange(12, 1512)]).astype(np.uint64)
    labels = (copies < 12).astype(np.float32)
    for seed in range(20):
        given = np.zeros(len(labels), np.int8)
        codes = split_rows(SplitConfig(by="random"), labels, given, seed, copies=copies)
        assert all(len(set(codes[copies == number])) == 1 for number in range(12))
        for part, share in enumerate((0.7, 0.15, 0.15)):
            assert (labels[codes == part] > 0).sum() == pytest.approx(600 * share, abs=51)
            assert (labels[codes == part] <= 0).sum() == pytest.approx(1500 * share, abs=1)


def test_a_row_that_much_of_the_table_is_has_its_share_in_every_part() -> None:
    copies = np.arange(10_000, dtype=np.uint64)
    copies[::3] = 10_000
    labels = np.where(copies == 10_000, 0, np.arange(10_000) % 2).astype(np.float32)
    for seed in range(12):
        given = np.zeros(len(labels), np.int8)
        codes = split_rows(SplitConfig(by="random"), labels, given, seed, copies=copies)
        shares = [(copies[codes == part] == 10_000).mean() for part in range(3)]
        assert shares == pytest.approx([1 / 3] * 3, abs=0.05)


def test_lists_are_told_apart_by_their_order_length_and_missing_values() -> None:
    values = [[1, 2], [2, 1], [1, 2, 0], [], None, [None], [0], [1], [12]]
    for kind in (pa.list_(pa.int64()), pa.large_list(pa.int32()), pa.list_(pa.string())):
        column = pa.array(values, pa.list_(pa.int64())).cast(kind)
        hashes = hash_rows(pa.table({"v": column}))
        assert len(np.unique(hashes)) == len(values)
        apart = [hash_rows(pa.table({"v": column.slice(i, 1)}))[0] for i in range(len(values))]
        assert np.array_equal(hashes, apart)


def test_rows_are_told_apart_by_every_column_and_alike_in_every_chunk() -> None:
    table = rows_of(300)
    whole = hash_rows(table)
    assert len(np.unique(whole)) == 300
    bits = [hash_rows(table.slice(i, 1).combine_chunks()) for i in range(300)]
    assert np.array_equal(whole, np.concatenate(bits))
    for name in table.column_names:
        at = table.column_names.index(name)
        other = table.set_column(at, name, pa.nulls(300, table[name].type))
        known = table[name].is_valid().to_numpy()
        assert (hash_rows(other) != whole)[known].all(), name


@pytest.mark.parametrize(
    "kind", [pa.timestamp("ns"), pa.timestamp("s"), pa.date32(), pa.date64(), pa.time64("ns")]
)
def test_times_of_every_resolution_are_told_apart(kind: pa.DataType) -> None:
    """Python knows no nanoseconds, and no year beyond 9999."""
    width = pa.int32() if kind.bit_width == 32 else pa.int64()
    numbers = pa.array([1_000_000_001, 1_000_000_002, None, 1_000_000_001], width)
    first, second, missing, again = hash_rows(pa.table({"at": numbers.view(kind)}))
    assert first == again
    assert len({first, second, missing}) == 3


def test_without_copies_there_is_nothing_to_keep_together(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    table = rows_of(50)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    assert copies_in([path]) is None
    assert copies_in([path, path]) is not None  # half of the rows are others
    assert copies_in([path, path, path]) is None
