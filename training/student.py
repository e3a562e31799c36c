"""The student's stage: what the pool teaches, generation by generation."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from dynens.batch import EncodedBatch
from dynens.config.distill import ScheduleConfig
from dynens.config.learner import LearnerConfig
from dynens.config.run import RunConfig
from dynens.distill.augment import RowSpace, row_space, units_of
from dynens.distill.evidence import departures_tell
from dynens.distill.gating import VoicesTeacher, voices_of
from dynens.distill.hints import TeacherFeatures
from dynens.distill.peers import Exchange
from dynens.distill.teacher import Labeller, RowFactory, StudentTeacher, Teacher
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.views import Views
from dynens.distill.weakness import Weakness
from dynens.ensemble.blend import Logits
from dynens.ensemble.scorer import PoolScorer
from dynens.errors import ConfigError
from dynens.models.base import FitOptions, FitProgress, FitReport
from dynens.models.defaults import default_batch_size, default_embedding_l2, resolve_precision
from dynens.models.net_learner import NetLearner
from dynens.models.network import CTRNetwork
from dynens.models.registry import MODELS, load_learner
from dynens.run import ENSEMBLE_JSON, FIT_REPORT, MODEL_ONNX, read_json, write_json
from training.architecture import student_config, widened
from training.compression import Lessons, asked, compress, within
from training.context import StageContext
from training.inheritance import inherited_tables
from training.stages import (
    best_neural,
    calibrated_learners,
    labels_of,
    pool_logits,
    read_blend,
    teacher_system,
    weights_of,
)
from training.valid_roles import valid_roles


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
        exchange: where this student, one of several peers, meets the others.
        follow: as for `FitOptions`.
    """

    def __init__(
        self,
        context: StageContext,
        config: LearnerConfig,
        roles: RunConfig | None = None,
        exchange: Exchange | None = None,
        follow: FitReport | None = None,
    ) -> None:
        self._context = context
        self._distill = context.config.distill
        self._config = config
        self._roles = roles or context.config
        self._exchange = exchange
        self._follow = follow
        self._data = context.prepared()
        self._unlabelled = self._data.unlabelled
        if self._unlabelled is None:
            self._distill = self._distill.without_unlabelled()
        self._train, self._valid = self._data.split("train"), self._data.split("valid")
        self._stop_rows = self._valid.take(valid_roles(self._roles, self._valid).select)

    @property
    def _may_be_first(self) -> bool:
        """Whether a second student may follow this one."""
        is_decided = self._follow is not None or self._train.soft_labels is not None
        return self._distill.may_be_faithful and not is_decided

    def fit(self) -> NetLearner:
        """Train the student; the one returned saves and exports like any other learner.

        Where labels taught it nothing that its teacher had missed, a second one that never hears
        them takes its place (`distill.faithful`). The one that stays is compressed where the
        configuration asks for that.
        """
        given, parts = self._context, 1 + len(asked(self._distill))
        self._context = replace(given, progress=within(given.progress, 0, parts))
        taught = self
        learner, report = self.train()
        evidence: dict[str, object] = {"departures_tell": None, "faithful": False}
        if self._may_be_first:
            departures = self._departures(learner)
            is_wanted = departures < self._distill.faithful.below
            has_time = self._has_time_for(self._faithful_epochs(), report)
            known = None if math.isnan(departures) else departures
            evidence = {"departures_tell": known, "faithful": is_wanted and has_time}
            if is_wanted and has_time:
                taught = self._faithful()
                learner, report = taught.train()
            elif is_wanted:
                report = replace(report, is_cut=True)
        told = {**report.to_dict(), **evidence}
        if parts > 1:
            learner, reports = compress(learner, taught.lessons(given))
            told["compression"] = {name: r.to_dict() for name, r in reports.items()}
        write_json(given.out / FIT_REPORT, told)
        return learner

    def lessons(self, context: StageContext) -> Lessons:
        """What this student is trained with, for going on in the place of `context`."""
        teaching = replace(self._teaching(), views=self._views())
        return Lessons(context, self._distill, teaching, self._train, self._stop_rows)

    def _departures(self, learner: NetLearner) -> float:
        """How surely the student's departures from its teacher predict labels of `route` rows."""
        run = self._context.run
        blend = read_blend(run, teacher_system(run, self._distill.teacher))
        route = valid_roles(self._roles, self._valid).route
        teacher = blend.logit(pool_logits(run, tuple(blend.weights), "valid"))[route]
        rows = self._valid.take(route)
        student = learner.predict_logits(rows)
        return departures_tell(teacher, student, labels_of(rows), weights_of(rows))

    def _has_time_for(self, epochs: int, first: FitReport) -> bool:
        """Whether there is, if each takes as long as one of the first student's."""
        ends_at = self._context.ends_at
        seconds = epochs * first.seconds / first.curve[-1].epoch
        return ends_at is None or time.time() + seconds <= ends_at

    def _faithful_epochs(self) -> int:
        """For how many epochs a student that hears its teacher alone is trained."""
        options, faithful = self._config.optimizer, self._distill.faithful
        num_rows = len(self._train)
        steps_per_epoch = -(-num_rows // (options.batch_size or default_batch_size(num_rows)))
        epochs = max(faithful.epochs, -(-faithful.least_steps // steps_per_epoch))
        return min(epochs, max(faithful.most_steps // steps_per_epoch, 1), options.max_epochs)

    def _faithful(self) -> StudentLearner:
        """The student that hears its teacher alone, all of whose epochs run."""
        options, faithful = self._config.optimizer, self._distill.faithful
        changed = {
            "schedule": "cosine",
            "learning_rate": faithful.learning_rate,
            "max_epochs": self._faithful_epochs(),
            "embedding_l2": 0.0,
        }
        optimizer = options.model_copy(update=changed)
        return self.without_labels(self._config.model_copy(update={"optimizer": optimizer}))

    def without_labels(self, config: LearnerConfig) -> StudentLearner:
        """A student with these settings to which labels say nothing."""
        context, faithful = self._context, self._distill.faithful
        taught = {"alpha": ScheduleConfig(start=1.0), "reuse": faithful.reuse, "guard": 0.0}
        distill = self._distill.model_copy(update=taught)
        return StudentLearner(
            replace(
                context,
                config=context.config.model_copy(update={"distill": distill}),
                checkpoints=context.checkpoints / "faithful",
                progress=within(context.progress, 1, 2),
            ),
            config,
            self._roles,
            follow=self._follow,
        )

    def train(self) -> tuple[NetLearner, FitReport]:
        """The last of the configured generations, each taught by the one before.

        References:
            Furlanello et al., "Born-Again Neural Networks", ICML 2018 (generations of one width);
            Mirzadeh et al., "Improved Knowledge Distillation via Teacher Assistant", AAAI 2020
            (wider ones before the last).
        """
        if self._distill.peers.count > 1 and self._exchange is None:
            return self._best_of_peers()
        teaching = replace(self._teaching(), peers=self._exchange, views=self._views())
        last = self._distill.generations - 1
        for generation in range(last):
            learner, _ = self._generation(teaching, generation)
            teaching = self._taught_by(learner, teaching)
        return self._generation(teaching, last)

    def _best_of_peers(self) -> tuple[NetLearner, FitReport]:
        """The peer that early stopping likes best; see `training.peers`."""
        from training.peers import train_peers  # here: it starts Ray, which few students need

        context = self._context
        if self._may_be_first:
            context = replace(context, progress=within(context.progress, 0, 2))
        train = partial(_train_peer, context, self._config, self._roles)
        folder, report = train_peers(context.config, train, context.checkpoints)
        learner = load_learner(folder)
        assert isinstance(learner, NetLearner)
        return learner, report

    def _generation(self, teaching: Teaching, generation: int) -> tuple[NetLearner, FitReport]:
        """One student; the generations before the last may be wider, and differ by their seeds."""
        context, distill, data = self._context, self._distill, self._data
        if generation > 0:
            distill = distill.model_copy(update={"gating": False})  # a single teacher
        learner_class = MODELS[self._config.model]
        assert issubclass(learner_class, NetLearner)
        is_last = generation == distill.generations - 1
        config = self._config if is_last else widened(self._config, distill.assistant_width)
        seed = context.config.seed + (0 if is_last else 7919 * (generation + 1))
        if self._exchange is not None:
            seed += 104_729 * self._exchange.peer
        config = self._with_defaults(config, len(self._train))
        learner = learner_class(config, data.layout, data.stats, seed)
        checkpoints = context.checkpoints
        if not is_last:
            checkpoints = checkpoints / f"generation-{generation + 1}"

        progress = context.progress
        if self._may_be_first and self._exchange is None:
            progress = within(progress, 0, 2)
        how = FitOptions(
            checkpoint_dir=checkpoints,
            progress=progress,
            follow=self._follow,
            ends_at=self._ends_at(generation),
        )

        def trainer(network: CTRNetwork, config: LearnerConfig) -> DistillTrainer:
            if network.product is not None:
                width = self._config.product_width
                run = context.run
                taught = read_blend(run, teacher_system(run, distill.teacher))
                tables = inherited_tables(run, context.config, data.layout, taught, width)
                network.product.fill(tables)
            return DistillTrainer(network, config, distill, teaching, seed, how)

        return learner, learner.fit_with(trainer, self._train, self._stop_rows)

    def _ends_at(self, generation: int) -> float | None:
        """When a generation ends, counted from 0; all have equal parts of the stage's time."""
        begun, ends_at = self._context.begun, self._context.ends_at
        if ends_at is None:
            return None
        return begun + (ends_at - begun) * (generation + 1) / self._distill.generations

    def _taught_by(self, learner: NetLearner, before: Teaching) -> Teaching:
        """The teaching of the next generation: the last one's answers in place of the pool's."""
        factory = None
        stop_at = None if before.valid_logits is None else learner.predict_logits(self._stop_rows)
        if before.factory is not None:
            factory = self._made_rows(StudentTeacher(learner), self._weakness(stop_at))
        return Teaching(
            learner.predict_logits(self._train),
            factory,
            features=before.features,
            valid_logits=stop_at,
            views=before.views,
        )

    def _with_defaults(self, config: LearnerConfig, num_rows: int) -> LearnerConfig:
        """Made-up rows count as rows where regularisation scales with them.

        Tables learn at the rate of all else: answers tell more of an id than labels do.
        """
        distill, options = self._distill, config.optimizer
        updates: dict[str, float] = {}
        if distill.makes_rows and options.embedding_l2 is None:
            num_rows = round(num_rows * (1 + distill.augmented_per_row))
            updates["embedding_l2"] = default_embedding_l2(num_rows)
        if options.embedding_rate_factor is None:
            updates["embedding_rate_factor"] = 1.0
        return config.model_copy(update={"optimizer": options.model_copy(update=updates)})

    def _teaching(self) -> Teaching:
        """Teacher logits of the training rows, and the sources of all else the student learns."""
        run, distill = self._context.run, self._distill
        blend = read_blend(run, teacher_system(run, distill.teacher))
        names = tuple(blend.weights)
        raw = pool_logits(run, names, "train")
        features = self._hints()
        stop_at = None
        if distill.stop_on == "teacher" and (distill.softens_labels or distill.makes_rows):
            select = valid_roles(self._roles, self._valid).select
            stop_at = blend.logit(pool_logits(run, names, "valid"))[select]
        weakness = self._weakness(stop_at)
        if not distill.gating:
            factory = self._factory(names, lambda scorer: Teacher(scorer, blend), weakness)
            return Teaching(blend.logit(raw), factory, features=features, valid_logits=stop_at)
        voices = voices_of(blend, calibrated_learners(run, names, self._valid, self._roles))
        factory = self._factory(names, lambda scorer: VoicesTeacher(scorer, voices), weakness)
        return Teaching(voices.logits(raw), factory, voices.prior, features, stop_at)

    def _factory(
        self,
        names: tuple[str, ...],
        make_teacher: Callable[[PoolScorer], Labeller],
        weakness: Weakness | None,
    ) -> RowFactory | None:
        if not self._distill.makes_rows:
            return None
        paths = {name: self._context.run.learner(name) / MODEL_ONNX for name in names}
        teacher = make_teacher(PoolScorer(paths, self._distill.labelling_threads))
        return self._made_rows(teacher, weakness)

    def _weakness(self, teacher: Logits | None) -> Weakness | None:
        if teacher is None or not self._distill.follow_weakness:
            return None
        return Weakness(self._data.layout, self._stop_rows, teacher, self._train)

    def _made_rows(self, teacher: Labeller, weakness: Weakness | None) -> RowFactory:
        """The source of made-up rows that `teacher` labels."""
        others = None if self._unlabelled is None else in_memory(self._unlabelled)
        return RowFactory(
            teacher,
            in_memory(self._train),
            self._data.stats,
            self._space(),
            self._distill,
            self._context.config.seed,
            weakness,
            others,
        )

    def _space(self) -> RowSpace:
        data = self._data
        encoder = data.encoder
        units = units_of(data.schema.fields, encoder.field_columns(), encoder.dates)
        missing = EncodedBatch(*encoder.empty(1))
        return row_space(data.layout, units, data.id_frequency, missing, encoder.write_made)

    def _views(self) -> Views | None:
        """The two views of items, where the distillation asks for them.

        Raises:
            ConfigError: the table does not have both.
        """
        if self._distill.views == 0:
            return None
        schema = self._data.schema
        keys = {schema.field(name).source for name in schema.key_fields(schema.item_key)}
        views = Views.of(self._space(), keys)
        if views is None:
            raise ConfigError(
                f"distill.views is {self._distill.views} but the table has no item key among its "
                "features, or nothing else of entity item; set item_key and entity, or views to 0."
            )
        return views

    def _hints(self) -> TeacherFeatures | None:
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
        return TeacherFeatures(teacher.networks_[-1], self._train, resolve_precision(self._config))


def _train_peer(
    context: StageContext,
    config: LearnerConfig,
    roles: RunConfig,
    exchange: Exchange,
    folder: Path,
) -> FitReport:
    """Train one of several peers in its worker and save it; the first speaks for all."""
    progress = context.progress if exchange.peer == 0 else _silent
    place = replace(context, checkpoints=folder, progress=progress)
    learner, report = StudentLearner(place, config, roles, exchange).train()
    learner.save(folder)
    return report


def _silent(progress: FitProgress) -> None:
    del progress


def in_memory(batch: EncodedBatch) -> EncodedBatch:
    """The rows of a memory-mapped batch as ordinary arrays."""
    return batch.take(np.arange(len(batch)))
