"""Rows that repeat an earlier one in every column: deliveries made twice, files joined twice.

Cut at random, most copies in the later parts would have been trained on. Where single rows are the
rule they stay together. A table of few distinct rows is another matter: there equal rows are many
impressions alike, as future ones will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynens.data.reading.row_hashes import Hashes, copies_among
from dynens.data.splits import SPLITS, TEST, TRAIN, VALID
from dynens.data.staging import staged_chunks

_TOLD = 0.01


def copies_in(files: Sequence[Path]) -> Hashes | None:
    """(N,) one number per row of the staged files, equal for copies; None where they may part."""
    return copies_among(table for file in files for _, table in staged_chunks(file))


def of_copies(copies: Hashes, given: npt.NDArray[np.int8]) -> list[str]:
    """Warnings of rows that repeat others, within what is cut and between files.

    Args:
        copies: (N,) of `copies_in`.
        given: (N,) the part each row's file was given as.
    """
    cut = copies[given == TRAIN]
    share = 1 - len(np.unique(cut)) / max(len(cut), 1)
    warnings = []
    if share >= _TOLD:
        warnings.append(
            f"{share:.0%} of the rows repeat another in every column that is read; copies stay in "
            "one part, but each counts in training: remove them if they are one event"
        )
    for part in (VALID, TEST):
        rows = copies[given == part]
        share = np.isin(rows, cut).mean() if len(rows) else 0.0
        if share >= _TOLD:
            warnings.append(
                f"{share:.0%} of the {SPLITS[part]} rows stand among the training rows, too, where "
                "models learn their labels; remove them there"
            )
    return warnings
