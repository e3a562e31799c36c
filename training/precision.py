"""The arithmetic in which a run's networks train, decided once for all of its processes."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayTaskError

from dynens.config.learner import LearnerConfig, Precision
from dynens.config.run import RunConfig
from dynens.errors import DynensError
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
        trained = (*config.learners.values(), config.student)
        wants_gpu = any(learner.device == "cuda" for learner in trained)
        is_known = config.ray.address is None and not wants_gpu and not cpu_may_have_bf16()
        found = _precisions(config) if is_known else _by_a_worker(config)
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


def _by_a_worker(config: RunConfig) -> Any:
    try:
        return ray.get(_measured.remote(config))
    except RayTaskError as e:
        if isinstance(e.cause, DynensError):  # such as a GPU that is not there, in its own words
            raise e.cause from e
        raise


@ray.remote(num_cpus=1)  # type: ignore[untyped-decorator]
def _measured(config: RunConfig) -> dict[str, Any]:
    return _precisions(config)


def _precisions(config: RunConfig) -> dict[str, Any]:
    """What "auto" is on this machine for every learner and the student."""
    learners = {name: resolve_precision(learner) for name, learner in config.learners.items()}
    return {"learners": learners, "student": resolve_precision(config.student)}
