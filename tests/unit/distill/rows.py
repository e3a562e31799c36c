"""Rows for tests of distillation."""

import numpy as np

from dynens.batch import MISSING, EncodedBatch, FeatureLayout


def missing_row(layout: FeatureLayout) -> EncodedBatch:
    """One row in which every field, none of them a list, is missing."""
    dense = np.zeros((1, layout.num_dense), np.float32)
    return EncodedBatch(dense, np.full((1, layout.ids_width), MISSING, np.int32))
