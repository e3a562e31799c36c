"""How far on either side of its threshold a label lies, where the rule sets one.

Of a rule such as `rating >= 4` the outcome tells more than the label: five stars are not four. The
grade of a training row keeps that. Nothing is known of it where rows are scored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.reading.labels import outcome_numbers
from dynens.data.reading.spelled import parse_number
from dynens.rules import LabelRule

Outcomes = npt.NDArray[np.float64]

_ORDERS = {">=": 1.0, ">": 1.0, "<=": -1.0, "<": -1.0}


def outcomes_in(table: pa.Table, rule: LabelRule, *, known: bool = True) -> Outcomes | None:
    """(B,) what the rule compares, the larger the more positive; None: it asks for no order.

    Of a table whose outcomes are not `known`, they are NaN.
    """
    positive = rule.comparison("positive")
    if positive is None or positive.op not in _ORDERS or parse_number(positive.value) is None:
        return None
    if not known:
        return np.full(len(table), np.nan)
    return _ORDERS[positive.op] * outcome_numbers(table[positive.column]).values


def grades_of(
    outcomes: Outcomes,
    labels: npt.NDArray[np.float32],
    train: npt.NDArray[np.bool_],
    unlabelled: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float32] | None:
    """Signed ranks: of positives from 0 to 2, of negatives from 0 to -2, ties in the middle.

    Ranks know no unit and no outlier; their mean size is 1 in either class, so that the grades of a
    class with one outcome are its labels, ±1. A row without a label whose outcome lies between the
    classes has 0.

    Args:
        outcomes: (N,) numbers, the larger the more positive; NaN: not known.
        labels: (N,) in {0, 1}.
        train: (N,) the rows that are graded; others have 0.
        unlabelled: (N,) rows without a label; NaN where nothing is known of them.

    Returns:
        (N,), or None where the classes have one outcome each and nothing lies between them.
    """
    grades = np.zeros(len(labels), np.float32)
    num_outcomes, nearest = 0, []
    for side in (1.0, -1.0):
        mine = train & ((labels > 0) == (side > 0))
        values, which, count = np.unique(
            side * outcomes[mine], return_inverse=True, return_counts=True
        )
        middle = np.cumsum(count) - count / 2
        grades[mine] = (side * 2 * middle / max(count.sum(), 1))[which]
        num_outcomes = max(num_outcomes, len(values))
        nearest.append(side * values[0] if len(values) else np.nan)
    is_between = (outcomes > nearest[1]) & (outcomes < nearest[0])
    grades[unlabelled & ~is_between] = np.nan
    return grades if num_outcomes > 1 or (unlabelled & is_between).any() else None
