"""A new run that starts from stages of another one, where settings leave them as they were."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynens.config.base import validate
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.data.fingerprint import FORMAT, fingerprint
from dynens.data.prepared import open_prepared
from dynens.errors import BadInputError, BundleError, DataError
from dynens.run import RunDirectory, replace_directory
from dynens.schema import DatasetConfig
from training.context import read_settings
from training.passes import AGAIN, BUNDLE, is_wanted, mark_first_pass
from training.plan import DONE, LEARNER_PREFIX, PREPARE, StageSpec, finished_stages, plan

# The first stages that read a section of the configuration; those that need them follow.
_READERS = {
    "student": ("architecture",),
    "student_cap_us_per_row": ("architecture",),
    "student_search": ("architecture",),
    "distill": ("student",),
    "ensemble": ("ensemble",),
    "router": ("router",),
    "serving": ("bundle",),
    "refit": (),
    "time_limit_min": (),
    "report": (),
    "ray": (),
}


def settings_of(other: Path) -> tuple[DatasetConfig, dict[str, Any]]:
    """The table of a run, and everything else it was given.

    Raises:
        BundleError: the directory is no run.
        ConfigError: it has settings that this version does not know.
    """
    run = RunDirectory.open(other)
    dataset, config = read_settings(run.read_config(), str(run.config))
    return dataset, config.model_dump(mode="json")


def reuse_stages(run: RunDirectory, config: RunConfig, other: Path) -> set[str]:
    """Link what another run of the same table has finished, and `config` leaves as it is.

    Args:
        run: just begun.
        config: its configuration.
        other: a finished run, or one that was killed.

    Returns:
        Names of the stages that were linked, those of a second pass with `AGAIN` behind them.

    Raises:
        BadInputError: nothing of `other` can be taken over.
    """
    both = RunDirectory.open(other)
    source = both.held_out
    _, old = read_settings(source.read_config(), str(source.config))
    if not (source.data / DONE).is_file():
        raise BadInputError(
            f"{other} holds no prepared data, where stages begin; give --data or --train instead."
        )
    if old.seed != config.seed:
        raise BadInputError(
            f"seed is {config.seed} but {old.seed} in {other}, which decides on everything; give "
            "--data or --train instead of --reuse."
        )
    try:
        change = _change(source, lambda _: None)
    except BundleError as e:
        raise BadInputError(str(e)) from e  # no file of the new run is damaged
    if change is not None:
        raise BadInputError(f"{change}; give --data or --train instead of --reuse.")
    data = open_prepared(source.data)
    old, config = data.without_unsuited(old), data.without_unsuited(config)
    lost = changed_stages(old, config, plan(config, run, 1))
    if not both.is_refitted or not is_wanted(config, data):
        return _linked(plan(old, source, 1), plan(config, run, 1), lost, run.work)
    mark_first_pass(run)
    first = plan(config, run.held_out, 1)
    taken = _linked(plan(old, source, 1), first, lost, run.work)
    # A stage of the second pass follows the same one of the first.
    missing = {stage.name for stage in first if stage.name not in (*taken, BUNDLE)}
    second = _linked(plan(old, both, 1), plan(config, run, 1), lost | missing, run.work)
    return taken | {f"{name}{AGAIN}" for name in second}


def _linked(
    before: list[StageSpec], stages: list[StageSpec], lost: set[str], work: Path
) -> set[str]:
    """Link what is finished and not lost to the same stages of another run; their names."""
    finished = finished_stages(before)
    directories = {stage.name: stage.directory for stage in before if stage.name in finished}
    taken = [s for s in stages if s.name in directories and s.name not in lost]
    for stage in taken:
        linked = work / "reused"
        shutil.copytree(directories[stage.name], linked, copy_function=_link)
        replace_directory(linked, stage.directory)
    return {stage.name for stage in taken}


def compare_files(run: RunDirectory, warn: Callable[[str], None]) -> None:
    """Refuse to go on from encoded rows whose source files have changed.

    Files that are gone are warned of only, for nothing that remains to be done reads them.

    Raises:
        DataError: they have changed.
    """
    change = _change(run, warn)
    if change is not None:
        raise DataError(f"{change}; choose another --out, or remove the whole run to start anew.")


def _change(run: RunDirectory, warn: Callable[[str], None]) -> str | None:
    """What would make the rows come out differently today; None: nothing, or their files are gone,
    which is warned of."""
    data = open_prepared(run.data)
    dataset = validate(DatasetConfig, run.read_config()["data"], str(run.config))
    if data.format != FORMAT:
        return f"{run.data} was encoded by another version of dynens"
    try:
        current = fingerprint(dataset, data.seed)
    except DataError as e:
        warn(f"the run continues on the rows encoded earlier: {e}")
        return None
    if current == data.fingerprint:
        return None
    return f"the files of dataset {dataset.name!r} have changed since {run.data} was encoded"


def changed_stages(old: RunConfig, new: RunConfig, stages: list[StageSpec]) -> set[str]:
    """Names of the stages that would come out differently.

    Args:
        old, new: configurations of one seed, without learners that are not meant for the table.
        stages: those of `new`.
    """
    changed = {name for name in _READERS if getattr(old, name) != getattr(new, name)}
    lost = {stage for section in changed for stage in _READERS[section]}
    if "distill" in changed and new.student_search.trials:
        lost.add("architecture")
    if _may_inherit(old) != _may_inherit(new):
        lost.add("architecture")
    if old.learners.keys() != new.learners.keys():
        lost.add("ensemble")
    before, after = _of_any_table(old), _of_any_table(new)
    lost |= {LEARNER_PREFIX + name for name, c in after.items() if before.get(name) != c}
    # Which validation rows stop a training, and whether its graph may be INT8.
    if old.router.select_share != new.router.select_share or old.ensemble.int8 != new.ensemble.int8:
        lost |= {stage.name for stage in stages if stage.name != PREPARE}
    for stage in stages:
        if lost.intersection(stage.needs):
            lost.add(stage.name)
    return lost


def _may_inherit(config: RunConfig) -> list[LearnerConfig]:
    """The learners that the student could have an input of."""
    if not config.distill.inherit:
        return []
    return [learner for learner in _of_any_table(config).values() if learner.is_pair]


def _of_any_table(config: RunConfig) -> dict[str, LearnerConfig]:
    """The learners without the tables they are meant for, which change none that trains."""
    limits = dict.fromkeys(("max_rows", "max_fields", "min_rows_per_id"))
    return {n: learner.model_copy(update=limits) for n, learner in config.learners.items()}


def _link(source: str, target: str) -> None:
    """A second name for a file, which no stage ever changes; a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
