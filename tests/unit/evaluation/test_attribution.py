"""Permutation importance against arithmetic on a function whose dependence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from dynens.batch import EncodedBatch
from dynens.evaluation.attribution import _agreement, field_shifts

COLUMNS = {
    "used": (slice(0, 1), slice(0, 0)),
    "list": (slice(1, 1), slice(0, 2)),
    "ignored": (slice(1, 2), slice(2, 3)),
}


def rows(count: int = 200) -> EncodedBatch:
    generator = np.random.default_rng(0)
    dense = generator.normal(size=(count, 2)).astype(np.float32)
    return EncodedBatch(dense, generator.integers(0, 5, (count, 3)).astype(np.int32))


def probability(batch: EncodedBatch) -> np.ndarray:
    return np.asarray(expit(batch.dense[:, 0] + 0.5 * batch.ids[:, 0] * batch.ids[:, 1]))


def test_a_field_moves_what_hangs_on_it_and_all_its_columns_move_together() -> None:
    batch = rows()
    kept = batch.dense.copy(), batch.ids.copy()
    shifts = field_shifts(probability, batch, COLUMNS, seed=3)
    x, product = batch.dense[:, 0], 0.5 * batch.ids[:, 0] * batch.ids[:, 1]
    before = expit(x + product)
    first, second = (np.random.default_rng([3, n]).permutation(200) for n in (0, 1))
    assert shifts["used"] == pytest.approx(np.abs(expit(x[first] + product) - before).mean())
    assert shifts["list"] == pytest.approx(np.abs(expit(x + product[second]) - before).mean())
    assert shifts["ignored"] == 0.0
    np.testing.assert_array_equal(batch.dense, kept[0])
    np.testing.assert_array_equal(batch.ids, kept[1])


def test_the_mean_over_rows_is_weighted() -> None:
    batch = rows()
    only = replace(batch, sample_weight=(np.arange(200) == 7).astype(np.float32))
    shifts = field_shifts(probability, only, COLUMNS, seed=3)
    order = np.random.default_rng([3, 0]).permutation(200)
    moved = batch.dense.copy()
    moved[:, 0] = batch.dense[order, 0]
    change = np.abs(probability(replace(batch, dense=moved)) - probability(batch))
    assert shifts["used"] == pytest.approx(change[7])
    without = replace(batch, sample_weight=np.zeros(200, np.float32))
    plain = field_shifts(probability, batch, COLUMNS, seed=3)
    assert field_shifts(probability, without, COLUMNS, seed=3) == plain


def test_agreement_is_spearmans_rank_correlation() -> None:
    generator = np.random.default_rng(1)
    for _ in range(5):
        a, b = (generator.integers(0, 6, 12).astype(float).tolist() for _ in range(2))
        assert _agreement(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert _agreement([3.0, 2.0, 1.0], [0.3, 0.25, 0.1]) == pytest.approx(1.0)
    assert _agreement([3.0, 2.0, 1.0], [0.1, 0.2, 0.3]) == pytest.approx(-1.0)
    assert np.isnan(_agreement([1.0], [1.0]))
    assert np.isnan(_agreement([1.0, 1.0], [1.0, 2.0]))
