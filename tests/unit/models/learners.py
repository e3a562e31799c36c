"""Every kind of learner, small and quick."""

from __future__ import annotations

import pytest

from dynens.config.learner import GibbsConfig, LearnerConfig, OptimizerConfig, TreesConfig
from dynens.models.registry import MODELS

# "dnn x3" is a dnn of three branches, "dnn *6" one with the product of vectors of length 6.
FORMS = (*sorted(MODELS), "dnn x3", "ipnn x3", "dnn *6", "ipnn *6")
every_model = pytest.mark.parametrize("model", FORMS)


def config_of(form: str, **updates: object) -> LearnerConfig:
    model, _, product_width = form.partition(" *")
    model, _, branches = model.partition(" x")
    return LearnerConfig(
        model=model,  # type: ignore[arg-type]
        branches=int(branches or 1),
        product_width=int(product_width or 0),
        embedding_dim=4,
        hidden_units=(8, 8),
        use_stats=True,
        optimizer=OptimizerConfig(
            max_epochs=3, batch_size=64, learning_rate=0.01, embedding_rate_factor=1.0
        ),
        trees=TreesConfig(num_trees=12, max_depth=3, min_child_weight=1),
        gibbs=GibbsConfig(sweeps=30, burn_in=10),
    ).model_copy(update=updates)
