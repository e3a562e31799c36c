import numpy as np
import pytest

from dynens.batch import FeatureLayout, SparseField, num_flat_rows
from dynens.data.statistics import (
    SMOOTHING,
    CountTables,
    StatTables,
    flat_offsets,
    fold_of,
    part_tables,
    period_bounds,
    period_of,
    stat_table,
    train_stats,
)

LAYOUT = FeatureLayout((), (SparseField("a", 5), SparseField("tags", 4, 3)))


def rows_of_ids(num_rows=300, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.full((num_rows, 4), -1, np.int32)
    ids[:, 0] = rng.integers(0, 5, num_rows)
    for row, length in enumerate(rng.integers(1, 4, num_rows)):
        ids[row, 1 : 1 + length] = rng.integers(0, 4, length)
    labels = (rng.random(num_rows) < 0.2 + 0.1 * ids[:, 0]).astype(np.float32)
    return ids, labels


def by_hand(ids, labels, seen, row):
    """Target and count of one row's field `a` from the `seen` rows alone, by the equations."""
    if not seen.any():
        return 0.0, 0.0
    same = seen & (ids[:, 0] == ids[row, 0])
    rate = np.clip(labels[seen].mean(), 1e-6, 1 - 1e-6)
    share = (labels[same].sum() + SMOOTHING * rate) / (same.sum() + SMOOTHING)
    share = np.clip(share, 1e-7, 1 - 1e-7)
    target = np.log(share / (1 - share)) - np.log(rate / (1 - rate))
    scaled = same.sum() * len(ids) / seen.sum()
    return target, np.log1p(scaled) / np.log1p(len(ids))


def encode(ids, labels, parts, num_parts, past):
    counts = CountTables(LAYOUT, num_parts)
    for start in range(0, len(ids), 77):
        chunk = slice(start, start + 77)
        counts.add(ids[chunk], labels[chunk], parts[chunk])
    return train_stats(LAYOUT, part_tables(LAYOUT, counts, past), ids, parts)


def test_out_of_fold_values_see_the_other_folds_only():
    ids, labels = rows_of_ids()
    parts = fold_of(np.arange(len(ids)), seed=3)
    values = encode(ids, labels, parts, 5, past=False)
    for row in range(0, len(ids), 29):
        expected = by_hand(ids, labels, parts != parts[row], row)
        np.testing.assert_allclose(values[row, [0, 2]], expected, atol=1e-5)


def test_past_values_see_earlier_periods_only():
    ids, labels = rows_of_ids()
    times = np.random.default_rng(1).permutation(len(ids)).astype(float)
    parts = period_of(times, period_bounds(times, 6))
    assert np.bincount(parts).tolist() == [50] * 6
    values = encode(ids, labels, parts, 6, past=True)
    for row in range(0, len(ids), 29):
        expected = by_hand(ids, labels, parts < parts[row], row)
        np.testing.assert_allclose(values[row, [0, 2]], expected, atol=1e-5)


@pytest.mark.parametrize("past", [False, True])
def test_a_rows_own_label_never_reaches_its_values(past):
    ids, labels = rows_of_ids()
    parts = (
        period_of(np.arange(300.0), period_bounds(np.arange(300.0), 6))
        if past
        else fold_of(np.arange(300), seed=0)
    )
    before = encode(ids, labels, parts, 6, past)
    for row in (0, 137, 299):
        flipped = labels.copy()
        flipped[row] = 1 - flipped[row]
        after = encode(ids, flipped, parts, 6, past)
        mine = parts == parts[row]
        np.testing.assert_array_equal(before[mine], after[mine])


def test_frozen_tables_and_multi_valued_means():
    ids, labels = rows_of_ids()
    counts = CountTables(LAYOUT, 1)
    counts.add(ids, labels, np.zeros(len(ids), np.int32))
    rows, positives, num_rows, num_positives = counts.total()
    table = stat_table(LAYOUT, rows, positives, num_rows, num_positives, num_rows)
    assert table.shape == (num_flat_rows(LAYOUT.fields), 2)
    stats = StatTables(LAYOUT, table)
    values = stats.transform(ids)
    everything = np.ones(len(ids), bool)
    np.testing.assert_allclose(values[7, [0, 2]], by_hand(ids, labels, everything, 7), atol=1e-5)
    offset = flat_offsets(LAYOUT)[1]
    known = ids[7, 1:][ids[7, 1:] >= 0]
    np.testing.assert_allclose(values[7, [1, 3]], table[known + offset].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(table[flat_offsets(LAYOUT) - 1], 0)


def test_counts_do_not_depend_on_how_they_are_added():
    ids, labels = rows_of_ids()
    parts = fold_of(np.arange(len(ids)), seed=0)
    whole, bits = CountTables(LAYOUT, 5), CountTables(LAYOUT, 5)
    whole.add(ids, labels, parts)
    for row in range(len(ids)):
        bits.add(ids[row : row + 1], labels[row : row + 1], parts[row : row + 1])
    np.testing.assert_array_equal(whole.rows, bits.rows)
    np.testing.assert_array_equal(whole.positives, bits.positives)


def test_save_and_load(tmp_path):
    stats = StatTables(LAYOUT, np.arange(22, dtype=np.float32).reshape(11, 2))
    stats.save(tmp_path / "s")
    again = StatTables.load(tmp_path / "s")
    np.testing.assert_array_equal(stats.table, again.table)
    assert again.layout == LAYOUT
    assert again.columns == ("a#target", "tags#target", "a#count", "tags#count")


def test_folds_are_even_and_follow_the_row_number():
    folds = fold_of(np.arange(50_000), seed=1)
    assert np.bincount(folds).min() > 9_600
    np.testing.assert_array_equal(folds[100:200], fold_of(np.arange(100, 200), seed=1))


def test_buckets_of_numbers_have_no_statistics():
    layout = FeatureLayout(("x",), (SparseField("x#bucket", 5), SparseField("a", 5)))
    ids, labels = rows_of_ids()
    counts = CountTables(layout, 1)
    counts.add(ids[:, [0, 0]], labels, np.zeros(len(ids), np.int32))
    table = stat_table(layout, *counts.total(), counts.total()[2])
    assert (table[:6] == 0).all()
    assert (table[7:] != 0).all()
    assert counts.rows[0, 1:6].sum() == len(ids)
