"""The systems of a run and their probabilities on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.bundle import GRAPH_OUTPUTS, STUDENT
from dynens.engine import Engine
from dynens.ensemble.blend import Blend, Logits
from dynens.ensemble.scorer import PoolScorer
from dynens.metrics import auc
from dynens.run import ENSEMBLE_JSON, MODEL_ONNX, ROUTER_JSON, RunDirectory, read_json

Probabilities = npt.NDArray[np.float32]

SYSTEMS = (
    "baseline",
    "best_single",
    "student",
    "static_ensemble",
    "static_ensemble_with_student",
    "full_pool",
    "dynamic",
    "random_route",
)


@dataclass(frozen=True)
class RunSystems:
    """Everything needed to score rows with every system of a run.

    Attributes:
        engine: the served bundle.
        scorer: every exported learner and the baseline.
        blends: system → blend of logits ("student" is the student's own logit).
        members: of the static ensemble.
        best_single: name of the learner that was best on validation.
        learners: names of the pool.
    """

    engine: Engine
    scorer: PoolScorer
    blends: dict[str, Blend]
    members: tuple[str, ...]
    best_single: str
    learners: tuple[str, ...]

    @classmethod
    def load(cls, run: RunDirectory) -> RunSystems:
        """Open a finished run.

        Raises:
            BundleError: the run is unfinished or damaged.
        """
        engine = Engine.load(run.root)
        router = read_json(run.router / ROUTER_JSON)
        chosen = read_json(run.ensemble / ENSEMBLE_JSON)
        learners = tuple(chosen["select_auc"])
        paths = {name: run.learner(name) / MODEL_ONNX for name in learners}
        paths["baseline"] = run.baseline / MODEL_ONNX
        return cls(
            engine=engine,
            scorer=PoolScorer(paths),
            blends={name: Blend.from_dict(b) for name, b in router["blends"].items()},
            members=tuple(chosen["members"]),
            best_single=chosen["best_single"],
            learners=learners,
        )


@dataclass(frozen=True)
class Scored:
    """Probabilities of every system on N rows, and what routing saw.

    Attributes:
        logits: raw logits by model ("student" and "baseline" among them).
        probabilities: system → (N,) probabilities, as served ("random_route" is left out).
        difficulty: (N,) the student's difficulty.
        route: (N,) 0 student, 1 ensemble, of the dynamic system.
    """

    logits: dict[str, Logits]
    probabilities: dict[str, Probabilities]
    difficulty: Probabilities
    route: npt.NDArray[np.int32]

    @cached_property
    def hard_fraction(self) -> float:
        return float(self.route.mean()) if len(self.route) else 0.0

    def routed(self, hard: npt.NDArray[np.bool_]) -> Probabilities:
        """Probabilities when exactly the flagged rows go to the ensemble."""
        easy = self.probabilities["student"]
        return np.where(hard, self.probabilities["static_ensemble_with_student"], easy)


def score_rows(systems: RunSystems, batch: EncodedBatch) -> Scored:
    """Score `batch` with every system; the dynamic one through the engine that serves it."""
    logits = systems.scorer.logits(batch)
    logit, easy, difficulty = student_outputs(systems.engine, batch)
    logits["student"] = logit
    probabilities: dict[str, Probabilities] = {
        name: blend.probability(logits) for name, blend in systems.blends.items()
    }
    dynamic = systems.engine.score(batch)
    probabilities["student"] = easy
    probabilities["dynamic"] = dynamic.probability
    return Scored(logits, probabilities, difficulty, dynamic.route)


def student_outputs(
    engine: Engine, batch: EncodedBatch
) -> tuple[Probabilities, Probabilities, Probabilities]:
    """(logit, probability, difficulty) of the served student, each (N,)."""
    logit, probability, difficulty = engine.student.run_all(GRAPH_OUTPUTS[STUDENT], batch)
    return logit, probability, difficulty


def redundancy(
    systems: RunSystems, logits: Mapping[str, Logits], batch: EncodedBatch
) -> dict[str, dict[str, float]]:
    """Per member: its share of the ensemble's logit variance, and the AUC lost without it.

    The variance share of member i is wᵢ cov(zᵢ, Z) / var(Z), Z = Σ wᵢ zᵢ, (weighted) over the
    labelled rows of `batch`; shares sum to one.
    """
    labels, weight = batch.labels, batch.sample_weight
    assert labels is not None
    blend = systems.blends["static_ensemble"]
    total = blend.logit(logits)
    full = auc(labels, total, weight)
    result = {}
    for name, member_weight in blend.weights.items():
        (_, both), (_, variance) = np.cov(logits[name], total, ddof=0, aweights=weight)
        rest = Blend({n: w for n, w in blend.weights.items() if n != name})
        lost = full - auc(labels, rest.logit(logits), weight) if rest.weights else float("nan")
        share = member_weight * float(both) / (float(variance) or float("nan"))
        result[name] = {"variance_share": share, "auc_lost_without": lost}
    return result
