"""A finished run's graphs and bundle, written again by the installed version without training."""

from __future__ import annotations

import os
import time
from pathlib import Path

from dynens.data.prepared import open_prepared
from dynens.errors import BadInputError, BundleError
from dynens.models.registry import load_learner
from dynens.run import MODEL_ONNX, RunDirectory
from training.context import read_settings
from training.int8 import is_int8
from training.passes import check_first_pass
from training.pipeline import Watcher, warn_of_ranking
from training.plan import finished_stages, plan
from training.stage import run_stage

_AGAIN = ("router", "bundle")


def export_run(run: RunDirectory, watcher: Watcher) -> None:
    """Export every learner from its checkpoint, fit the router and bundle them.

    What was trained, chosen or measured stays: weights, members, blends, their logits on validation
    rows and their costs; the student and the router's head are exported anew. A learner whose INT8
    form is served keeps the graphs it has. Files and stages are renamed into place when complete.

    Raises:
        BundleError: the run is not finished.
        BadInputError: another process works on it, or it cannot be written.
    """
    _, config = read_settings(run.read_config(), str(run.config))
    check_first_pass(run)
    config = open_prepared(run.held_out.data).without_unsuited(config)
    stages = plan(config, run, 1)
    missing = {s.name for s in stages} - finished_stages(stages) - set(_AGAIN)
    if missing:
        raise BundleError(
            f"{run.root} lacks the stages {', '.join(sorted(missing))}; finish the run with "
            "`dynens fit … --resume`."
        )
    directories = [*(run.learner(name) for name in config.learners), run.baseline]
    with run.locked():
        for directory in directories:
            served = directory / MODEL_ONNX
            if not is_int8(served):
                _export_anew(directory, served)
        for stage in stages:
            if stage.name in _AGAIN:
                watcher.started(stage)
                start = time.monotonic()
                run_stage(stage, run, config)
                watcher.finished(stage, time.monotonic() - start, reused=False)
    warn_of_ranking(run, watcher)


def _export_anew(learner: Path, served: Path) -> None:
    fresh = served.with_name(f"{served.name}.new")
    try:
        load_learner(learner).export_onnx(fresh)
        os.replace(fresh, served)
    except OSError as e:
        raise BadInputError(
            f"{learner} cannot be written ({e.strerror or e}); make room or correct its rights, "
            "and export again."
        ) from e
