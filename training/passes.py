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
from dynens.data.prepared import VALID_ROWS, PreparedData
from dynens.errors import BundleError
from dynens.run import FIT_REPORT, RunDirectory, read_json
from training.plan import StageSpec, finished_stages, is_complete, plan
from training.stage import work_directory

BUNDLE = "bundle"  # what a first pass does without
AGAIN = " again"  # behind the name of a stage of a second pass


def is_wanted(config: RunConfig, data: PreparedData) -> bool:
    """Whether a run on these rows, cut so, has a second pass."""
    if config.refit != "auto":
        return config.refit
    is_later = data.report["split_by"] == "time" and not data.dataset.valid_files
    return is_later and config.why_no_refit() is None


def check_first_pass(run: RunDirectory) -> None:
    """Refuse a second pass without what it follows.

    Raises:
        BundleError: the first pass is missing.
    """
    if not run.is_refitted and (run.data / VALID_ROWS).exists():
        raise BundleError(
            f"{run.first_pass} is missing, and the models of {run.root} were trained after it; "
            "bring it back, or fit anew."
        )


def mark_first_pass(run: RunDirectory) -> None:
    """Give a run the folder of its first pass."""
    run.first_pass.mkdir(exist_ok=True)
    shutil.copy(run.config, run.first_pass)


def begin_first_pass(run: RunDirectory, config: RunConfig) -> None:
    """Make what the stages have come to so far that of a first pass."""
    mark_first_pass(run)
    for stage, moved in zip(plan(config, run, 1), plan(config, run.held_out, 1), strict=True):
        if not is_complete(stage):
            continue
        if stage.name == "student" and not _can_be_followed(stage):
            break  # nor what comes after it
        moved.directory.parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage.directory, moved.directory)


def _can_be_followed(student: StageSpec) -> bool:
    """Whether a student's report has what ended its training; earlier versions did not write it."""
    return all("score" in point for point in read_json(student.directory / FIT_REPORT)["curve"])


def passes(
    config: RunConfig, run: RunDirectory, cluster_cpus: int
) -> list[tuple[RunDirectory, list[StageSpec]]]:
    """The directory and the stages of each pass, in order."""
    stages = plan(config, run, cluster_cpus)
    if not run.is_refitted:
        return [(run, stages)]
    first = [s for s in plan(config, run.held_out, cluster_cpus) if s.name != BUNDLE]
    finished = finished_stages(first)
    # What followed another first pass goes, and with it all that needs it; the rows are the same.
    for stage in stages[1:]:
        if stage.name not in finished and stage.name != BUNDLE:
            for place in (stage.directory, work_directory(run, stage.name)):
                shutil.rmtree(place, ignore_errors=True)
    return [(run.held_out, first), (run, [replace(stage, again=True) for stage in stages])]
