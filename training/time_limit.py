"""How long each training of a run may take under `time_limit_min`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from training.plan import LEARNER_PREFIX, StageLimit, StageSpec, finished_stages

_FIRST_PASS = 0.5  # a second one goes as far as the first came, on a few more rows
_POOL = 0.5  # of a pass, for learners and baseline; the student has what is left when it begins
_STUDENT_ENDS = 0.9  # of a pass; router, bundle and report come after it


@dataclass(frozen=True)
class TimeLimit:
    """The time that trainings of a pass may take.

    Attributes:
        pool: seconds of each learner's and of the baseline's.
        student_ends: the end of the student's, as `time.time` counts seconds, and the latest of
            theirs.
    """

    pool: float
    student_ends: float

    @classmethod
    def of_pass(cls, stages: Sequence[StageSpec], ends: float, slots: int) -> TimeLimit:
        """For a pass that begins now.

        Args:
            stages: all of its stages; what is finished takes no time.
            ends: the end of the pass, as `time.time` counts seconds.
            slots: cores that learners and baseline share.
        """
        now, finished = time.time(), finished_stages(stages)
        length = max(ends - now, 0.0)
        cores = sum(s.num_cpus for s in stages if _is_of_pool(s) and s.name not in finished)
        return cls(_POOL * length * min(slots / max(cores, 1), 1.0), now + _STUDENT_ENDS * length)

    def applied(self, stage: StageSpec) -> StageSpec:
        """A stage that may begin now, with the limit of its training."""
        if not _is_of_pool(stage) and stage.name != "student":
            return stage
        seconds = self.pool if _is_of_pool(stage) else math.inf
        return replace(stage, limit=StageLimit(time.time(), seconds, self.student_ends))


def time_limits(
    limit_min: float | None, begun: float, passes: Sequence[Sequence[StageSpec]], slots: int
) -> list[TimeLimit | None]:
    """Those of the passes of a fit that began at `begun`; none of a second one, which follows."""
    if limit_min is None:
        return [None] * len(passes)
    ends = begun + 60 * limit_min * (_FIRST_PASS if len(passes) > 1 else 1.0)
    return [TimeLimit.of_pass(passes[0], ends, slots), *[None] * (len(passes) - 1)]


def _is_of_pool(stage: StageSpec) -> bool:
    return stage.name.startswith(LEARNER_PREFIX) or stage.name == "baseline"
