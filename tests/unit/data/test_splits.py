import numpy as np
import pytest

from dynens.data.splits import select_mask, split_kind, split_rows
from dynens.errors import DataError
from dynens.schema import SplitConfig

LABELS = np.tile([0, 1], 500).astype(np.float32)
TRAIN_FILES = np.zeros(1000, np.int8)
EIGHTY = (0.8, 0.1, 0.1)
TIMES = np.arange(1000) * 3600.0 + 1.6e9


def test_random_splits_are_exact_seeded_and_stratified():
    config = SplitConfig(by="random", fractions=EIGHTY)
    one = split_rows(config, LABELS, TRAIN_FILES, 1)
    assert np.bincount(one).tolist() == [800, 100, 100]
    assert LABELS[one == 2].mean() == 0.5
    np.testing.assert_array_equal(one, split_rows(config, LABELS, TRAIN_FILES, 1))
    assert (one != split_rows(config, LABELS, TRAIN_FILES, 2)).any()


def test_time_splits_put_the_latest_rows_last():
    shuffled = np.random.default_rng(0).permutation(TIMES)
    split = split_rows(
        SplitConfig(by="time", fractions=EIGHTY), LABELS, TRAIN_FILES, 0, times=shuffled
    )
    assert np.bincount(split).tolist() == [800, 100, 100]
    assert shuffled[split == 0].max() < shuffled[split == 1].min()
    assert shuffled[split == 1].max() < shuffled[split == 2].min()


def test_time_cut_points():
    config = SplitConfig(by="time", valid_from=1.6e9 + 3600 * 500, test_from=1.6e9 + 3600 * 700)
    split = split_rows(config, LABELS, TRAIN_FILES, 0, times=TIMES)
    assert np.bincount(split).tolist() == [500, 200, 300]


def test_cut_points_mean_a_split_by_time():
    config = SplitConfig(valid_from=1.6e9 + 3600 * 500, test_from=1.6e9 + 3600 * 700)
    times = TIMES.copy()
    times[:100:5] = np.nan
    labels = LABELS.copy()
    labels[950:] = 0
    assert split_kind(config, TRAIN_FILES, times, labels) == "time"
    split = split_rows(config, labels, TRAIN_FILES, 0, times=times)
    assert np.bincount(split).tolist() == [500, 200, 300]
    with pytest.raises(DataError, match="the table has no timestamp"):
        split_rows(config, LABELS, TRAIN_FILES, 0)


def test_rows_of_one_moment_stay_together():
    days = np.floor(np.arange(1000) / 100)
    split = split_rows(SplitConfig(by="time", fractions=EIGHTY), LABELS, TRAIN_FILES, 0, times=days)
    assert all(len(np.unique(split[days == day])) == 1 for day in range(10))


def test_groups_stay_together():
    groups = np.random.default_rng(0).integers(0, 50, 1000)
    split = split_rows(SplitConfig(by="group"), LABELS, TRAIN_FILES, 0, groups=groups)
    assert set(np.unique(split)) == {0, 1, 2}
    assert all(len(np.unique(split[groups == g])) == 1 for g in np.unique(groups))


def test_parts_given_as_files_are_left_alone():
    given = TRAIN_FILES.copy()
    given[900:] = 2
    split = split_rows(SplitConfig(by="files", fractions=EIGHTY), LABELS, given, 0)
    np.testing.assert_array_equal(split == 2, given == 2)
    assert (split == 1).sum() == 100


def test_auto_falls_back_where_times_cannot_cut():
    config = SplitConfig()
    assert split_kind(config, TRAIN_FILES, TIMES, LABELS) == "time"
    assert split_kind(config, TRAIN_FILES, np.full(1000, 1.6e9), LABELS) == "random"
    assert split_kind(config, TRAIN_FILES, None, LABELS) == "random"


