from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dynens.models.selection import FeatureSelection


def pairs_of(selection: FeatureSelection, function: Callable[..., Tensor]) -> Any:
    """The pairs that one kind of input is made of."""
    return next((kind.pairs for kind in selection.pairs if kind.function is function), ())
