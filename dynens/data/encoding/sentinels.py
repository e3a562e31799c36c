"""Numbers that stand for none: -999, 9999 or 1e30 where all others are far away."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_MIN_SHARE, _MIN_ROWS = 0.01, 20
_MIN_DISTINCT = 10  # of the other numbers, so that few codes are not taken for this
_NINES = (-9.0, -99.0, -999.0, -9999.0, -99999.0)
_MOST = 4


def sentinels(values: npt.NDArray[np.float64]) -> dict[float, float]:
    """Numbers that come again and again at an end, and their shares of the values.

    One is farther from the others than these are from one another, or -9, -99, -999 and so on where
    no other number is negative.

    Args:
        values: (n,) finite.
    """
    distinct, count = np.unique(values, return_counts=True)
    enough = max(_MIN_SHARE * len(values), _MIN_ROWS)
    found: dict[float, float] = {}
    while len(found) < _MOST and len(distinct) > _MIN_DISTINCT:
        at = next(
            (end for end in (0, -1) if count[end] >= enough and _stands_apart(distinct, end)), None
        )
        if at is None:
            break
        found[float(distinct[at])] = float(count[at] / len(values))
        distinct, count = np.delete(distinct, at), np.delete(count, at)
    return found


def _stands_apart(distinct: npt.NDArray[np.float64], end: int) -> bool:
    """Whether the first (0) or the last (-1) of the sorted values is far from the others."""
    first, *_, last = distinct
    inner_first, inner_last = (distinct[1], last) if end == 0 else (first, distinct[-2])
    with np.errstate(over="ignore"):
        gap = inner_first - first if end == 0 else last - inner_last
        is_far = gap > inner_last - inner_first
    return bool(is_far or (end == 0 and first in _NINES and inner_first >= 0))
