"""One stage of a run, from its folder for unfinished work to the one it fills."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dynens.config.run import RunConfig
from dynens.data.prepared import open_prepared
from dynens.run import RunDirectory, replace_directory, write_json
from training.cluster import cluster
from training.context import StageContext, json_progress, read_settings
from training.failures import explained
from training.plan import DONE, LEARNER_PREFIX, PREPARE, StageSpec, plan, read_mark

PROGRESS_FILE = "progress.jsonl"
BEGUN_FILE = "begun.json"


def work_directory(run: RunDirectory, stage: str) -> Path:
    """Where a stage keeps its checkpoints and unfinished output."""
    return run.work / stage.replace(":", "-")


def run_stage(stage: StageSpec, run: RunDirectory, config: RunConfig) -> None:
    """Run one stage in this process and rename its output into place.

    Args:
        stage: whose needs are complete.
        run: its run.
        config: without learners that are not meant for the table; its `ray` may be another one than
            the run began with.
    """
    dataset, _ = read_settings(run.read_config(), str(run.config))
    work = work_directory(run, stage.name)
    out = work / "out"
    shutil.rmtree(out, ignore_errors=True)
    started, begun = time.time(), _begun(stage, work)
    marks = {s.name: read_mark(s) or {} for s in plan(config, run, 1) if s.name in stage.needs}
    context = StageContext(
        run=run,
        dataset=dataset,
        config=config,
        out=out,
        checkpoints=work / "checkpoints",
        progress=json_progress(work / PROGRESS_FILE),
        begun=begun,
        ends_at=None if stage.limit is None else stage.limit.end(begun),
        first=run.held_out if run.is_refitted else None,
    )
    with explained(stage.name, run.root):
        out.mkdir(parents=True)
        _stage_function(stage.name, context.first is not None)(context)
    mark = {
        "stage": stage.name,
        "started": started,
        "seconds": time.time() - started,
        "identity": open_prepared(out).fingerprint if stage.name == PREPARE else uuid.uuid4().hex,
        "made_from": {name: mark.get("identity") for name, mark in marks.items()},
    }
    write_json(out / DONE, mark)
    replace_directory(out, stage.directory)
    shutil.rmtree(work, ignore_errors=True)


def _begun(stage: StageSpec, work: Path) -> float:
    """When the stage began under its limit, which a worker in the place of a killed one shares."""
    if stage.limit is None:
        return time.time()
    path, given = work / BEGUN_FILE, stage.limit.given
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["given"] == given:
            return float(kept["begun"])
    begun = time.time()
    write_json(path, {"given": given, "begun": begun})
    return begun


def _stage_function(name: str, again: bool) -> Callable[[StageContext], None]:
    """The function of a stage, `again` in a second pass; only training stages import torch."""
    if name == PREPARE:
        return _prepare_data
    from training.architecture import choose_architecture
    from training.refit import refit_ensemble, refit_router, refit_student, settled_architecture
    from training.router_stage import build_bundle, build_router
    from training.stages import build_ensemble, train_baseline, train_learner
    from training.student import train_student

    if name.startswith(LEARNER_PREFIX):
        return partial(train_learner, name=name.removeprefix(LEARNER_PREFIX))
    first = {
        "architecture": choose_architecture,
        "baseline": train_baseline,
        "ensemble": build_ensemble,
        "student": train_student,
        "router": build_router,
        "bundle": build_bundle,
    }
    second = {
        "architecture": settled_architecture,
        "ensemble": refit_ensemble,
        "student": refit_student,
        "router": refit_router,
    }
    return (first | second if again else first)[name]


def _prepare_data(context: StageContext) -> None:
    """Read, join, split and encode the table."""
    from dynens.data.prepare import prepare

    options = context.config.ray
    how: dict[str, Any] = {
        "seed": context.config.seed,
        "train_on_valid": context.first is not None,
    }
    if options.data_workers == 1:
        prepare(context.dataset, context.out, **how)
        return
    from training.ingest import prepare_on_ray

    with cluster(options):
        prepare_on_ray(context.dataset, context.out, workers=options.data_workers, **how)
