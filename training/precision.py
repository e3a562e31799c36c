"""The arithmetic in which a run's networks train, decided once for all of its processes."""

from __future__ import annotations

from typing import Any

import ray

from dynens.config.learner import LearnerConfig, Precision
from dynens.config.run import RunConfig
from dynens.models.defaults import cpu_may_have_bf16, resolve_precision
from dynens.run import RunDirectory, read_json, write_json

PRECISION_JSON = "precision.json"


def settle_precision(run: RunDirectory, config: RunConfig) -> RunConfig:
    """The configuration with every "auto" of the kind replaced.

    What is found before anything is trained, by a worker where it takes a measurement, is kept in
    the run, so that neither its workers nor a process that resumes it find something else.
    """
    path = run.root / PRECISION_JSON
    if not path.exists():
        # Where the instructions lack, no worker need import torch before the first stage begins.
        is_known = config.ray.address is None and not cpu_may_have_bf16()
        found = precisions(config) if is_known else ray.get(_measured.remote(config))
        write_json(path, found)
    settled = read_json(path)
    learners = {
        name: with_precision(learner, settled["learners"].get(name, "auto"))
        for name, learner in config.learners.items()
    }
    student = with_precision(config.student, settled["student"])
    return config.model_copy(update={"learners": learners, "student": student})


def with_precision(config: LearnerConfig, precision: Precision) -> LearnerConfig:
    """A learner's configuration with this arithmetic in the place of "auto"."""
    if config.optimizer.precision != "auto":
        return config
    optimizer = config.optimizer.model_copy(update={"precision": precision})
    return config.model_copy(update={"optimizer": optimizer})


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _measured(config: RunConfig) -> dict[str, Any]:
    return precisions(config)


def precisions(config: RunConfig) -> dict[str, Any]:
    """What "auto" is on this machine for every learner and the student."""
    learners = {name: resolve_precision(learner) for name, learner in config.learners.items()}
    return {"learners": learners, "student": resolve_precision(config.student)}
