"""Memory-augmented self-distillation: a row's earlier answers steady its next one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AnswerMemory(nn.Module):
    """One remembered probability for every training row: `M ← β M + (1 - β) p` at each visit.

    A row that has not been visited remembers nothing and costs nothing.

    Args:
        num_rows: N training rows.
        beta: share of the old memory that a visit keeps.
    """

    answers: Tensor

    def __init__(self, num_rows: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.register_buffer("answers", torch.full((num_rows,), torch.nan))

    def forward(self, index: Tensor, probability: Tensor) -> Tensor:
        """(B,) squared distances of (B,) probabilities to the memory of rows `index`."""
        remembered = self.answers[index]
        known = ~remembered.isnan()
        answer = probability.detach()
        old = torch.where(known, remembered, answer)
        self.answers[index] = self.beta * old + (1 - self.beta) * answer
        return torch.where(known, (probability - old).square(), torch.zeros_like(probability))
