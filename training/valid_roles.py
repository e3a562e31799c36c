"""What each validation row is for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.config.run import RunConfig
from dynens.data.splits import select_mask
from dynens.metrics import informative_rows

MIN_ROWS_TO_SPLIT = 2000


@dataclass(frozen=True)
class ValidRoles:
    """Validation rows by role: `select` stops and chooses, `route` calibrates and routes."""

    select: npt.NDArray[np.bool_]
    route: npt.NDArray[np.bool_]


def valid_roles(config: RunConfig, valid: EncodedBatch) -> ValidRoles:
    """Roles by hash; a validation split that says little plays both, as halves decide nothing."""
    assert valid.labels is not None
    if informative_rows(valid.labels) < MIN_ROWS_TO_SPLIT:
        everything = np.ones(len(valid), dtype=bool)
        return ValidRoles(everything, everything)
    select = select_mask(len(valid), config.router.select_share, config.seed)
    return ValidRoles(select, ~select)
