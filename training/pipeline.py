"""A run on Ray: every stage is a task, started as soon as what it needs is complete."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from dynens.bundle import load_bundle
from dynens.config.run import RayConfig, RunConfig
from dynens.data.prepared import PreparedData, open_prepared
from dynens.errors import BadInputError, BundleError, DynensError, TrainingError
from dynens.run import RunDirectory, no_empty_folders, replace_directory, write_json
from dynens.schema import DatasetConfig
from dynens.signals import starting_ray
from training.context import StageContext, json_progress, read_settings
from training.failures import LESS_MEMORY, explained
from training.plan import (
    DONE,
    LEARNER_PREFIX,
    PREPARE,
    StageSpec,
    check_cores,
    check_student,
    finished_stages,
    is_complete,
    plan,
    read_mark,
    ready,
)
from training.reuse import compare_files, reuse_stages

POLL_S = 0.3
PROGRESS_FILE = "progress.jsonl"
FEW_OF_A_CLASS = 10  # in a half of the validation rows: an AUC is off by some 0.1
OBJECT_STORE_BYTES = 100 * 1024 * 1024


class Watcher:
    """Told what happens in a run; the command line shows it."""

    def started(self, stage: StageSpec) -> None: ...

    def progress(self, stage: StageSpec, fraction: float, note: str) -> None: ...

    def finished(self, stage: StageSpec, seconds: float, reused: bool) -> None: ...

    def warned(self, text: str) -> None: ...


def fit(
    dataset: DatasetConfig,
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    reuse: Path | None = None,
    watcher: Watcher | None = None,
) -> RunDirectory:
    """Train, distil, route and bundle: the whole run, in `out`.

    Args:
        dataset: the table.
        config: everything else.
        out: the run directory; must be new unless `resume`.
        resume: continue from the stages that are complete; refused where the source files or
            settings have changed since (but for those of `ray`, which say where a run trains, not
            what), while files that are gone are only warned of.
        reuse: another run, whose stages are taken over where `config` leaves them as they are.
        watcher: told about progress.

    Raises:
        BadInputError: the data or the directory cannot be used, or another process is using it.
        TrainingError: a stage failed.
    """
    check_student(config)
    _check_workers(config)
    run = RunDirectory(out.resolve())
    settings = {"data": dataset.model_dump(mode="json"), **config.model_dump(mode="json")}
    with no_empty_folders(run.root):
        is_new = not os.path.exists(run.config)
        run.start(settings, resume=resume, normalised=_normalised)
        with run.locked():
            linked: set[str] = set()
            try:
                if reuse is not None and is_new:
                    linked = reuse_stages(run, config, reuse)
                _prepare_here(run, config, watcher or Watcher())
                config = open_prepared(run.data).without_unsuited(config)
                with cluster(config.ray) as num_cpus:
                    check_cores(config, num_cpus)
                    _execute(run, config, plan(config, run, num_cpus), watcher or Watcher())
            except BundleError:
                raise  # a file of the run was damaged meanwhile; the others are good
            except BadInputError:
                found = {LEARNER_PREFIX + p.parent.name for p in run.learners.glob(f"*/{DONE}")}
                if is_new and found <= linked:
                    _clear(run.root)  # not where learners were trained, which may take hours
                raise
            shutil.rmtree(run.work, ignore_errors=True)
    warn_of_ranking(run, watcher or Watcher())
    return run


def _check_workers(config: RunConfig) -> None:
    """Refuse settings of learners that `ray.net_workers` cannot train, before anything is made."""
    if config.ray.net_workers == 1:
        return
    from training.distributed import DistributedConfig, check_spread

    for learner in config.learners.values():
        if learner.is_neural:
            check_spread(learner, DistributedConfig(num_workers=config.ray.net_workers))


def warn_of_ranking(run: RunDirectory, watcher: Watcher) -> None:
    """Say why ranking requests take the long way, if they do."""
    notes = (load_bundle(run.root).manifest.metrics or {}).get("ranking") or {}
    for graph, note in notes.items():
        if "refused" in note:
            watcher.warned(
                f"{graph} scores ranking requests as full rows, which takes longer: "
                f"{note['refused']}"
            )


def _normalised(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal for a run to go on."""
    dataset, config = read_settings(settings, "config.yaml")
    return {
        "data": dataset.model_dump(mode="json"),
        **config.model_dump(mode="json", exclude={"ray"}),
    }


