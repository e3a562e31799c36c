"""Blends and their calibration."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dynens.ensemble.blend import Blend, fit_logistic
from dynens.metrics import sigmoid


def test_blend_adds_weighted_logits_and_bias() -> None:
    blend = Blend({"a": 0.5, "b": 2.0}, bias=-1.0)
    logits = {"a": np.array([2.0, 0.0], np.float32), "b": np.array([1.0, 0.5], np.float32)}
    assert blend.logit(logits) == pytest.approx([2.0, 0.0])
    assert blend.probability(logits) == pytest.approx([1 / (1 + np.exp(-2.0)), 0.5])


def test_scaled_blend_is_the_scaled_logit() -> None:
    logits = {"a": np.array([3.0], np.float32)}
    assert Blend({"a": 2.0}, 1.0).scaled(0.5, 0.25).logit(logits) == pytest.approx([3.75])


def test_sigmoid_keeps_both_ends() -> None:
    assert sigmoid([-1000.0, 0.0, 1000.0]) == pytest.approx([0.0, 0.5, 1.0])


def test_fit_logistic_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 2))
    y = (rng.random(400) < sigmoid(x @ [1.0, -0.5] + 0.3)).astype(float)
    weight = rng.uniform(0.5, 2.0, 400)
    coefficients, bias = fit_logistic(x, y, sample_weight=weight, l2=1e-9)
    reference = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=weight)
    assert coefficients == pytest.approx(reference.coef_[0], abs=1e-3)
    assert bias == pytest.approx(reference.intercept_[0], abs=1e-3)
