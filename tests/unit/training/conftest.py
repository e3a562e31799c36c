"""What tests of the student share."""

from __future__ import annotations

import pytest

from dynens.data.prepare import prepare
from dynens.run import RunDirectory
from tests.unit.training.pool import clicks, context_of
from training.stages import build_ensemble, train_learner


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose pool and ensemble are complete."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    clicks(run.root / "clicks.parquet")
    context = context_of(run, run.ensemble)
    prepare(context.dataset, run.data, seed=context.config.seed)
    for name in context.config.learners:
        train_learner(context_of(run, run.learner(name)), name)
    build_ensemble(context)
    return run