def _clear(root: Path) -> None:
    """Empty the folder of a run that came to nothing."""
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _prepare_here(run: RunDirectory, config: RunConfig, watcher: Watcher) -> None:
    """Prepare the data in this process: bad input is found out before a cluster is started."""
    stage = next(s for s in plan(config, run, 1) if s.name == PREPARE)
    if is_complete(stage):
        compare_files(run, watcher.warned)
        return
    watcher.started(stage)
    start = time.monotonic()
    shutil.rmtree(run.work, ignore_errors=True)  # checkpoints of other rows
    run_stage(stage, run, config)
    data = open_prepared(run.data)
    watcher.progress(stage, 1.0, _prepared_note(data))
    watcher.finished(stage, time.monotonic() - start, reused=False)
    for warning in (*data.report.get("warnings", ()), *_rare_classes(data)):
        watcher.warned(warning)


def _rare_classes(data: PreparedData) -> Iterator[str]:
    """A warning of each class that validation rows, half of which fit the router, hardly hold."""
    labels = data.split("valid").labels
    assert labels is not None
    for name, count in (("positive", (labels > 0).sum()), ("negative", (labels <= 0).sum())):
        if count < 2 * FEW_OF_A_CLASS:
            yield (
                f"the validation part has only {count} {name} rows, so calibration and router rest "
                "on little; give more rows or a larger validation part"
            )


def _prepared_note(data: PreparedData) -> str:
    """Rows and how they were cut, for the log."""
    report, dataset = data.report, data.dataset
    how = "at random" if report["split_by"] == "random" else f"by {report['split_by']}"
    if report["split_by"] == "time":
        how += f" ({dataset.features.timestamp})"
    if dataset.valid_files and dataset.test_files:
        how = "as given"
    note = f"{sum(data.rows.values()):,} rows, split {how}"
    unlabelled = report.get("rows_unlabelled", 0)
    if unlabelled:
        note += f", {unlabelled:,} without a label teach, too"
    if left_out := report["rows_without_label"] - unlabelled:
        note += f", {left_out:,} without a label left out"
    return note


