"""Distillation losses for a binary label, on logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid


def soft_label_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(p_teacher^T ‖ p_student^T) per row, over the pair (σ(z/T), 1 - σ(z/T)).

    Args:
        student, teacher: (B,) logits.
        temperature: T > 0.

    Returns:
        (B,) values ≥ 0, zero where the logits agree.

    References:
        Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """
    t, s = teacher / temperature, student / temperature
    p = torch.sigmoid(t)
    divergence = p * (logsigmoid(t) - logsigmoid(s)) + (1 - p) * (logsigmoid(-t) - logsigmoid(-s))
    return temperature**2 * divergence


def response_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    has_label: Tensor,
    weight: Tensor,
    *,
    alpha: float,
    temperature: float,
) -> Tensor:
    """Response distillation: α T² KL + (1-α) BCE on labelled rows, T² KL alone on the others.

    Args:
        student, teacher: (B,) logits.
        labels: (B,) in {0, 1}; ignored where `has_label` is 0.
        has_label: (B,) in {0, 1}.
        weight: (B,) row weights.
        alpha: weight of the soft label on labelled rows.
        temperature: T > 0.

    Returns:
        The weighted mean over rows, a scalar.
    """
    soft = soft_label_kl(student, teacher, temperature)
    hard = binary_cross_entropy_with_logits(student, labels, reduction="none")
    share = 1.0 - (1.0 - alpha) * has_label
    loss = share * soft + (1.0 - share) * hard
    return (weight * loss).sum() / weight.sum()
