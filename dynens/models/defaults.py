"""Hyper-parameters that depend on the table. docs/LEARNERS.md holds the study behind the rules."""

from __future__ import annotations

import math

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig, OptimizerConfig

_LARGEST_BATCH = 4096
_SMALLEST_BATCH = 64
_STEPS_PER_EPOCH = 50


def resolve_config(config: LearnerConfig, layout: FeatureLayout, num_rows: int) -> LearnerConfig:
    """`config` with every None replaced by a value chosen from the table's size.

    Args:
        config: as the user gave it.
        layout: the table's features and vocabularies.
        num_rows: training rows.
    """
    optimizer = config.optimizer
    updates: dict[str, object] = {}
    if optimizer.batch_size is None:
        updates["batch_size"] = default_batch_size(num_rows)
    if optimizer.embedding_l2 is None:
        updates["embedding_l2"] = default_embedding_l2(layout, num_rows)
    resolved: OptimizerConfig = optimizer.model_copy(update=updates)
    dropout = default_dropout(num_rows) if config.dropout is None else config.dropout
    return config.model_copy(update={"optimizer": resolved, "dropout": dropout})


def default_batch_size(num_rows: int) -> int:
    """The power of two that gives about 50 steps an epoch, within [64, 4096]."""
    ideal = max(num_rows, 1) / _STEPS_PER_EPOCH
    power = 2 ** round(math.log2(max(ideal, 1)))
    return int(min(max(power, _SMALLEST_BATCH), _LARGEST_BATCH))


def default_embedding_l2(layout: FeatureLayout, num_rows: int) -> float:
    """Stronger where fewer rows stand behind each embedding."""
    largest = max((field.num_embeddings for field in layout.fields), default=1)
    rows_per_id = num_rows / max(largest, 1)
    return float(min(max(1e-3 / max(rows_per_id, 1e-9), 1e-6), 1e-4))


def default_dropout(num_rows: int) -> float:
    """A tenth on large tables, more on small ones."""
    return 0.1 if num_rows >= 100_000 else 0.2