@contextlib.contextmanager
def cluster(config: RayConfig) -> Iterator[int]:
    """Connect to a Ray cluster, or start one here and stop it afterwards; yields its cores."""
    already = ray.is_initialized()
    if not already:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        # Ray runs workers at niceness 15, and training crawls beside any ordinary process.
        os.environ.setdefault("RAY_worker_niceness", "0")
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if config.address is None:
            options |= {
                "num_cpus": config.num_cpus or os.cpu_count(),
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        try:
            with starting_ray():
                ray.init(address=config.address, **options)
        except Exception as e:  # a node that does not come up in time is a bare one
            where = config.address or "on this machine"
            raise TrainingError(f"Ray {where} could not be reached or started ({e}).") from e
    try:
        yield int(ray.cluster_resources().get("CPU", 1))
    finally:
        if not already:
            ray.shutdown()


def _execute(
    run: RunDirectory, config: RunConfig, stages: list[StageSpec], watcher: Watcher
) -> None:
    finished = finished_stages(stages)
    for stage in stages:
        if stage.name in finished and stage.name != PREPARE:
            watcher.finished(stage, 0.0, reused=True)
    running: dict[Any, tuple[StageSpec, float]] = {}
    try:
        while len(finished) < len(stages):
            started = {stage.name for stage, _ in running.values()}
            for stage in ready(stages, finished, started):
                running[_submit(run, config, stage)] = (stage, time.monotonic())
                watcher.started(stage)
            done, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for stage, _ in running.values():
                _report_progress(run, stage, watcher)
            for reference in done:
                stage, start = running.pop(reference)
                _result(reference, stage, config)
                finished.add(stage.name)
                watcher.finished(stage, time.monotonic() - start, reused=False)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _submit(run: RunDirectory, config: RunConfig, stage: StageSpec) -> Any:
    task = _remote_stage.options(
        num_cpus=stage.num_cpus, max_retries=config.ray.max_retries, name=stage.name
    )
    return task.remote(stage, run, config)


def _result(reference: Any, stage: StageSpec, config: RunConfig) -> None:
    try:
        ray.get(reference)
    except RayTaskError as e:
        cause = getattr(e, "cause", None)
        if isinstance(cause, DynensError):
            raise cause from e
        raise TrainingError(f"stage {stage.name} failed: {cause or e}") from e
    except OutOfMemoryError as e:
        raise TrainingError(f"stage {stage.name} ran out of memory; {LESS_MEMORY}.") from e
    except WorkerCrashedError as e:
        raise TrainingError(
            f"stage {stage.name}: its worker died {config.ray.max_retries + 1} times; look for a "
            "killed process or too little memory, and continue with --resume."
        ) from e
    except RayError as e:
        raise TrainingError(f"stage {stage.name}: Ray failed ({e}); continue with --resume.") from e


def _report_progress(run: RunDirectory, stage: StageSpec, watcher: Watcher) -> None:
    points = _points(work_directory(run, stage.name) / PROGRESS_FILE)
    if points:
        last, best = points[-1], max(point["valid_auc"] for point in points)
        note = f"epoch {last['epoch']:.0f}, valid AUC {last['valid_auc']:.4f}, best {best:.4f}"
        watcher.progress(stage, float(last["fraction"]), note)


def _points(path: Path) -> list[dict[str, float]]:
    """What a stage has written of its epochs so far."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []  # not there yet, or a line is being written; the next poll will see it


@ray.remote  # type: ignore[untyped-decorator]
def _remote_stage(stage: StageSpec, run: RunDirectory, config: RunConfig) -> None:
    run_stage(stage, run, config)


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
    started = time.time()
    marks = {s.name: read_mark(s) or {} for s in plan(config, run, 1) if s.name in stage.needs}
    context = StageContext(
        run=run,
        dataset=dataset,
        config=config,
        out=out,
        checkpoints=work / "checkpoints",
        progress=json_progress(work / PROGRESS_FILE),
    )
    with explained(stage.name, run.root):
        out.mkdir(parents=True)
        _stage_function(stage.name)(context)
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


def _stage_function(name: str) -> Callable[[StageContext], None]:
    """The function of a stage; only the training stages import torch."""
    if name == PREPARE:
        return _prepare_data
    from training.architecture import choose_architecture
    from training.router_stage import build_bundle, build_router
    from training.stages import build_ensemble, train_baseline, train_learner
    from training.student import train_student

    if name.startswith(LEARNER_PREFIX):
        return partial(train_learner, name=name.removeprefix(LEARNER_PREFIX))
    return {
        "architecture": choose_architecture,
        "baseline": train_baseline,
        "ensemble": build_ensemble,
        "student": train_student,
        "router": build_router,
        "bundle": build_bundle,
    }[name]


def _prepare_data(context: StageContext) -> None:
    """Read, join, split and encode the table."""
    from dynens.data.prepare import prepare

    options, seed = context.config.ray, context.config.seed
    if options.data_workers == 1:
        prepare(context.dataset, context.out, seed=seed)
        return
    from training.ingest import prepare_on_ray

    with cluster(options):
        prepare_on_ray(context.dataset, context.out, seed=seed, workers=options.data_workers)
