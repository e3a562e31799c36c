"""Choosing the members that are served: the best trio under a cap on cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from dynens.ensemble.blend import Logits
from dynens.errors import ConfigError
from dynens.metrics import auc

Vector = npt.NDArray[np.floating]


@dataclass(frozen=True)
class TrioChoice:
    """The chosen members and the AUC of every candidate set, best first."""

    members: tuple[str, ...]
    candidates: tuple[tuple[tuple[str, ...], float, float], ...]
    """(members, AUC of their averaged logits, cost in µs per row)."""


def choose_members(
    logits: Mapping[str, Logits],
    labels: Vector,
    *,
    size: int,
    cost_us_per_row: Mapping[str, float],
    cost_cap_us_per_row: float | None,
    sample_weight: Vector | None = None,
) -> TrioChoice:
    """The set of `size` learners whose averaged calibrated logits have the best AUC.

    Args:
        logits: calibrated logits (N,) of every learner in the pool.
        labels: (N,) in {0, 1}.
        size: number of members.
        cost_us_per_row: measured cost of every learner's exported graph.
        cost_cap_us_per_row: sets that cost more are left out; None: no cap.
        sample_weight: (N,) or None.

    Raises:
        ConfigError: the pool is too small, or no set fits under the cap.
    """
    names = sorted(logits)
    if len(names) < size:
        raise ConfigError(
            f"the pool has {len(names)} learners and the ensemble needs {size}; "
            "add some under learners."
        )
    scored = []
    for members in combinations(names, size):
        cost = sum(cost_us_per_row[name] for name in members)
        if cost_cap_us_per_row is not None and cost > cost_cap_us_per_row:
            continue
        average = np.mean([logits[name] for name in members], axis=0)
        scored.append((members, auc(labels, average, sample_weight), cost))
    if not scored:
        cheapest = sum(sorted(cost_us_per_row[name] for name in names)[:size])
        raise ConfigError(
            f"no {size} learners cost at most {cost_cap_us_per_row} µs per row together (the "
            f"cheapest {size} cost {cheapest:.1f}); raise ensemble.cost_cap_us_per_row."
        )
    scored.sort(key=lambda candidate: (-np.nan_to_num(candidate[1]), candidate[2]))
    return TrioChoice(scored[0][0], tuple(scored))
