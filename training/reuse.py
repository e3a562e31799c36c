"""A new run that starts from stages of another one, where settings leave them as they were."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from dynens.config.run import RunConfig
from dynens.data.prepared import open_prepared
from dynens.errors import BadInputError
from dynens.run import RunDirectory, replace_directory
from dynens.schema import DatasetConfig
from training.context import read_settings
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


def reuse_stages(run: RunDirectory, config: RunConfig, other: Path) -> None:
    """Link what another run of the same table has finished, and `config` leaves as it is.

    Args:
        run: just begun.
        config: its configuration.
        other: a finished run, or one that was killed.

    Raises:
        BadInputError: nothing of `other` can be taken over.
    """
    source = RunDirectory.open(other)
    _, old = read_settings(source.read_config(), str(source.config))
    if not (source.data / DONE).is_file():
        raise BadInputError(f"{other} has finished no stage; give --data or --train instead.")
    if old.seed != config.seed:
        raise BadInputError(
            f"seed is {config.seed} but {old.seed} in {other}, which decides on everything; give "
            "--data or --train instead of --reuse."
        )
    rows = open_prepared(source.data).informative_rows
    old, config = old.for_rows(rows), config.for_rows(rows)
    before, stages = plan(old, source, 1), plan(config, run, 1)
    finished = finished_stages(before)
    lost = changed_stages(old, config, stages)
    directories = {stage.name: stage.directory for stage in before if stage.name in finished}
    linked = run.work / "reused"
    for stage in stages:
        if stage.name in directories and stage.name not in lost:
            shutil.copytree(directories[stage.name], linked, copy_function=_link)
            replace_directory(linked, stage.directory)


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
    if old.learners.keys() != new.learners.keys():
        lost.add("ensemble")
    lost |= {LEARNER_PREFIX + n for n, c in new.learners.items() if old.learners.get(n) != c}
    # Which validation rows stop a training, and whether its graph may be INT8.
    if old.router.select_share != new.router.select_share or old.ensemble.int8 != new.ensemble.int8:
        lost |= {stage.name for stage in stages if stage.name != PREPARE}
    for stage in stages:
        if lost.intersection(stage.needs):
            lost.add(stage.name)
    return lost


def _link(source: str, target: str) -> None:
    """A second name for a file, which no stage ever changes; a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
