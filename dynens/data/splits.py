"""Cutting rows into train, valid and test."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynens.data.reading.row_hashes import random_bits
from dynens.data.reading.times import seconds_of
from dynens.errors import DataError
from dynens.metrics import informative_rows
from dynens.schema import SplitConfig, TimeFormat

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST, UNLABELLED = range(4)
LEFT_OUT = -1
# Training rows without a label are a part of their own.
PARTS = (*SPLITS, "unlabelled")
_MANY, _FEW, _FEW_ROWS = (0.8, 0.1, 0.1), (0.7, 0.15, 0.15), 10_000
_LATE = 0.9  # of the training rows, than which later parts are later
# With a single row of a class, any model that ranks this one first has an AUC of 1.
_LEAST_OF_A_CLASS = 2
_LARGE, _COMMON = 0.01, 0.05  # of the rows, for one row and its copies
_STREAM = 8191  # keeps the cuts apart from tables that were drawn with the same seed
Codes = npt.NDArray[np.int8]
Labels = npt.NDArray[np.float32]


def split_rows(
    split: SplitConfig,
    labels: Labels,
    given: Codes,
    seed: int,
    *,
    times: npt.NDArray[np.float64] | None = None,
    time_format: TimeFormat = "auto",
    groups: npt.NDArray[np.int64] | None = None,
    copies: npt.NDArray[np.uint64] | None = None,
    train_on_valid: bool = False,
) -> Codes:
    """(N,) int8 split of every row, an index into `PARTS` or `LEFT_OUT`.

    Of rows without a label those stay that could have trained: whose time is not after the last
    training row's, or whose group is in no other part.

    Args:
        split: how.
        labels: (N,) labels, NaN where there is none.
        given: (N,) the part each row's file was given as; only rows given as train are cut, and
            only into the parts that were not given.
        seed: of the random cuts.
        times: (N,) seconds; NaN rows go to train.
        time_format: of the cut points.
        groups: (N,) group codes.
        copies: (N,) numbers, equal for rows that random cuts keep together.
        train_on_valid: whether the rows of the validation part train in the end.

    Raises:
        DataError: a part would be empty, or train or valid have fewer than two rows of a class.
    """
    how = split_kind(split, given, times, labels)
    labelled = ~np.isnan(labels)
    codes = np.where(labelled, given, np.int8(LEFT_OUT))
    rows = np.flatnonzero(codes == TRAIN)
    shares = _shares(split, given[labelled], labels[labelled])
    if shares[TRAIN] < 1:
        if how == "time":
            assert times is not None
            codes[rows] = _by_time(split, times[rows], shares, time_format)
        elif how == "group":
            assert groups is not None
            codes[rows] = _by_group(groups[rows], shares, seed)
        else:
            alike = np.arange(len(rows)) if copies is None else _together(copies[rows])
            codes[rows] = _at_random(labels[rows], alike, shares, seed, split.stratify)
    _check(codes, labels, how)
    if train_on_valid:
        codes[codes == VALID] = TRAIN
    stays = ~labelled & (given == TRAIN)
    if how == "time" and times is not None:
        trained = times[codes == TRAIN]
        stays &= ~(times > trained[np.isfinite(trained)].max(initial=-np.inf))
    elif how == "group" and groups is not None:
        stays &= ~np.isin(groups, groups[(codes == VALID) | (codes == TEST)])
    codes[stays | (given == UNLABELLED)] = UNLABELLED
    return codes


def split_kind(
    split: SplitConfig,
    given: Codes,
    times: npt.NDArray[np.float64] | None,
    labels: Labels,
) -> Literal["time", "random", "group"]:
    """How rows are cut in the end.

    `auto` and `files` mean by time where cut points are given or times can cut the rows into parts
    with both classes, and parts given as files come later than train, else at random.

    Raises:
        DataError: cut points are given but no times.
    """
    if split.by in ("time", "random", "group"):
        return split.by
    labelled = ~np.isnan(labels)
    given, labels = given[labelled], labels[labelled]
    times = None if times is None else times[labelled]
    if split.valid_from is not None:
        if times is None:
            raise DataError(
                f"the split has valid_from {split.valid_from!r}, but the table has no timestamp; "
                "name one in features.timestamp, or leave the cut points out."
            )
        return "time"
    train = given == TRAIN
    if times is None or np.isfinite(times[train]).sum() < 0.99 * train.sum():
        return "random"
    if not _follow(times, given):
        return "random"
    known = train & np.isfinite(times)
    shares = _shares(split, given, labels)
    points = np.cumsum(shares)[:2]
    first, valid, test = np.quantile(times[known], (0.0, *points), method="higher")
    cuts = [cut for cut, part in ((valid, VALID), (test, TEST)) if shares[part] > 0]
    if len({first, *cuts}) <= len(cuts):
        return "random"
    after = np.searchsorted(cuts, times[known], side="right")
    mixed = all(0 < labels[known][after == part].mean() < 1 for part in range(len(cuts) + 1))
    return "time" if mixed else "random"


def select_mask(num_rows: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """True for validation rows that select and stop; the others calibrate and fit the router.

    The role of a row is a hash of its number, so it does not depend on how many rows follow.
    """
    key = hashlib.blake2b(f"select-{seed}".encode(), digest_size=8).digest()
    bits = random_bits(np.arange(num_rows), np.frombuffer(key, dtype=np.uint64)[0])
    return np.asarray((bits >> np.uint64(11)).astype(np.float64) / 2**53 < share)


def _follow(times: npt.NDArray[np.float64], given: Codes) -> bool:
    """Whether the parts given as files, if any, come later than the rows given as train."""
    known = np.isfinite(times)
    train, others = times[known & (given == TRAIN)], times[known & (given != TRAIN)]
    return not len(others) or bool(np.median(others) > np.quantile(train, _LATE))


def _shares(split: SplitConfig, given: Codes, labels: Labels) -> npt.NDArray[np.float64]:
    """What share of the rows given as train each part is cut from them; parts given have none."""
    few = informative_rows(labels[given == TRAIN]) < _FEW_ROWS
    wanted = split.fractions or (_FEW if few else _MANY)
    missing = [part for part in (VALID, TEST) if not (given == part).any()]
    fractions = [wanted[p] if p in (TRAIN, *missing) else 0.0 for p in range(3)]
    return np.array(fractions) / sum(fractions)


def _by_time(
    split: SplitConfig,
    times: npt.NDArray[np.float64],
    shares: npt.NDArray[np.float64],
    time_format: TimeFormat,
) -> Codes:
    known = np.isfinite(times)
    if not known.any():
        raise DataError("the timestamp column holds no readable time; split at random instead.")
    if split.valid_from is not None:
        first_valid = seconds_of(split.valid_from, time_format)
        first_test = seconds_of(split.test_from, time_format)
        if not first_valid < first_test:
            raise DataError(
                f"valid_from {split.valid_from!r} must be a time before "
                f"test_from {split.test_from!r}."
            )
    else:
        points = np.cumsum(shares)[:2]
        first_valid, first_test = np.quantile(times[known], points, method="higher")
    codes = np.zeros(len(times), np.int8)
    if shares[VALID] > 0:
        codes[known & (times >= first_valid)] = VALID
    if shares[TEST] > 0:
        codes[known & (times >= first_test)] = TEST
    return codes


def _by_group(groups: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], seed: int) -> Codes:
    _, members = np.unique(groups, return_inverse=True)
    order = np.random.default_rng((seed, _STREAM)).permutation(members.max() + 1)
    cuts = np.cumsum(shares)[:2] * len(order)
    return np.searchsorted(cuts, order[members], side="right").astype(np.int8)


def _at_random(
    labels: Labels,
    alike: npt.NDArray[np.int64],
    shares: npt.NDArray[np.float64],
    seed: int,
    stratify: bool,
) -> Codes:
    """(N,) parts, drawn for the first of alike rows and taken over by the rest of them.

    What has many rows goes to train: a part of the others should not be one row many times.
    """
    codes = np.zeros(len(labels), np.int8)
    rng = np.random.default_rng((seed, _STREAM))
    sizes = np.bincount(alike, minlength=len(labels))
    firsts = np.flatnonzero(sizes)
    strata = [labels[firsts] > 0, labels[firsts] <= 0] if stratify else [np.s_[:]]
    for stratum in strata:
        rows = rng.permutation(firsts[stratum])
        rows = rows[np.argsort(sizes[rows] <= _LARGE * sizes[rows].sum(), kind="stable")]
        ends = np.cumsum(sizes[rows])
        wanted = np.round(np.cumsum(shares)[:2] * sizes[rows].sum())
        first, second = np.searchsorted(ends - sizes[rows] / 2, wanted)
        if len(rows) >= 3:  # a rare class still reaches every part
            second = min(second, len(rows) - 1) if shares[TEST] else second
            first = min(first, second - 1) if shares[VALID] else first
        codes[rows[first:second]] = VALID
        codes[rows[second:]] = TEST
    return codes[alike]


def _together(copies: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """(N,) the first of each row's copies; of one that much of the table is, the row itself.

    Such a row, all defaults perhaps, is many impressions alike, as future ones will be.
    """
    alike = first_alike(copies)
    common = np.bincount(alike)[alike] > _COMMON * len(copies)
    return np.where(common, np.arange(len(copies)), alike)


def first_alike(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """(N,) the first row that has each row's number."""
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first[inverse]


def _check(codes: Codes, labels: Labels, how: str) -> None:
    for part, name in enumerate(SPLITS):
        mine = labels[codes == part]
        if not len(mine):
            raise DataError(
                f"the {name} part is empty after the split by {how}; "
                "change the cut points or fractions, or give it as a file."
            )
        positive = int((mine > 0).sum())
        negative = len(mine) - positive
        if part != TEST and min(positive, negative) < _LEAST_OF_A_CLASS:
            raise DataError(
                f"the {name} part has {positive} positive and {negative} negative rows but needs "
                f"{_LEAST_OF_A_CLASS} of each; give more rows or another split."
            )
