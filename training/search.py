"""A search for the student: architecture and training settings under the latency cap.

Each trial measures what its untrained graph costs and, within the cap, trains it for a few epochs
on the pool's answers; its score is what early stopping maximises, so how near it comes to its
teacher on `select` rows. A graph beyond the cap is not trained and scores by its excess.

References:
    Bergstra et al., "Algorithms for Hyper-Parameter Optimization", NIPS 2011 (tree-structured
    Parzen estimators); Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II",
    IEEE Transactions on Evolutionary Computation 6(2), 2002, here with one objective.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from dynens.config.distill import FaithfulConfig, PeersConfig
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.errors import TrainingError
from training.architecture import Candidate
from training.context import StageContext
from training.student import StudentLearner

# Powers of two.
_DIM, _WIDTH = (2, 5), (5, 8)
_LAYERS = (1, 3)
_DROPOUT, _DROPOUT_STEP = (0.0, 0.3), 0.1
_LEARNING_RATE = (3e-4, 5e-3)
# Below every score of a trained student.
_BEYOND_CAP = -1e3
_JOURNAL = "search.log"

Measure = Callable[[LearnerConfig], float]


def search_student(
    context: StageContext,
    first: LearnerConfig,
    models: Sequence[str],
    measure: Measure,
    roles: RunConfig | None = None,
) -> list[Candidate]:
    """All trials, the best first.

    They run one after the other, so that none is measured while another trains. A search that was
    killed goes on where it stood.

    Args:
        context: the stage's; the pool's answers must be there.
        first: what is tried first; what the search does not vary stays as it is.
        models: the architectures to choose from, `first`'s among them.
        measure: µs per row of an untrained student.
        roles: as for `StudentLearner`.
    """
    config = context.config
    study = _study(context)

    def objective(trial: optuna.Trial) -> float:
        _suggest(trial, models)
        student = student_of(trial.params, first)
        cost = measure(student)
        trial.set_user_attr("cost_us_per_row", cost)
        if cost > config.student_cap_us_per_row:
            return _BEYOND_CAP - cost
        try:
            return _trained_score(context, student, roles)
        except TrainingError as e:  # it diverged, as a large learning rate may
            raise optuna.TrialPruned(str(e)) from e

    while (done := len(_ended(study))) < config.student_search.trials:
        if not done and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):
            study.enqueue_trial(parameters_of(first))
        study.sampler = _sampler(config, done)
        study.optimize(objective, n_trials=1)
    tried = [
        Candidate(student_of(trial.params, first), trial.user_attrs["cost_us_per_row"], trial.value)
        for trial in _ended(study)
        if trial.value is not None
    ]
    if not tried:
        raise TrainingError(
            f"none of the {config.student_search.trials} students that were tried could be "
            "trained; lower student.optimizer.learning_rate or set student_search.trials to 0."
        )
    return sorted(tried, key=lambda candidate: candidate.score or 0.0, reverse=True)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to a score, and those without one that diverged."""
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return list(study.get_trials(states=states))


def _study(context: StageContext) -> optuna.Study:
    """The search, kept in a journal beside the stage's checkpoints."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    context.checkpoints.mkdir(parents=True, exist_ok=True)
    journal = optuna.storages.journal.JournalFileBackend(str(context.checkpoints / _JOURNAL))
    return optuna.create_study(
        study_name="student",
        direction="maximize",
        storage=optuna.storages.JournalStorage(journal),
        load_if_exists=True,
    )


def _sampler(config: RunConfig, done: int) -> optuna.samplers.BaseSampler:
    """What suggests the next trial, with a seed of its own: a search that was killed goes on with
    new draws, and not with those it began with."""
    options = config.student_search
    seed = int(np.random.default_rng([config.seed, done]).integers(2**32))
    if options.method == "genetic":
        population = max(options.trials // 4, 2)
        return optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
    return optuna.samplers.TPESampler(seed=seed)


def _suggest(trial: optuna.Trial, models: Sequence[str]) -> None:
    trial.suggest_categorical("model", models)
    trial.suggest_int("log2_dim", *_DIM)
    trial.suggest_int("log2_width", *_WIDTH)
    trial.suggest_int("layers", *_LAYERS)
    trial.suggest_float("dropout", *_DROPOUT, step=_DROPOUT_STEP)
    trial.suggest_float("learning_rate", *_LEARNING_RATE, log=True)


def parameters_of(student: LearnerConfig) -> dict[str, Any]:
    """The point of the search space that is nearest to a student."""

    def within(value: float, bounds: tuple[float, float]) -> float:
        return min(max(value, bounds[0]), bounds[1])

    def log2(value: int, bounds: tuple[int, int]) -> int:
        return round(within(math.log2(max(value, 1)), bounds))

    dropout = within(student.dropout or 0.0, _DROPOUT)
    return {
        "model": student.model,
        "log2_dim": log2(student.embedding_dim, _DIM),
        "log2_width": log2(max(student.hidden_units, default=1), _WIDTH),
        "layers": int(within(len(student.hidden_units), _LAYERS)),
        "dropout": round(dropout / _DROPOUT_STEP) * _DROPOUT_STEP,
        "learning_rate": within(student.optimizer.learning_rate, _LEARNING_RATE),
    }


def student_of(parameters: Mapping[str, Any], first: LearnerConfig) -> LearnerConfig:
    """The student at a point of the search space; every hidden layer has half the width of the one
    below it."""
    width = 2 ** parameters["log2_width"]
    rate = {"learning_rate": parameters["learning_rate"]}
    return first.model_copy(
        update={
            "model": parameters["model"],
            "embedding_dim": 2 ** parameters["log2_dim"],
            "hidden_units": tuple(width >> layer for layer in range(parameters["layers"])),
            "dropout": parameters["dropout"],
            "optimizer": first.optimizer.model_copy(update=rate),
        }
    )


def _trained_score(context: StageContext, student: LearnerConfig, roles: RunConfig | None) -> float:
    """How near a student comes to its teacher in a few epochs of logged rows."""
    config = context.config
    plain = config.distill.model_copy(
        update={
            "augmented_per_row": 0.0,
            "follow_weakness": False,
            "generations": 1,
            "peers": PeersConfig(),
            "faithful": FaithfulConfig(below=0),
        }
    )
    shorter = {"max_epochs": config.student_search.epochs, "snapshots": 0}
    optimizer = student.optimizer.model_copy(update=shorter)
    with tempfile.TemporaryDirectory() as folder:
        place = replace(
            context,
            config=config.model_copy(update={"distill": plain}),
            checkpoints=Path(folder),
            progress=lambda _: None,
        )
        short = student.model_copy(update={"optimizer": optimizer})
        _, report = StudentLearner(place, short, roles).train()
    return report.best_score
