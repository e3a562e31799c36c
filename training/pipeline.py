"""A run on Ray: every stage is a task, started as soon as what it needs is complete."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from dynens.bundle import load_bundle
from dynens.config.run import RunConfig
from dynens.data.prepared import ALSO_VALID, PreparedData, open_prepared
from dynens.data.splits import Labels
from dynens.errors import (
    BadInputError,
    BundleError,
    ConfigError,
    DataError,
    DynensError,
    TrainingError,
)
from dynens.metrics import auc_error
from dynens.run import FIT_REPORT, RunDirectory, no_empty_folders, read_json
from dynens.schema import DatasetConfig
from training.cluster import cancel_running, cluster
from training.context import read_settings
from training.failures import LESS_MEMORY
from training.passes import AGAIN, begin_first_pass, check_first_pass, is_wanted, passes
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
    ready,
)
from training.precision import settle_precision
from training.reuse import compare_files, reuse_stages
from training.stage import PROGRESS_FILE, run_stage, work_directory
from training.time_limit import TimeLimit, time_limits
from training.valid_roles import valid_roles

POLL_S = 0.3
_LARGE_ERROR = 0.005  # of an AUC: beyond it the learners' order is mostly chance
FEW_OF_A_CLASS = 10  # in a half of the validation rows: an AUC is off by some 0.1


class Watcher:
    """Told what happens in a run; the command line shows it."""

    def started(self, stage: StageSpec) -> None: ...

    def progress(self, stage: StageSpec, fraction: float, note: str) -> None: ...

    def finished(self, stage: StageSpec, seconds: float, reused: bool) -> None: ...

    def noted(self, text: str) -> None: ...

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
            settings have changed since (but for those of `ray` and the time limit, which say where
            and how long a run trains, not what), while files that are gone are only warned of.
        reuse: another run, whose stages are taken over where `config` leaves them as they are.
        watcher: told about progress.

    Raises:
        BadInputError: the data or the directory cannot be used, or another process is using it.
        TrainingError: a stage failed.
    """
    watcher, begun = watcher or Watcher(), time.time()
    check_student(config)
    _check_workers(config)
    run = RunDirectory(out.resolve())
    settings = {"data": dataset.model_dump(mode="json"), **config.model_dump(mode="json")}
    with no_empty_folders(run.root):
        is_new = not os.path.exists(run.config)
        run.start(settings, resume=resume, normalised=_normalised)
        if resume and is_new:
            watcher.warned(f"there was no run in {out} to continue; a new one begins there")
        with run.locked():
            linked: set[str] = set()
            try:
                if reuse is not None and is_new:
                    linked = reuse_stages(run, config, reuse)
                config = _prepare_passes(run, config, watcher, is_new=is_new)
                with cluster(config.ray) as num_cpus:
                    check_cores(config, num_cpus)
                    config = settle_precision(run, config)
                    planned = passes(config, run, num_cpus)
                    limits = time_limits(
                        config.time_limit_min, begun, [stages for _, stages in planned], num_cpus
                    )
                    for (place, stages), limit in zip(planned, limits, strict=True):
                        _execute(place, config, stages, watcher, limit)
            except BundleError:
                raise  # a file of the run was damaged meanwhile; the others are good
            except BadInputError:
                if is_new and not _trained_learners(run) - linked:
                    _clear(run.root)  # not where learners were trained, which may take hours
                raise
            for place in (run, run.held_out):
                shutil.rmtree(place.work, ignore_errors=True)
    warn_of_ranking(run, watcher)
    return run


def _prepare_passes(
    run: RunDirectory, config: RunConfig, watcher: Watcher, *, is_new: bool
) -> RunConfig:
    """Prepare the rows of all passes; the configuration without learners they are not meant for."""
    check_first_pass(run)
    _prepare_here(run.held_out, config, watcher)
    data = open_prepared(run.held_out.data)
    for name, reason in data.unsuited(config).items():
        watcher.noted(f"learner {name} is left out: {reason}")
    config = data.without_unsuited(config)
    was_made = not is_new and is_complete(plan(config, run, 1)[-1])
    if not was_made and not run.is_refitted and is_wanted(config, data):
        begin_first_pass(run, config)
    if run.is_refitted:
        _prepare_again(run, config, watcher)
    return config


def _check_workers(config: RunConfig) -> None:
    """Refuse settings that `ray.net_workers` cannot train with, before anything is made."""
    if config.ray.net_workers == 1:
        return
    if config.time_limit_min is not None:
        raise ConfigError(
            f"time_limit_min is {config.time_limit_min:g} but ray.net_workers is "
            f"{config.ray.net_workers}, and several workers know no limit; leave one of them out."
        )
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
        **config.model_dump(mode="json", exclude={"ray", "time_limit_min"}),
    }


