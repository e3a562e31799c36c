"""Relation transfer: which rows are alike matters, not where the features lie."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows of a batch that are compared with one another: pairs grow with the square.
RELATION_ROWS = 512


def relations(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of rows of the squared difference between two Gram matrices.

    Each matrix holds the cosines between the rows' features, so that the two may have different
    widths and scales and no adapter is needed.

    Args:
        student, teacher: (B, H_s) and (B, H_t) features of the same rows.

    Returns:
        A scalar in [0, 4].

    References:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, eq. 1-4; with
        cosines where the paper divides by the norm of a row of the Gram matrix.
    """
    return (_cosines(student) - _cosines(teacher)).square().mean()


def _cosines(features: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(features, dim=1)
    return unit @ unit.T
