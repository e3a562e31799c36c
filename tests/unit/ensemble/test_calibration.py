"""Calibration: planted scales, the choice between methods, isotonic steps."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from dynens.ensemble.blend import Blend
from dynens.ensemble.calibration import calibrate, isotonic, matched, platt, temperature
from dynens.metrics import logloss, sigmoid


def test_platt_recovers_a_planted_scale() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(size=50_000)
    labels = (rng.random(50_000) < sigmoid(true)).astype(np.float32)
    logits = {"m": ((true - 0.7) / 2.0).astype(np.float32)}
    calibrated = platt(Blend({"m": 1.0}), logits, labels)
    assert calibrated.weights["m"] == pytest.approx(2.0, abs=0.08)
    assert calibrated.bias == pytest.approx(0.7, abs=0.08)


@pytest.mark.parametrize("rows", [400, 20_000])
def test_logits_that_hardly_differ_get_their_scale_back(rows: int) -> None:
    logits, labels = planted(1.0, 0.5, rows)
    tiny = {"m": logits["m"] * np.float32(0.002) + np.float32(0.1)}
    calibrated = platt(Blend({"m": 1.0}), tiny, labels)
    best = logloss(labels, sigmoid(logits["m"] + 0.5))
    assert logloss(labels, calibrated.probability(tiny)) == pytest.approx(best, abs=0.02)


def test_platt_never_reverses_a_ranking() -> None:
    labels = np.array([1, 1, 0, 0] * 200, np.float32)
    logits = {"m": np.array([-1, -2, 1, 2] * 200, np.float32)}
    calibrated = platt(Blend({"m": 1.0}), logits, labels)
    assert calibrated.weights["m"] == 1.0
    assert calibrated.probability(logits).mean() == pytest.approx(0.5, abs=1e-6)


def planted(
    slope: float, bias: float, rows: int = 20_000
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Logits z of rows whose labels are drawn from σ(slope · z + bias)."""
    rng = np.random.default_rng(2)
    z = rng.normal(size=rows).astype(np.float32)
    return {"m": z}, (rng.random(rows) < sigmoid(slope * z + bias)).astype(np.float32)


def test_temperature_recovers_a_planted_scale_and_leaves_the_bias() -> None:
    logits, labels = planted(2.0, 0.0)
    calibrated = temperature(Blend({"m": 1.0}, 0.0), logits, labels)
    assert calibrated.weights["m"] == pytest.approx(2.0, abs=0.08)
    assert calibrated.bias == 0.0


def test_temperature_never_reverses_a_ranking() -> None:
    labels = np.array([1, 1, 0, 0] * 200, np.float32)
    logits = {"m": np.array([-1, -2, 1, 2] * 200, np.float32)}
    assert temperature(Blend({"m": 1.0}), logits, labels) == Blend({"m": 1.0})


@pytest.mark.parametrize(("bias", "method"), [(0.0, "temperature"), (0.7, "platt")])
def test_auto_takes_the_simpler_method_unless_the_bias_matters(bias: float, method: str) -> None:
    logits, labels = planted(1.5, bias)
    blend = Blend({"m": 1.0})
    choice = calibrate(blend, logits, labels, method="auto", seed=0)
    assert choice.method == method
    best = logloss(labels, sigmoid(1.5 * logits["m"] + bias))
    assert choice.logloss[method] == pytest.approx(best, abs=2e-3)
    assert choice.logloss["isotonic"] == pytest.approx(best, abs=5e-3)
    again = calibrate(blend, logits, labels, method=method, seed=0)
    assert again.blend == choice.blend
    assert again.logloss == {}


def test_isotonic_agrees_with_scikit_learn_away_from_the_ends() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=2000).astype(np.float32)
    labels = (rng.random(2000) < sigmoid(z)).astype(np.float32)
    weight = rng.uniform(0.5, 2.0, 2000)
    reference = IsotonicRegression().fit(z, labels, sample_weight=weight)
    at = np.linspace(-1.5, 1.5, 50).astype(np.float32)
    assert isotonic(z, labels, weight, at) == pytest.approx(reference.predict(at), abs=1e-6)
    ends = isotonic(z, labels, weight, np.array([-99.0, 99.0], np.float32))
    assert 0 < ends[0] < ends[1] < 1


def test_a_matched_blend_foretells_the_share_that_the_rows_have() -> None:
    rng = np.random.default_rng(0)
    logits = {"a": rng.normal(size=500).astype(np.float32)}
    labels = (rng.random(500) < 0.1).astype(np.float32)
    weight = rng.uniform(0.5, 2.0, 500)
    blend = matched(Blend({"a": 0.7}, 2.0), logits, labels, weight)
    share = np.average(blend.probability(logits), weights=weight)
    assert share == pytest.approx(np.average(labels, weights=weight), abs=1e-4)
    assert blend.weights == {"a": 0.7}
