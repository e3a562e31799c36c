"""The passes of a run: one, or a second that trains on validation rows as well.

The rows nearest in time to those that will be scored are the validation rows, and in the first pass
they only judge. A second pass trains every model on all of them: as many epochs, with the learning
rate lowered at the same points, with the members, weights, calibration and hard fraction that the
first one came to. Whatever needs answers to rows that trained nothing takes them from there.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData
from dynens.run import RunDirectory
from training.plan import StageSpec, finished_stages, is_complete, plan

_BUNDLE = "bundle"  # what a first pass does without


def is_wanted(config: RunConfig, data: PreparedData) -> bool:
    """Whether a run on these rows, cut so, has a second pass."""
    if config.refit != "auto":
        return config.refit
    is_later = data.report["split_by"] == "time" and not data.dataset.valid_files
    return is_later and config.why_no_refit() is None


def begin_first_pass(run: RunDirectory, config: RunConfig) -> None:
    """Make what the stages have come to so far that of a first pass."""
    moved = RunDirectory(run.work / run.first_pass.name)
    shutil.rmtree(moved.root, ignore_errors=True)
    for stage in plan(config, run, 1):
        if is_complete(stage):
            target = moved.root / stage.directory.relative_to(run.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(stage.directory, target)
    shutil.copy(run.config, moved.config)
    os.replace(moved.root, run.first_pass)


def passes(
    config: RunConfig, run: RunDirectory, cluster_cpus: int
) -> list[tuple[RunDirectory, list[StageSpec]]]:
    """The directory and the stages of each pass, in order."""
    stages = plan(config, run, cluster_cpus)
    if not run.is_refitted:
        return [(run, stages)]
    first = [s for s in plan(config, run.held_out, cluster_cpus) if s.name != _BUNDLE]
    if len(finished_stages(first)) < len(first):
        shutil.rmtree(run.data, ignore_errors=True)  # a second pass that followed another first one
    return [(run.held_out, first), (run, [replace(stage, again=True) for stage in stages])]
