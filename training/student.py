"""The student's stage: what the pool teaches, generation by generation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData
from dynens.distill.augment import row_space
from dynens.distill.gating import VoicesTeacher, voices_of
from dynens.distill.hints import TeacherFeatures
from dynens.distill.teacher import Labeller, RowFactory, Teacher
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.weakness import Weakness
from dynens.ensemble.blend import Logits
from dynens.ensemble.scorer import PoolScorer
from dynens.models.base import FitReport
from dynens.models.defaults import default_embedding_l2
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.registry import MODELS, load_learner
from dynens.run import RunDirectory, read_json, write_json
from training.architecture import student_config
from training.context import StageContext
from training.stages import (
    ENSEMBLE_JSON,
    FIT_REPORT,
    MODEL_ONNX,
    calibrated_learners,
    pool_logits,
    read_blend,
    valid_roles,
)


def train_student(context: StageContext) -> None:
    """Distil the pool into the student."""
    learner = StudentLearner(context, student_config(context.run, "student")).fit()
    learner.save(context.out)
    learner.export_onnx(context.out / MODEL_ONNX)


class StudentLearner:
    """Builds the student of a run: the configured architecture trained by distillation.

    Args:
        context: the stage's; `context.config.seed` seeds the training.
        config: the student's architecture and optimiser.
        roles: the configuration whose validation roles apply; None: the context's own. A study
            that varies the seed keeps the roles of the run whose pool it distils.
    """

    def __init__(
        self, context: StageContext, config: LearnerConfig, roles: RunConfig | None = None
    ) -> None:
        self._context = context
        self._config = config
        self._roles = roles or context.config

    def fit(self) -> NetLearner:
        """Train every generation; returns the last, which saves and exports like any other.

        References:
            Furlanello et al., "Born-Again Neural Networks", ICML 2018 (generations of one width);
            Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", AAAI 2020
            (wider ones before the last).
        """
        data = self._context.prepared()
        train, valid = data.split("train"), data.split("valid")
        select = valid_roles(self._roles, valid).select
        teaching = self._teaching(data, train, valid, select)
        last = self._context.config.distill.generations - 1
        for generation in range(last):
            learner, _ = self._generation(data, teaching, select, generation)
            teaching = self._taught_by(learner, data, train, valid.take(select), teaching)
        learner, report = self._generation(data, teaching, select, last)
        write_json(self._context.out / FIT_REPORT, report.to_dict())
        return learner

    def _generation(
        self,
        data: PreparedData,
        teaching: Teaching,
        select: npt.NDArray[np.bool_],
        generation: int,
    ) -> tuple[NetLearner, FitReport]:
        """One student; the generations before the last may be wider, and differ by their seeds."""
        context, distill = self._context, self._context.config.distill
        if generation > 0:
            distill = distill.model_copy(update={"gating": False})  # a single teacher
        learner_class = MODELS[self._config.model]
        assert issubclass(learner_class, NetLearner)
        is_last = generation == distill.generations - 1
        config = self._config if is_last else widened(self._config, distill.assistant_width)
        seed = context.config.seed + (0 if is_last else 7919 * (generation + 1))
        train, valid = data.split("train"), data.split("valid")
        config = self._with_made_rows(config, len(train))
        learner = learner_class(config, data.layout, data.stats, seed)
        checkpoints = context.checkpoints
        if not is_last:
            checkpoints = checkpoints / f"generation-{generation + 1}"

        def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
            return DistillTrainer(
                network, config, distill, teaching, seed, checkpoints, context.progress
            )

        return learner, learner.fit_with(trainer, train, valid.take(select))

    def _taught_by(
        self,
        learner: NetLearner,
        data: PreparedData,
        train: EncodedBatch,
        stop_rows: EncodedBatch,
        before: Teaching,
    ) -> Teaching:
        """The teaching of the next generation: the last one's answers in place of the pool's."""
        factory = None
        stop_at = None if before.valid_logits is None else learner.predict_logits(stop_rows)
        if before.factory is not None:
            weakness = self._weakness(data, train, stop_rows, stop_at)
            factory = self._made_rows(data, train, StudentTeacher(learner), weakness)
        return Teaching(
            learner.predict_logits(train), factory, features=before.features, valid_logits=stop_at
        )

    def _with_made_rows(self, config: LearnerConfig, num_rows: int) -> LearnerConfig:
        """Made-up rows count as rows where regularisation scales with them."""
        distill = self._context.config.distill
        if not distill.makes_rows or config.optimizer.embedding_l2 is not None:
            return config
        strength = default_embedding_l2(round(num_rows * (1 + distill.augmented_per_row)))
        optimizer = config.optimizer.model_copy(update={"embedding_l2": strength})
        return config.model_copy(update={"optimizer": optimizer})

    def _teaching(
        self,
        data: PreparedData,
        train: EncodedBatch,
        valid: EncodedBatch,
        select: npt.NDArray[np.bool_],
    ) -> Teaching:
        """Teacher logits of the training rows, and the sources of all else the student learns."""
        run, distill = self._context.run, self._context.config.distill
        blend = read_blend(run, teacher_system(run, distill.teacher))
        names = tuple(blend.weights)
        raw = pool_logits(run, names, "train")
        features = self._hints(train)
        stop_at = None
        if distill.stop_on == "teacher" and (distill.softens_labels or distill.makes_rows):
            stop_at = blend.logit(pool_logits(run, names, "valid"))[select]
        weakness = self._weakness(data, train, valid.take(select), stop_at)
        if not distill.gating:
            factory = self._factory(
                data, train, names, lambda scorer: Teacher(scorer, blend), weakness
            )
            return Teaching(blend.logit(raw), factory, features=features, valid_logits=stop_at)
        voices = voices_of(blend, calibrated_learners(run, names, valid, self._roles))
        factory = self._factory(
            data, train, names, lambda scorer: VoicesTeacher(scorer, voices), weakness
        )
        return Teaching(voices.logits(raw), factory, voices.prior, features, stop_at)

    def _factory(
        self,
        data: PreparedData,
        train: EncodedBatch,
        names: tuple[str, ...],
        make_teacher: Callable[[PoolScorer], Labeller],
        weakness: Weakness | None,
    ) -> RowFactory | None:
        distill = self._context.config.distill
        if not distill.makes_rows:
            return None
        paths = {name: self._context.run.learner(name) / MODEL_ONNX for name in names}
        teacher = make_teacher(PoolScorer(paths, distill.labelling_threads))
        return self._made_rows(data, train, teacher, weakness)

    def _weakness(
        self,
        data: PreparedData,
        train: EncodedBatch,
        stop_rows: EncodedBatch,
        teacher: Logits | None,
    ) -> Weakness | None:
        if teacher is None or not self._context.config.distill.follow_weakness:
            return None
        return Weakness(data.layout, stop_rows, teacher, train)

    def _made_rows(
        self,
        data: PreparedData,
        train: EncodedBatch,
        teacher: Labeller,
        weakness: Weakness | None,
    ) -> RowFactory:
        """The source of made-up rows that `teacher` labels."""
        run_config = self._context.config
        entities = {field.name: field.entity for field in data.schema.fields}
        space = row_space(data.layout, entities, data.id_frequency)
        table = in_memory(train)
        return RowFactory(
            teacher, table, data.stats, space, run_config.distill, run_config.seed, weakness
        )

    def _hints(self, train: EncodedBatch) -> TeacherFeatures | None:
        """The network that gives hints: the configured one, or the best neural one on `select`."""
        run, config = self._context.run, self._context.config
        if not config.distill.needs_teacher_features:
            return None
        name = config.distill.hints.learner
        if name is None:
            scores = read_json(run.ensemble / ENSEMBLE_JSON)["select_auc"]
            name = best_neural(config, scores)
        teacher = load_learner(run.learner(name))
        assert isinstance(teacher, NetLearner)
        return TeacherFeatures(teacher.networks_[-1], train, self._config.optimizer.precision)


@dataclass(frozen=True)
class StudentTeacher:
    """A trained student that labels the made-up rows of the next generation."""

    learner: NetLearner

    def logits(self, batch: EncodedBatch) -> Logits:
        """(B,) float32."""
        return self.learner.predict_logits(batch)


def widened(config: LearnerConfig, factor: float) -> LearnerConfig:
    """The same architecture with wider layers and embeddings."""
    units = tuple(max(round(units * factor), 1) for units in config.hidden_units)
    dim = max(round(config.embedding_dim * factor), 1)
    return config.model_copy(update={"hidden_units": units, "embedding_dim": dim})


def teacher_system(run: RunDirectory, teacher: str) -> str:
    """The system that teaches under a setting of `distill.teacher`."""
    if teacher == "auto":
        scores = read_json(run.ensemble / ENSEMBLE_JSON)["route_auc"]
        better = (scores["static_ensemble"] or 0.0) > (scores["full_pool"] or 0.0)
        return "static_ensemble" if better else "full_pool"
    return {"pool": "full_pool", "ensemble": "static_ensemble"}[teacher]


def best_neural(config: RunConfig, scores: dict[str, float | None]) -> str:
    """The neural learner of the pool with the best AUC (an undefined one counts as the worst)."""
    neural = [name for name, c in config.learners.items() if c.model != "xgboost"]
    return max(neural, key=lambda name: scores[name] or 0.0)


def in_memory(batch: EncodedBatch) -> EncodedBatch:
    """The rows of a memory-mapped batch as ordinary arrays."""
    return batch.take(np.arange(len(batch)))
