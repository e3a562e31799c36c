"""Distillation losses and schedules against arithmetic."""

import math

import pytest
import torch
from scipy.special import expit, rel_entr

from dynens.config.base import validate
from dynens.config.distill import DistillConfig, ScheduleConfig
from dynens.distill.losses import (
    probability_kl,
    response_loss,
    soft_label_kl,
    teacher_trust,
)
from dynens.distill.schedules import adaptive_temperature, schedule_value
from dynens.errors import ConfigError


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_label_kl_agrees_with_scipy(temperature: float) -> None:
    student, teacher = torch.tensor([0.3, -2.0]), torch.tensor([1.5, -2.0])
    p, q = expit(teacher.numpy() / temperature), expit(student.numpy() / temperature)
    expected = temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q))
    assert soft_label_kl(student, teacher, temperature).numpy() == pytest.approx(expected, abs=1e-6)


def test_temperature_keeps_the_scale_of_the_gradient() -> None:
    gradients = []
    for temperature in (1.0, 20.0):
        z = torch.tensor([0.2], requires_grad=True)
        soft_label_kl(z, torch.tensor([0.3]), temperature).sum().backward()
        assert z.grad is not None
        gradients.append(z.grad.item())
    assert gradients[1] / gradients[0] == pytest.approx(1.0, abs=0.05)


def test_response_loss_mixes_soft_and_hard_labels_by_hand() -> None:
    # Row 0 is labelled, row 1 was made up; both teachers agree with the student, so KL = 0.
    z = torch.tensor([0.0, 1.0])
    loss = response_loss(
        z,
        z,
        labels=torch.tensor([1.0, 0.0]),
        has_label=torch.tensor([1.0, 0.0]),
        weight=torch.tensor([3.0, 1.0]),
        alpha=0.9,
        temperature=2.0,
    )
    assert loss.item() == pytest.approx(3.0 * 0.1 * math.log(2) / 4.0, abs=1e-6)


def test_unlabelled_rows_ignore_their_label() -> None:
    arguments = {"has_label": torch.zeros(1), "weight": torch.ones(1)}
    student, teacher = torch.tensor([0.5]), torch.tensor([1.0])
    losses = [
        response_loss(
            student, teacher, torch.tensor([y]), **arguments, alpha=0.1, temperature=1.0
        ).item()
        for y in (0.0, 1.0)
    ]
    assert losses[0] == losses[1] > 0


def test_probability_kl_agrees_with_scipy_and_with_the_logit_form() -> None:
    student, target = torch.tensor([0.3, -2.0, 1.0]), torch.tensor([0.7, 0.0, 1.0])
    p, q = target.numpy(), expit(student.numpy() / 2)
    expected = 4 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q))
    assert probability_kl(student, target, 2.0).numpy() == pytest.approx(expected, abs=1e-6)
    teacher = torch.tensor([1.5, -0.5, 0.0])
    torch.testing.assert_close(
        probability_kl(student, torch.sigmoid(teacher / 2), 2.0),
        soft_label_kl(student, teacher, 2.0),
        atol=1e-6,
        rtol=1e-5,
    )


def test_trust_falls_only_where_the_teacher_is_wrong_beyond_the_click_rate() -> None:
    # Click rate 1/5, z0 = log(1/4). Logit 0 is 4 times the odds, so q = 4/5 on a row without click.
    z0 = math.log(0.25)
    teacher = torch.tensor([0.0, 0.0, z0, z0, 2 * z0])
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0])
    trust = teacher_trust(teacher, labels, z0, 0.5)
    assert trust.tolist() == pytest.approx([1 - 0.5 * 0.6, 1.0, 1.0, 1.0, 1 - 0.5 * 0.6], abs=1e-6)
    assert teacher_trust(teacher, labels, z0, 0.0).tolist() == [1.0] * 5


def test_response_loss_takes_an_alpha_for_each_row() -> None:
    z, y = torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0])
    loss = response_loss(
        z,
        z,
        labels=y,
        has_label=torch.ones(2),
        weight=torch.ones(2),
        alpha=torch.tensor([0.5, 1.0]),
        temperature=1.0,
    )
    assert loss.item() == pytest.approx(0.5 * math.log(2) / 2, abs=1e-6)


@pytest.mark.parametrize(
    ("config", "epoch", "expected"),
    [
        (ScheduleConfig(kind="constant", start=0.9), 7, 0.9),
        (ScheduleConfig(kind="linear", start=5.0, end=1.0), 5, 3.0),
        (ScheduleConfig(kind="linear", start=5.0, end=1.0), 50, 1.0),
        (ScheduleConfig(kind="halving", start=20.0, end=1.0, every_epochs=10), 9.9, 20.0),
        (ScheduleConfig(kind="halving", start=20.0, end=1.0, every_epochs=10), 25, 5.0),
        (ScheduleConfig(kind="halving", start=20.0, end=6.0, every_epochs=10), 90, 6.0),
        (ScheduleConfig(kind="step", start=0.0, end=1.0, every_epochs=3), 2.9, 0.0),
        (ScheduleConfig(kind="step", start=0.0, end=1.0, every_epochs=3), 3, 1.0),
    ],
)
def test_schedules(config: ScheduleConfig, epoch: float, expected: float) -> None:
    assert schedule_value(config, epoch, max_epochs=10) == pytest.approx(expected)


def test_a_temperature_follows_the_teachers_entropy() -> None:
    config = ScheduleConfig(kind="adaptive", start=3.0, end=1.0)
    found = adaptive_temperature(config, torch.tensor([0.0, 2.0, -2.0, 60.0]))
    p = 1 / (1 + math.exp(-2.0))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    middle = 3.0 - 2.0 * entropy / math.log(2)
    assert found.tolist() == pytest.approx([1.0, middle, middle, 3.0], rel=1e-5)


def test_an_adaptive_alpha_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"alpha.kind is adaptive, which only a temperature can"):
        validate(DistillConfig, {"alpha": {"kind": "adaptive"}}, "test")


def test_response_loss_takes_a_temperature_for_each_row() -> None:
    z, t, y = torch.tensor([1.0, -0.5]), torch.tensor([0.0, 2.0]), torch.ones(2)
    own = torch.tensor([1.0, 3.0])

    def loss(rows: slice, temperature: float | torch.Tensor) -> float:
        part = (z[rows], t[rows], y[rows], y[rows], torch.ones_like(y[rows]))
        return response_loss(*part, alpha=1.0, temperature=temperature).item()

    apart = [loss(slice(k, k + 1), own[k].item()) for k in range(2)]
    assert loss(slice(0, 2), own) == pytest.approx(sum(apart) / 2, rel=1e-6)
