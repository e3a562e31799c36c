"""Values that change over a training run or from row to row, as pure functions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dynens.config.distill import ScheduleConfig


def schedule_value(config: ScheduleConfig, epoch: float, max_epochs: float) -> float:
    """The scheduled value at `epoch` (fractional, from 0) of a run of `max_epochs`."""
    if config.kind == "linear":
        share = min(epoch / max(max_epochs, 1e-9), 1.0)
        return config.start + share * (config.end - config.start)
    if config.kind == "halving":
        halvings = int(epoch // config.every_epochs)
        return max(config.start * 0.5**halvings, config.end)
    if config.kind == "step":
        return config.start if epoch < config.every_epochs else config.end
    return config.start


def adaptive_temperature(config: ScheduleConfig, teacher: Tensor) -> Tensor:
    """`start + (end - start) · H(p) / ln 2` of the teacher's probability p, row by row.

    With start above end, answers that are near 0 or 1, whose differences vanish, are softened most.

    Args:
        config: of kind `adaptive`.
        teacher: (B,) logits.

    Returns:
        (B,) temperatures between start and end.

    References:
        Li et al., "Curriculum Temperature for Knowledge Distillation", AAAI 2023 (temperatures of
        single rows; theirs are learned against the student, these follow the teacher's entropy).
    """
    p = torch.sigmoid(teacher)
    entropy = torch.nn.functional.softplus(teacher) - p * teacher
    return config.start + (config.end - config.start) * entropy / math.log(2)
