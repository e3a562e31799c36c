"""How often a row's values of one field stand among those of another: a candidate in a history.

Two fields share a vocabulary, so that equal values have equal ids. For n equal pairs of values

    match = n / (n + 1),

which is 0 where nothing matches, never reaches 1, and comes out the same to the last bit in every
runtime, as thresholds of trees demand. It is what target attention finds where it attends to the
very candidate, and costs one comparison of integers per value.

References:
    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (attention of
    the candidate over a user's behaviour).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynens.batch import MISSING


@dataclass(frozen=True)
class SharedValues:
    """Two fields with one vocabulary.

    Attributes:
        first, second: their columns of `ids`.
        first_is_context, second_is_context: whether the candidates of a ranking request share them.
    """

    first: slice
    second: slice
    first_is_context: bool = False
    second_is_context: bool = False

    @property
    def is_context(self) -> bool:
        """Whether candidates share both."""
        return self.first_is_context and self.second_is_context


def match_share(first: Tensor, second: Tensor) -> Tensor:
    """(N or 1, A) and (N or 1, B) ids of one vocabulary → (N or 1, 1) float32 matches."""
    known = (first > torch.tensor(MISSING, dtype=torch.int32)).unsqueeze(2)
    equal = (first.unsqueeze(2) == second.unsqueeze(1)) & known
    count = equal.to(torch.float32).sum(dim=(1, 2)).unsqueeze(1)
    return count / (count + 1.0)


def match_shares(ids: Tensor, context: Tensor, pairs: Sequence[SharedValues]) -> Tensor:
    """The matches of P > 0 pairs of fields.

    Args:
        ids: (N, W).
        context: (1 or N, W), where columns are read that candidates share.
        pairs: the fields' columns.

    Returns:
        (N or 1, P).
    """
    shares = []
    for pair in pairs:
        first = context if pair.first_is_context else ids
        second = context if pair.second_is_context else ids
        shares.append(match_share(first[:, pair.first], second[:, pair.second]))
    return torch.cat(shares, dim=1)
