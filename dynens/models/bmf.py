"""Bayesian matrix factorisation of users and items, by what they have met.

The posterior mean of `dynens.models.factors` over the draws of a Gibbs sampler: a mean of products
of vectors, which is one product of somewhat longer ones. As an autoencoder (`autorec`) it is served
as two looked-up vectors; it errs elsewhere, as it integrates over what it does not know.

Rows are heard by their grade (±1 without one). The last draws that count are those after which
validation rows are ranked best: where clicks are rare, noise of one size for all rows lets later
ones overfit.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from dynens import metrics
from dynens.batch import EncodedBatch, FieldPair, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.errors import TrainingError
from dynens.layers.products import Table
from dynens.models.base import (
    CurvePoint,
    FitProgress,
    FitReport,
    ProgressCallback,
    validation_score,
)
from dynens.models.defaults import resolve_config
from dynens.models.gibbs import Sampler, heard_rows, vector_length
from dynens.models.net_learner import WEIGHTS_FILE
from dynens.models.optim import reproducible
from dynens.models.pairs import LONGEST_PRODUCT, PairLearner
from dynens.models.training import CHECKPOINT, save_tensors, write_atomically
from dynens.run import intact

_SWEEPS_PER_POINT = 10
# Points without a better one that end the training.
_PATIENCE = 4


@dataclass
class Course:
    """How the sampling has gone so far, and what it came to where validation liked it best."""

    curve: list[CurvePoint] = field(default_factory=list)
    best: int = 0
    tables: tuple[Table, Table] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing has been better for long."""
        return len(self.curve) - self.best > _PATIENCE

    def add(self, point: CurvePoint, tables: tuple[Table, Table], keep: bool) -> None:
        """Take a point in; its tables are kept where it is the best or `keep` says so."""
        self.curve.append(point)
        if keep or self.tables is None or point.score > self.curve[self.best].score:
            self.best, self.tables = len(self.curve) - 1, tables

    def state(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {
            "curve": [asdict(point) for point in self.curve],
            "best": self.best,
            "tables": self.tables,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Course:
        """What `state` gave."""
        curve = [CurvePoint(**point) for point in state["curve"]]
        return cls(curve, state["best"], state["tables"])


class BMFLearner(PairLearner):
    """A `BaseLearner` of a factorisation's posterior mean."""

    _tables: tuple[Table, Table] | None = None

    @staticmethod
    def product_width(pair: FieldPair, config: LearnerConfig) -> int:
        return min(LONGEST_PRODUCT, 2 * vector_length(pair, config))

    def fit(
        self,
        train: EncodedBatch,
        valid: EncodedBatch,
        *,
        unlabelled: EncodedBatch | None = None,
        checkpoint_dir: Path | None = None,
        progress: ProgressCallback | None = None,
        follow: FitReport | None = None,
    ) -> FitReport:
        started = time.monotonic()
        config = resolve_config(self.config, self.layout, len(train))
        last = config.gibbs.sweeps if follow is None else round(follow.best_epoch)
        checkpoint = None if checkpoint_dir is None else checkpoint_dir / CHECKPOINT
        with reproducible(self.seed, config.num_threads):
            heard = heard_rows(self.pair, config, train, unlabelled, self.seed)
            sampler = Sampler(heard, self.pair, config, self.seed)
            course = _resumed(sampler, checkpoint)
            while sampler.sweep < last and not course.is_over:
                done = max(sampler.sweep, config.gibbs.burn_in)
                sampler.run_to(min(done + _SWEEPS_PER_POINT, last), config.gibbs.burn_in)
                self._tables = sampler.tables(self.product_width(self.pair, config))
                point = self._point(sampler.sweep, train, valid)
                if follow is not None:
                    point = follow.followed(len(course.curve), point)
                course.add(point, self._tables, keep=follow is not None)
                _save(sampler, course, checkpoint)
                if progress is not None:
                    share = 1.0 if course.is_over else sampler.sweep / last
                    progress(FitProgress(config.display_name, share, point))
        self.config, self._tables = config, course.tables
        best, seconds = course.curve[course.best], time.monotonic() - started
        return FitReport(tuple(course.curve), seconds, best.epoch, best.valid_auc, best.score)

    def _point(self, sweep: int, train: EncodedBatch, valid: EncodedBatch) -> CurvePoint:
        assert train.labels is not None
        assert valid.labels is not None
        said, told = (metrics.sigmoid(self.predict_logits(rows)) for rows in (train, valid))
        point = CurvePoint(
            epoch=float(sweep),
            train_loss=metrics.logloss(train.labels, said, train.sample_weight),
            valid_auc=metrics.auc(valid.labels, told, valid.sample_weight),
            valid_logloss=metrics.logloss(valid.labels, told, valid.sample_weight),
            learning_rate=math.nan,
        )
        return replace(point, score=validation_score(point))

    def training_logits(
        self, train: EncodedBatch, unlabelled: EncodedBatch | None = None
    ) -> FloatArray:
        del unlabelled
        return self.predict_logits(train)

    def tables(self) -> tuple[Table, Table]:
        if self._tables is None:
            raise TrainingError(f"{self.config.display_name} is not fitted; call fit first.")
        return self._tables

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (left, left_bias), (right, right_bias) = self.tables()
        np.savez(
            directory / WEIGHTS_FILE,
            left=left.numpy(),
            left_bias=left_bias.numpy(),
            right=right.numpy(),
            right_bias=right_bias.numpy(),
        )
        self._save_settings(directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        learner = cls._with_settings(directory)
        path = directory / WEIGHTS_FILE
        with intact(path), np.load(path, allow_pickle=False) as arrays:
            left, right = (
                (torch.from_numpy(arrays[side]), torch.from_numpy(arrays[f"{side}_bias"]))
                for side in ("left", "right")
            )
        learner._tables = left, right
        return learner


def _save(sampler: Sampler, course: Course, checkpoint: Path | None) -> None:
    if checkpoint is not None:
        state = {"sampler": sampler.state(), "course": course.state()}
        write_atomically(checkpoint, lambda path: save_tensors(state, path))


def _resumed(sampler: Sampler, checkpoint: Path | None) -> Course:
    """Go on from a checkpoint, if there is one."""
    if checkpoint is None or not checkpoint.exists():
        return Course()
    with intact(checkpoint):
        state = torch.load(checkpoint, weights_only=True)
        sampler.load_state(state["sampler"])
        return Course.from_state(state["course"])
