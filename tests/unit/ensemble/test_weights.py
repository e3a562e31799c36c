"""Member weights and the choice of members."""

import numpy as np
import pytest

from dynens.ensemble.selection import choose_members
from dynens.ensemble.weights import WEIGHTS, choose_weights, greedy_weights
from dynens.errors import ConfigError
from dynens.metrics import auc, sigmoid


def pool(num_rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Two good noisy members and one of pure noise."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=num_rows) * 2
    labels = (rng.random(num_rows) < sigmoid(truth)).astype(np.float32)
    noise = rng.normal(size=(num_rows, 3))
    logits = np.stack([truth + noise[:, 0], truth + noise[:, 1], noise[:, 2]], axis=1)
    return logits, labels


@pytest.mark.parametrize("method", WEIGHTS)
def test_every_method_beats_the_best_single_member(method: str) -> None:
    logits, labels = pool()
    weights = WEIGHTS[method](logits[:, :2], labels, None, 0)
    best = max(auc(labels, logits[:, m]) for m in (0, 1))
    assert auc(labels, logits[:, :2] @ weights) > best + 0.005


def test_greedy_selection_leaves_noise_out() -> None:
    logits, labels = pool()
    weights = greedy_weights(logits, labels, None, 0)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[2] < 0.05


def test_equally_good_members_keep_uniform_weights() -> None:
    logits, labels = pool()
    chosen = choose_weights(logits[:, :2], labels, methods=tuple(WEIGHTS), seed=0)
    assert chosen.method == "uniform"
    assert set(chosen.out_of_fold_auc) == set(WEIGHTS)


def test_a_useless_member_loses_its_uniform_weight_but_not_all_of_it() -> None:
    logits, labels = pool()
    chosen = choose_weights(logits, labels, methods=tuple(WEIGHTS), seed=0, floor=0.05)
    assert chosen.method != "uniform"
    assert 0 < chosen.weights[2] < 0.15


@pytest.mark.parametrize("num_positives", [0, 1, 2])
def test_a_class_that_is_hardly_there_decides_no_weights(num_positives: int) -> None:
    logits = np.random.default_rng(0).normal(size=(300, 3))
    labels = (np.arange(300) < num_positives).astype(float)
    chosen = choose_weights(logits, labels, methods=tuple(WEIGHTS), seed=0, floor=0.05)
    assert chosen.method == "uniform"
    np.testing.assert_allclose(chosen.weights, 1 / 3)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_no_weights_reverse_what_the_members_say(floor: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(np.float32)
    logits = 1 - 2 * labels[:, None] + rng.standard_normal((400, 3))
    choice = choose_weights(logits, labels, methods=("stacking",), seed=1, floor=floor)
    assert choice.weights == pytest.approx(np.full(3, 1 / 3))


def test_methods_are_compared_by_the_weights_that_are_served() -> None:
    """The second member is the first one's error, so that regression subtracts it."""
    logits, labels = pool()
    error = logits[:, 0] - logits[:, 1]
    members = np.stack([logits[:, 0], error, logits[:, 2]], axis=1)
    choice = choose_weights(members, labels, methods=("uniform", "stacking"), seed=0, floor=0.0)
    assert choice.method == "stacking"
    assert choice.weights[1] == 0
    served = auc(labels, members @ choice.weights)
    assert choice.out_of_fold_auc["stacking"] == pytest.approx(served, abs=3e-3)


def test_members_are_the_best_set_under_the_cost_cap() -> None:
    logits, labels = pool()
    named = {name: logits[:, i].astype(np.float32) for i, name in enumerate("abc")}
    cost = {"a": 1.0, "b": 5.0, "c": 1.0}
    free = choose_members(named, labels, size=2, cost_us_per_row=cost, cost_cap_us_per_row=None)
    assert free.members == ("a", "b")
    capped = choose_members(named, labels, size=2, cost_us_per_row=cost, cost_cap_us_per_row=3.0)
    assert capped.members == ("a", "c")
    with pytest.raises(ConfigError, match=r"cheapest 2 cost 2\.0"):
        choose_members(named, labels, size=2, cost_us_per_row=cost, cost_cap_us_per_row=1.0)
