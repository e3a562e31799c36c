"""Distillation losses for a binary label, on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def soft_label_kl(student: Tensor, teacher: Tensor, temperature: float | Tensor) -> Tensor:
    """T² KL(p_teacher^T ‖ p_student^T) per row, over the pair (σ(z/T), 1 - σ(z/T)).

    Args:
        student, teacher: (B,) logits.
        temperature: T > 0, one or (B,).

    Returns:
        (B,) values ≥ 0, zero where the logits agree.

    References:
        Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """
    t, s = teacher / temperature, student / temperature
    p = torch.sigmoid(t)
    divergence = p * (logsigmoid(t) - logsigmoid(s)) + (1 - p) * (logsigmoid(-t) - logsigmoid(-s))
    return temperature**2 * divergence


def probability_kl(student: Tensor, target: Tensor, temperature: float | Tensor) -> Tensor:
    """T² KL(target ‖ σ(z/T)) per row, for targets that are probabilities and no logit's own.

    Args:
        student: (B,) logits z.
        target: (B,) in [0, 1], already softened.
        temperature: T > 0, one or (B,).

    Returns:
        (B,) values ≥ 0.
    """
    cross_entropy = binary_cross_entropy_with_logits(
        student / temperature, target, reduction="none"
    )
    entropy = -torch.xlogy(target, target) - torch.xlogy(1 - target, 1 - target)
    return temperature**2 * (cross_entropy - entropy)


def response_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    has_label: Tensor,
    weight: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float | Tensor,
) -> Tensor:
    """Response distillation: α T² KL + (1-α) BCE on labelled rows, T² KL alone on the others.

    Args:
        student, teacher: (B,) logits.
        labels: (B,) in {0, 1}; ignored where `has_label` is 0.
        has_label: (B,) in {0, 1}.
        weight: (B,) row weights.
        alpha: weight of the soft label on labelled rows, one or (B,).
        temperature: T > 0, one or (B,).

    Returns:
        The weighted mean over rows, a scalar.
    """
    soft = soft_label_kl(student, teacher, temperature)
    hard = binary_cross_entropy_with_logits(student, labels, reduction="none")
    share = 1.0 - (1.0 - alpha) * has_label
    return weighted_mean(share * soft + (1.0 - share) * hard, weight)


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Σ w v / Σ w over (B,) values, a scalar."""
    return (weight * values).sum() / weight.sum()


def teacher_trust(teacher: Tensor, labels: Tensor, base_logit: float, strength: float) -> Tensor:
    """The share of the soft label's weight that a labelled row keeps: less where the teacher errs.

    `1 - strength · max(2q - 1, 0)` with `q = σ(z₀ - z)` on clicked rows and `σ(z - z₀)` on the
    others, z₀ the log-odds of the click rate: 1 where the teacher leans towards the label, compared
    with knowing nothing but the rate, and falling to 1 - strength where it is certain of the
    opposite. (Measured from p = ½ instead, nearly every click of a rare-click table would count as
    the teacher's error.)

    Args:
        teacher: (B,) logits z.
        labels: (B,) in {0, 1}.
        base_logit: z₀.
        strength: in [0, 1].

    Returns:
        (B,) in [1 - strength, 1].
    """
    wrong = torch.sigmoid((1 - 2 * labels) * (teacher - base_logit))
    return 1 - strength * (2 * wrong - 1).clamp(min=0)
