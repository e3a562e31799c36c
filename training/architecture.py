"""The student's architecture: the first candidate whose exported graph keeps the latency cap, or
the best of a search.

Student and baseline share it, so it is settled before either is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dynens.config.base import validate
from dynens.config.learner import LearnerConfig, ModelName
from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData
from dynens.ensemble.scorer import PoolScorer
from dynens.models.defaults import resolve_config
from dynens.models.net_learner import NetLearner
from dynens.models.registry import MODELS
from dynens.run import RunDirectory, read_json, write_json
from training.context import StageContext
from training.inheritance import with_inheritance

ARCHITECTURE_JSON = "student.json"
_LEAST_DIM = 4
_MOST_FIELDS_IN_PAIRS = 100  # their 5,000 pairs cost tens of µs per row, and minutes to export
_SEARCHED: tuple[ModelName, ...] = ("ipnn", "dnn", "deepfm", "dcnv2")


@dataclass(frozen=True)
class Candidate:
    """An architecture and what its graph costs.

    Attributes:
        config: the architecture.
        cost_us_per_row: 100 candidates of one request, one thread.
        score: of a search, where there was one; higher is better.
    """

    config: LearnerConfig
    cost_us_per_row: float
    score: float | None = None


def candidates(student: LearnerConfig, num_fields: int) -> list[LearnerConfig]:
    """Architectures to try, most accurate first: `student` itself unless its model is "auto".

    Inner products copy a pool's knowledge of pairs best (docs/LEARNERS.md) but grow with the square
    of the number of fields, so that very wide tables need not even measure them; a plain
    perceptron, and then a smaller one, follow.
    """
    if student.model != "auto":
        return [student]
    plain = student.model_copy(update={"model": "dnn"})
    products = [student.model_copy(update={"model": "ipnn"})]
    return [*(products if _takes_pairs(num_fields) else []), plain, _smaller(plain, 2)]


def _takes_pairs(num_fields: int) -> bool:
    return num_fields <= _MOST_FIELDS_IN_PAIRS


def _smaller(config: LearnerConfig, factor: int) -> LearnerConfig:
    return config.model_copy(
        update={
            "embedding_dim": max(config.embedding_dim // factor, _LEAST_DIM),
            "hidden_units": tuple(max(units // factor, 1) for units in config.hidden_units),
        }
    )


def widened(config: LearnerConfig, factor: float) -> LearnerConfig:
    """The same architecture with wider layers and embeddings."""
    units = tuple(max(round(units * factor), 1) for units in config.hidden_units)
    dim = max(round(config.embedding_dim * factor), 1)
    return config.model_copy(update={"hidden_units": units, "embedding_dim": dim})


def choose(measured: list[Candidate], cap_us_per_row: float) -> Candidate:
    """The first candidate within the cap, else the cheapest."""
    for candidate in measured:
        if candidate.cost_us_per_row <= cap_us_per_row:
            return candidate
    return min(measured, key=lambda candidate: candidate.cost_us_per_row)


def choose_architecture(context: StageContext) -> None:
    """Measure the candidates' untrained graphs, search if asked to, and write down the choice."""
    config = context.config
    chosen, measured = settle(context)
    write_json(
        context.out / ARCHITECTURE_JSON,
        {
            "cap_us_per_row": config.student_cap_us_per_row,
            "cost_us_per_row": chosen.cost_us_per_row,
            "config": chosen.config.model_dump(mode="json"),
            "candidates": [
                {
                    "model": c.config.model,
                    "embedding_dim": c.config.embedding_dim,
                    "hidden_units": list(c.config.hidden_units),
                    "cost_us_per_row": c.cost_us_per_row,
                    **({} if c.score is None else {"score": c.score}),
                }
                for c in measured
            ],
        },
    )


def settle(
    context: StageContext, roles: RunConfig | None = None
) -> tuple[Candidate, list[Candidate]]:
    """The student to train, and all that were tried; `roles` as for `StudentLearner`."""
    data, config = context.prepared(), context.config
    num_fields = len(data.layout.fields) + len(data.layout.dense)
    student = with_inheritance(config, data.layout)
    measured = _measure(data, candidates(student, num_fields), config.seed)
    first = choose(measured, config.student_cap_us_per_row)
    if not config.student_search.trials:
        return first, measured
    from training.search import search_student  # here: it trains students, which import this

    models: Sequence[ModelName] = (first.config.model,)
    if config.student.model == "auto":
        models = [model for model in _SEARCHED if model != "ipnn" or _takes_pairs(num_fields)]

    def cost(student: LearnerConfig) -> float:
        return _measure(data, [student], config.seed)[0].cost_us_per_row

    tried = search_student(context, first.config, models, cost, roles)
    return tried[0], tried


def student_config(run: RunDirectory, name: str) -> LearnerConfig:
    """The chosen architecture, under the name of the learner that will have it."""
    path = run.architecture / ARCHITECTURE_JSON
    config = validate(LearnerConfig, read_json(path)["config"], str(path))
    return config.model_copy(update={"name": name})


def _measure(data: PreparedData, configs: list[LearnerConfig], seed: int) -> list[Candidate]:
    train = data.split("train")
    with TemporaryDirectory() as folder:
        paths = {}
        for number, config in enumerate(configs):
            learner_class = MODELS[config.model]
            assert issubclass(learner_class, NetLearner)
            resolved = resolve_config(config, data.layout, len(train))
            learner = learner_class(resolved, data.layout, data.stats, seed)
            learner.networks_ = [learner.build_network(resolved)]
            paths[str(number)] = Path(folder) / f"{number}.onnx"
            learner.export_onnx(paths[str(number)])
        costs = PoolScorer(paths).cost_us_per_row(data.split("valid"), layout=data.layout)
    return [Candidate(config, costs[str(i)]) for i, config in enumerate(configs)]
