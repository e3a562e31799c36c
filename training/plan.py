"""What a run consists of: its stages, what each needs, which are done and which may start."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.errors import ConfigError
from dynens.run import RunDirectory

DONE = "stage.json"
PREPARE = "prepare"
LEARNER_PREFIX = "learner:"


@dataclass(frozen=True)
class StageLimit:
    """How long a stage's training may take; times are as `time.time` counts seconds.

    Attributes:
        given: when a command gave it.
        seconds: from when the stage began first, whoever may have had to begin it again.
        ends: at the latest, whenever it began.
    """

    given: float
    seconds: float
    ends: float

    def end(self, begun: float) -> float:
        """Of a stage that began then."""
        return min(begun + self.seconds, self.ends)


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        name: unique in the run; learners are "learner:<name>".
        directory: what the stage fills, inside the run.
        needs: names of stages that must be complete.
        num_cpus: cores it is given; none where workers of its own have them.
        again: whether it is of a second pass.
        limit: of its training's time; None: none.
    """

    name: str
    directory: Path
    needs: tuple[str, ...]
    num_cpus: int = 1
    again: bool = False
    limit: StageLimit | None = None


def plan(config: RunConfig, run: RunDirectory, cluster_cpus: int) -> list[StageSpec]:
    """The stages of a run in an order that respects their needs."""
    learners = tuple(LEARNER_PREFIX + name for name in config.learners)
    searches = config.student_search.trials > 0  # it asks the teacher
    student_cpus = min(2 if config.distill.makes_rows else 1, cluster_cpus)
    return [
        StageSpec(PREPARE, run.data, ()),
        *(
            StageSpec(
                LEARNER_PREFIX + name,
                run.learner(name),
                (PREPARE,),
                0 if _is_spread(learner, config) else min(learner.num_threads, cluster_cpus),
            )
            for name, learner in config.learners.items()
        ),
        StageSpec("ensemble", run.ensemble, learners),
        StageSpec("architecture", run.architecture, ("ensemble",) if searches else (PREPARE,)),
        StageSpec("baseline", run.baseline, ("architecture",)),
        StageSpec("student", run.student, ("ensemble", "architecture"), student_cpus),
        StageSpec("router", run.router, ("student", "baseline")),
        StageSpec("bundle", run.bundle, ("router",)),
    ]


def _is_spread(learner: LearnerConfig, config: RunConfig) -> bool:
    """Whether several workers train a learner."""
    return config.ray.net_workers > 1 and learner.is_neural


def check_student(config: RunConfig) -> None:
    """Refuse a width of the student's vectors, which the stage "architecture" settles.

    Raises:
        ConfigError: one is given.
    """
    if config.student.product_width:
        raise ConfigError(
            f"student.product_width is {config.student.product_width}, but a run takes it from its "
            "autorec and bmf learners (distill.inherit); leave it out."
        )


def check_cores(config: RunConfig, cluster_cpus: int) -> None:
    """Refuse peers or workers that could never train side by side.

    Raises:
        ConfigError: the cluster has fewer cores than there are peers or workers of a learner.
    """
    counts = {
        "distill.peers.count": config.distill.peers.count,
        "ray.net_workers": config.ray.net_workers,
    }
    for name, count in counts.items():
        if cluster_cpus < count:
            raise ConfigError(
                f"{name} is {count} but Ray has {cluster_cpus} cores, and each of them needs one; "
                "lower it or raise ray.num_cpus."
            )


def ready(
    stages: list[StageSpec], finished: Collection[str], started: Collection[str]
) -> list[StageSpec]:
    """Stages whose needs are complete and that were not started yet, in plan order."""
    return [
        stage
        for stage in stages
        if stage.name not in started
        and stage.name not in finished
        and all(need in finished for need in stage.needs)
    ]


def is_complete(stage: StageSpec) -> bool:
    """A stage directory carries its mark only once it was renamed into place."""
    return read_mark(stage) is not None


def finished_stages(stages: Sequence[StageSpec]) -> set[str]:
    """Complete stages whose needs are complete too, and still the ones they were made from.

    A stage after a lost one runs again, also where that one is there anew.
    """
    finished: set[str] = set()
    identities: dict[str, str | None] = {}
    for stage in stages:
        mark = read_mark(stage)
        if mark is None or not all(need in finished for need in stage.needs):
            continue
        made_from = mark.get("made_from", {})
        if all(made_from.get(need) == identities[need] for need in stage.needs):
            finished.add(stage.name)
            identities[stage.name] = mark.get("identity")
    return finished


def read_mark(stage: StageSpec) -> dict[str, Any] | None:
    """What a complete stage says of itself; None where it is incomplete.

    Its `identity` changes with every making of it, that of the encoded rows with what they are made
    from; `made_from` holds the identities of its needs. Marks of earlier versions have neither.
    """
    try:
        mark: dict[str, Any] = json.loads((stage.directory / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return mark
