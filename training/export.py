"""A finished run's graphs and bundle, written again by the installed version without training."""

from __future__ import annotations

import time

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.prepared import open_prepared
from dynens.errors import BundleError
from dynens.models.registry import load_learner
from dynens.run import RunDirectory
from training.int8 import is_int8
from training.pipeline import Watcher, run_stage, warn_of_ranking
from training.plan import finished_stages, plan
from training.stages import MODEL_ONNX

_AGAIN = ("router", "bundle")


def export_run(run: RunDirectory, watcher: Watcher) -> None:
    """Export every learner from its checkpoint, fit the router on the new graphs and bundle them.

    What was trained or chosen stays: weights, members, blends, teacher and student. A learner whose
    INT8 form is served keeps the graphs it has. Each stage is renamed into place when complete.

    Raises:
        BundleError: the run is not finished.
    """
    settings = run.read_config()
    settings.pop("data")
    config = validate(RunConfig, settings, str(run.config))
    config = config.for_rows(open_prepared(run.data).rows["train"])
    stages = plan(config, run, 1)
    missing = {s.name for s in stages} - finished_stages(stages) - set(_AGAIN)
    if missing:
        raise BundleError(
            f"{run.root} lacks the stages {', '.join(sorted(missing))}; finish the run with "
            "`dynens fit … --resume`."
        )
    directories = [*(run.learner(name) for name in config.learners), run.baseline]
    for directory in directories:
        if not is_int8(directory / MODEL_ONNX):
            load_learner(directory).export_onnx(directory / MODEL_ONNX)
    for stage in stages:
        if stage.name in _AGAIN:
            watcher.started(stage)
            start = time.monotonic()
            run_stage(stage.name, stage.directory, run)
            watcher.finished(stage, time.monotonic() - start, reused=False)
    warn_of_ranking(run, watcher)
