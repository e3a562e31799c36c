"""How systems differ and agree."""

from typing import Any

import numpy as np
import pytest

from dynens.batch import EncodedBatch
from dynens.config.run import ReportConfig
from dynens.ensemble.blend import Blend
from dynens.evaluation.evaluate import PAIRS, _agreement, _paired
from dynens.evaluation.systems import RunSystems, Scored, redundancy
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


def agreement_of(rows: np.ndarray, weight: np.ndarray | None) -> tuple[Any, Any]:
    """How student and pool agree on these rows of a table, and what each member contributes."""
    rng = np.random.default_rng(1)
    logits = {n: z[rows] for n, z in zip("abs", rng.normal(size=(3, 30)).astype("f4"), strict=True)}
    labels = rng.integers(0, 2, 30)[rows].astype(np.float32)
    blends = {
        "static_ensemble": Blend({"a": 0.7, "b": 0.3}),
        "full_pool": Blend({"a": 0.5, "b": 0.5}),
        "student": Blend({"s": 1.0}),
    }
    systems = RunSystems(None, None, blends, ("a", "b"), "a", ("a", "b"))  # type: ignore[arg-type]
    probabilities = {name: blend.probability(logits) for name, blend in blends.items()}
    scored = Scored(logits, probabilities, logits["s"], np.zeros(len(rows), np.int32))
    empty = np.zeros((len(rows), 0))
    batch = EncodedBatch(empty.astype("f4"), empty.astype("i4"), labels, weight)
    return _agreement(systems, scored, weight), redundancy(systems, logits, batch)


def test_a_row_of_weight_two_counts_as_two_in_agreement_and_redundancy() -> None:
    rows = np.arange(30)
    weight = 1 + (rows % 3 == 0).astype(np.float32)
    weighted, repeated = (
        agreement_of(rows, weight),
        agreement_of(np.repeat(rows, np.int64(weight)), None),
    )
    for found, expected in zip(weighted, repeated, strict=True):
        for name, value in expected.items():
            assert found[name] == pytest.approx(value)
    assert sum(member["variance_share"] for member in weighted[1].values()) == pytest.approx(1)