def test_auto_falls_back_where_the_latest_rows_have_one_class():
    labels = LABELS.copy()
    labels[950:] = 0
    assert split_kind(SplitConfig(), TRAIN_FILES, TIMES, labels) == "time"
    labels[850:] = 0
    assert split_kind(SplitConfig(), TRAIN_FILES, TIMES, labels) == "random"
    split = split_rows(SplitConfig(), labels, TRAIN_FILES, 0, times=TIMES)
    assert all(0 < labels[split == part].mean() < 1 for part in range(3))


def test_empty_and_single_class_parts_are_refused():
    config = SplitConfig(by="time", valid_from=1.0, test_from=2.0)
    with pytest.raises(DataError, match="the train part is empty"):
        split_rows(config, LABELS, TRAIN_FILES, 0, times=TIMES)
    sorted_labels = np.sort(LABELS)
    with pytest.raises(DataError, match=r"the valid part has \d+ positive and 0 negative"):
        split_rows(SplitConfig(by="time"), sorted_labels, TRAIN_FILES, 0, times=TIMES)
    bad = SplitConfig(by="time", valid_from=2e9, test_from=1.9e9)
    with pytest.raises(DataError, match="must be a time before"):
        split_rows(bad, LABELS, TRAIN_FILES, 0, times=TIMES)


def test_small_tables_keep_more_for_validation_and_rare_classes_reach_every_part():
    labels = np.zeros(500, np.float32)
    labels[:12] = 1
    split = split_rows(SplitConfig(), labels, np.zeros(500, np.int8), 0)
    assert abs((split == 0).sum() - 350) <= 2
    assert all(labels[split == part].sum() >= 2 for part in range(3))


@pytest.mark.parametrize(("num_rows", "part"), [(5, "train"), (20, "valid")])
def test_a_table_too_small_to_validate_anything_is_refused(num_rows, part):
    labels = (np.arange(num_rows) % 2).astype(np.float32)
    with pytest.raises(DataError, match=rf"the {part} part has 1 positive and \d negative"):
        split_rows(SplitConfig(), labels, np.zeros(num_rows, np.int8), 0)


def test_twenty_four_rows_are_enough():
    labels = (np.arange(24) % 2).astype(np.float32)
    split = split_rows(SplitConfig(), labels, np.zeros(24, np.int8), 0)
    assert [int((split == part).sum()) for part in range(3)] == [16, 4, 4]


def test_auto_tries_the_cuts_that_it_would_make():
    """Small tables are cut at 70 and 85 %: positives that begin between 70 and 80 % do not do."""
    labels = np.zeros(1000, np.float32)
    labels[750::2] = 1
    assert split_kind(SplitConfig(), TRAIN_FILES, TIMES, labels) == "random"
    labels[650::2] = 1
    assert split_kind(SplitConfig(), TRAIN_FILES, TIMES, labels) == "time"
    given = np.repeat([0, 2], 500).astype(np.int8)
    labels[:500:7] = 1
    assert split_kind(SplitConfig(), given, TIMES, labels) == "time"


def test_parts_given_as_files_are_cut_by_time_where_they_come_later():
    given = np.repeat(np.array([0, 1, 2], np.int8), (800, 100, 100))
    shuffled = np.random.default_rng(0).permutation(TIMES)
    assert split_kind(SplitConfig(), given, TIMES, LABELS) == "time"
    assert split_kind(SplitConfig(), given, shuffled, LABELS) == "random"
    given[900:] = 0  # the rest is cut from train, which ends later than what is given
    assert split_kind(SplitConfig(), given, TIMES, LABELS) == "random"
    assert split_kind(SplitConfig(), np.zeros(1000, np.int8), shuffled, LABELS) == "time"


def test_roles_of_validation_rows_do_not_depend_on_later_rows():
    np.testing.assert_array_equal(select_mask(100, 0.5, 1), select_mask(1000, 0.5, 1)[:100])
    assert select_mask(100_000, 0.3, 1).mean() == pytest.approx(0.3, abs=0.01)
    assert (select_mask(1000, 0.5, 1) != select_mask(1000, 0.5, 2)).mean() > 0.4
