"""The gate starts as the blend, never sees a label, and learns which teacher to trust where."""

import numpy as np
import pytest
import torch

from dynens.distill.gating import MIN_PRIOR, TeacherGate, voices_of
from dynens.ensemble.blend import Blend
from dynens.models.training import weighted_bce


def test_voices_by_hand() -> None:
    calibrated = {"a": Blend({"a": 2.0}, 1.0), "b": Blend({"b": 0.5}, -1.0)}
    # 0.9 (2a + 1) + 0.3 (b/2 - 1) + 0.2: s = 1.2, so a weighs 3/4 and b 1/4.
    blend = Blend({"a": 1.8, "b": 0.15}, 0.9 - 0.3 + 0.2)
    voices = voices_of(blend, calibrated)
    assert voices.prior == pytest.approx((0.75, 0.25))
    raw = {"a": np.array([1.0, -2.0], np.float32), "b": np.array([4.0, 0.0], np.float32)}
    spoken = voices.logits(raw)
    assert spoken[:, 0] == pytest.approx(1.2 * np.array([3.0, -3.0]) + 0.2, abs=1e-6)
    assert spoken @ np.array(voices.prior) == pytest.approx(blend.logit(raw), abs=1e-6)


def test_a_member_the_blend_leaves_out_keeps_a_small_voice() -> None:
    calibrated = {name: Blend({name: 1.0}) for name in "ab"}
    voices = voices_of(Blend({"a": 1.0, "b": 0.0}), calibrated)
    assert voices.prior == pytest.approx((1 / (1 + MIN_PRIOR), MIN_PRIOR / (1 + MIN_PRIOR)))


def test_the_gate_starts_at_the_prior() -> None:
    gate = TeacherGate(3, (0.7, 0.3))
    voices, features = torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.randn(2, 3)
    assert gate.weights(voices, features).flatten().tolist() == pytest.approx([0.7, 0.3] * 2)
    assert gate(voices, features).tolist() == pytest.approx([0.4, 1.4])


def test_weights_by_hand_and_no_gradient_to_the_student() -> None:
    gate = TeacherGate(2, (0.5, 0.5))
    with torch.no_grad():
        gate.linear.weight[0] = torch.tensor([0.5, 0.0, 1.0, 0.0])
    features = torch.tensor([[5.0, 1.0]], requires_grad=True)
    # Normalised features are (1, -1); 0.5·2 + 1·1 = 2 against 0.
    weights = gate.weights(torch.tensor([[2.0, 7.0]]), features)
    expected = np.exp(2) / (1 + np.exp(2))
    assert weights.flatten().tolist() == pytest.approx([expected, 1 - expected], abs=1e-4)
    gate(torch.tensor([[2.0, 7.0]]), features).sum().backward()
    assert features.grad is None
    assert gate.linear.weight.grad is not None


def test_the_gate_learns_which_teacher_is_right_on_which_rows() -> None:
    """Teacher 0 knows the truth where the feature is positive, teacher 1 where it is negative."""
    torch.manual_seed(0)
    rows = 4000
    side = torch.sign(torch.randn(rows))
    truth, noise = 2 * torch.randn(rows), 2 * torch.randn(rows)
    first, second = (torch.where(side > 0, *pair) for pair in ((truth, noise), (noise, truth)))
    voices = torch.stack([first, second], dim=1)
    labels = torch.bernoulli(torch.sigmoid(truth))
    features = torch.stack([side, -side], dim=1)
    gate = TeacherGate(2, (0.5, 0.5))
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        weighted_bce(gate(voices, features), labels, None).backward()
        optimizer.step()
    weights = gate.weights(voices, features)
    assert weights[side > 0, 0].mean() > 0.9
    assert weights[side < 0, 1].mean() > 0.9
