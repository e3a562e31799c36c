"""Differences between systems."""

import numpy as np
import pytest

from dynens.batch import EncodedBatch
from dynens.config.run import ReportConfig
from dynens.evaluation.evaluate import PAIRS, _paired
from dynens.evaluation.systems import Scored
from dynens.metrics import auc


def test_random_routing_is_compared_by_its_mean_and_not_by_one_draw() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 40).astype(np.float32)
    easy, hard = (0.6 * labels + rng.random((2, 40))).astype(np.float32)
    route = (np.arange(40) % 4 == 0).astype(np.int32)
    probabilities = dict.fromkeys({name for pair in PAIRS for name in pair}, hard)
    del probabilities["random_route"]
    probabilities |= {"student": easy, "static_ensemble_with_student": hard}
    scored = Scored({}, probabilities, easy, route)
    batch = EncodedBatch(np.zeros((40, 0), np.float32), np.zeros((40, 0), np.int32), labels)
    by_chance = [
        auc(labels, scored.routed(np.isin(np.arange(40), rng.permutation(40)[:10])))
        for _ in range(2000)
    ]
    found = _paired(scored, batch, ReportConfig(), seed=1)["dynamic_minus_random_route"]
    assert found["value"] == pytest.approx(auc(labels, hard) - np.mean(by_chance), abs=2e-3)