def _trained_learners(run: RunDirectory) -> set[str]:
    """Names of the stages of learners that are complete in either pass; see `reuse_stages`."""
    places = [run, run.held_out] if run.is_refitted else [run]
    return {
        f"{LEARNER_PREFIX}{mark.parent.name}{AGAIN if place is run and run.is_refitted else ''}"
        for place in places
        for mark in place.learners.glob(f"*/{DONE}")
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
    data = _prepared(stage, run, config, watcher, _prepared_note)
    for warning in (*data.report.get("warnings", ()), *_rare_classes(data)):
        watcher.warned(warning)


def _prepare_again(run: RunDirectory, config: RunConfig, watcher: Watcher) -> None:
    """Prepare the rows of a second pass, which are those of the first.

    Raises:
        DataError: the files are gone or have changed since the first pass's rows were read.
    """
    wanted = open_prepared(run.held_out.data).fingerprint + ALSO_VALID
    stage = replace(next(s for s in plan(config, run, 1) if s.name == PREPARE), again=True)
    if is_complete(stage) and open_prepared(run.data).fingerprint == wanted:
        return
    try:
        data = _prepared(stage, run, config, watcher, _prepared_again_note)
    except DataError as e:
        raise DataError(f"a second pass (refit) reads the files again: {e}") from e
    if data.fingerprint != wanted:
        shutil.rmtree(run.data)
        raise DataError(
            f"the files of {data.name} changed while {run.root} was made from them; fit anew when "
            "nothing writes to them."
        )


def _prepared(
    stage: StageSpec,
    run: RunDirectory,
    config: RunConfig,
    watcher: Watcher,
    note: Callable[[PreparedData], str],
) -> PreparedData:
    """The rows of a run, prepared and told of."""
    watcher.started(stage)
    start = time.monotonic()
    shutil.rmtree(run.work, ignore_errors=True)  # checkpoints of other rows
    run_stage(stage, run, config)
    data = open_prepared(run.data)
    watcher.progress(stage, 1.0, note(data))
    watcher.finished(stage, time.monotonic() - start, reused=False)
    return data


def _prepared_again_note(data: PreparedData) -> str:
    note = f"{data.rows['valid']:,} validation rows train, too"
    unlabelled = data.report.get("rows_unlabelled", 0)
    return f"{note}; {unlabelled:,} without a label" if unlabelled else note


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


def _execute(
    run: RunDirectory,
    config: RunConfig,
    stages: list[StageSpec],
    watcher: Watcher,
    limit: TimeLimit | None,
) -> None:
    finished = finished_stages(stages)
    for stage in stages:
        if stage.name in finished and stage.name != PREPARE:
            watcher.finished(stage, 0.0, reused=True)
    running: dict[Any, tuple[StageSpec, float]] = {}
    judged = _judging_labels(run, config)
    try:
        while len(finished) < len(stages):
            started = {stage.name for stage, _ in running.values()}
            for stage in ready(stages, finished, started):
                limited = stage if limit is None else limit.applied(stage)
                running[_submit(run, config, limited)] = (stage, time.monotonic())
                watcher.started(stage)
            done, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for stage, _ in running.values():
                _report_progress(run, stage, watcher, judged)
            for reference in done:
                stage, start = running.pop(reference)
                _result(reference, stage, config)
                finished.add(stage.name)
                _report_end(stage, watcher, judged)
                watcher.finished(stage, time.monotonic() - start, reused=False)
    finally:
        cancel_running(running)


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


def _judging_labels(run: RunDirectory, config: RunConfig) -> Labels:
    """The labels of the validation rows that learners are stopped by."""
    valid = open_prepared(run.data).split("valid")
    assert valid.labels is not None
    return valid.labels[valid_roles(config, valid).select]


def _report_progress(run: RunDirectory, stage: StageSpec, watcher: Watcher, judged: Labels) -> None:
    points = _points(work_directory(run, stage.name) / PROGRESS_FILE)
    if points:
        watcher.progress(stage, float(points[-1]["fraction"]), _told(points, stage, judged))


def _report_end(stage: StageSpec, watcher: Watcher, judged: Labels) -> None:
    """How a training ended; nothing of other stages."""
    path = stage.directory / FIT_REPORT
    if path.is_file():
        report = read_json(path)
        note = _told(report["curve"], stage, judged)
        watcher.progress(stage, 1.0, f"{note}, cut by the time limit" if report["is_cut"] else note)


def _told(points: Sequence[Mapping[str, float]], stage: StageSpec, judged: Labels) -> str:
    """The last of a training's points, and the best AUC so far."""
    last, best = points[-1], max(point["valid_auc"] for point in points)
    note = f"epoch {last['epoch']:.0f}"
    if stage.again:  # whose AUC is the first pass's
        return note
    error = auc_error(last["valid_auc"], judged)
    give_or_take = f" ± {error:.3f}" if error >= _LARGE_ERROR else ""
    return f"{note}, valid AUC {last['valid_auc']:.4f}{give_or_take}, best {best:.4f}"


def _points(path: Path) -> list[dict[str, float]]:
    """What a stage has written of its epochs so far."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []  # not there yet, or a line is being written; the next poll will see it


@ray.remote  # type: ignore[untyped-decorator]
def _remote_stage(stage: StageSpec, run: RunDirectory, config: RunConfig) -> None:
    run_stage(stage, run, config)
