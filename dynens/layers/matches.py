"""How often a row's values of one field stand among those of another: a candidate in a history.

One field has the ids of the other's values, so that equal values have equal ids. For n equal pairs,

    match = n / (n + 1),

which is 0 where nothing matches, never reaches 1, and comes out the same to the last bit in every
runtime, as thresholds of trees demand. It is what target attention finds where it attends to the
very candidate, and costs one comparison of integers per value. A list that was looked up (the
categories of a history's items) has many matches, whose number the match hardly tells; n over the
number of its values is an input beside it.

References:
    Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018 (attention of
    the candidate over a user's behaviour).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynens.batch import MISSING, OUT_OF_VOCABULARY
from dynens.layers.embeddings import int32
from dynens.layers.pairs import ColumnPair

_NOTHING = -2  # no id and no padding


@dataclass(frozen=True)
class SharedValues(ColumnPair):
    """Two fields of which one has the other's vocabulary.

    Attributes:
        taker, owner: their columns of `ids`.
    """

    taker: slice
    owner: slice


def match(first: Tensor, second: Tensor) -> Tensor:
    """(N or 1, A) and (N or 1, B) ids of one vocabulary → (N or 1, 1) float32 matches."""
    count = _equal_pairs(first, second)
    return count / (count + 1.0)


def share(taker: Tensor, owner: Tensor) -> Tensor:
    """(N or 1, A) and (N or 1, B) ids of one vocabulary → (N or 1, 1) float32 shares."""
    known, unknown = taker > int32(MISSING), taker == int32(OUT_OF_VOCABULARY)
    values = known.to(torch.float32) + unknown.to(torch.float32)
    count = values.sum(dim=1, keepdim=True)
    return _equal_pairs(taker, owner) / torch.clamp(count, min=1.0)


def _equal_pairs(first: Tensor, second: Tensor) -> Tensor:
    short, long = sorted((first, second), key=lambda ids: ids.shape[1])
    known = torch.where(short > int32(MISSING), short, int32(_NOTHING))
    # One value of the shorter list after the other: all pairs at once may take gigabytes.
    equal = [
        (long == known[:, k : k + 1]).to(torch.float32).sum(dim=1, keepdim=True)
        for k in range(known.shape[1])
    ]
    return equal[0] if len(equal) == 1 else torch.stack(equal).sum(dim=0)


def matches(ids: Tensor, context: Tensor, pairs: Sequence[SharedValues]) -> Tensor:
    """The matches of P > 0 pairs of fields.

    Args:
        ids: (N, W).
        context: (1 or N, W), where columns are read that candidates share.
        pairs: the fields' columns.

    Returns:
        (N or 1, P).
    """
    return torch.cat([match(*sides) for sides in _sides(ids, context, pairs)], dim=1)


def shares(ids: Tensor, context: Tensor, pairs: Sequence[SharedValues]) -> Tensor:
    """As `matches`, the share of the taker's values that are the owner's."""
    return torch.cat([share(*sides) for sides in _sides(ids, context, pairs)], dim=1)


def _sides(
    ids: Tensor, context: Tensor, pairs: Sequence[SharedValues]
) -> list[tuple[Tensor, Tensor]]:
    """The taker's and the owner's ids of each pair."""
    return [
        (
            (context if pair.taker_is_context else ids)[:, pair.taker],
            (context if pair.owner_is_context else ids)[:, pair.owner],
        )
        for pair in pairs
    ]
