"""Stacking: a boosted meta-learner where logits have to be read together, and the table."""

from __future__ import annotations

import numpy as np

from benchmarks.stacking import boosted, markdown, variants
from dynens.ensemble.weights import stacked_weights
from dynens.metrics import auc


def test_ten_variants_differ() -> None:
    ten = variants()
    assert len({str(config.trees) for config in ten.values()}) == len(ten) == 10
    assert {config.model for config in ten.values()} == {"xgboost"}
    assert (ten["trees-1"].trees.max_depth, ten["trees-1"].trees.learning_rate) == (3, 0.2)


def test_boosted_trees_see_what_a_weighted_sum_cannot() -> None:
    """Where both members agree in sign, rows are clicked: a sum of them says nothing."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 2)).astype(np.float32)
    labels = (np.sign(logits[:, 0]) == np.sign(logits[:, 1])).astype(np.float32)
    weight = np.ones(2000, np.float32)
    known, new = logits[:2000], logits[2000:]
    z = boosted(known, labels[:2000], weight, new, seed=1)
    linear = new @ stacked_weights(known, labels[:2000], weight, 1)
    assert auc(labels[2000:], z, weight) > 0.95
    assert abs(auc(labels[2000:], linear, weight) - 0.5) < 0.1


def test_boosted_trees_with_nothing_to_add_keep_the_mean() -> None:
    logits = np.tile([[1.0, 3.0]], (40, 1)).astype(np.float32)
    share = 1 / (1 + np.exp(-2.0))  # of clicks where the mean logit is 2
    labels = np.full(40, share, np.float32)
    z = boosted(logits, labels, np.ones(40, np.float32), logits, seed=1)
    np.testing.assert_allclose(z, 2.0, atol=1e-3)


def test_table() -> None:
    results = [
        {
            "pool": "ten",
            "seed": seed,
            "seconds": 10.0 * seed,
            "us_per_row": 4.0,
            "test_auc": {"uniform": 0.7 + 0.01 * seed, "stacking": 0.75},
        }
        for seed in (1, 3)
    ]
    text = markdown({"results": results})
    assert "| pool | uniform | stacking | µs/row | seconds to train |" in text
    assert "| ten | 0.7200 ± 0.0141 | 0.7500 ± 0.0000 | 4.0 | 20 |" in text
