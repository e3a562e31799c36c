"""Bayesian matrix factorisation of users and items, by what they have met.

The posterior mean of `dynens.models.factors` over the draws of a Gibbs sampler: a mean of products
of vectors, which is one product of somewhat longer ones. As an autoencoder (`autorec`) it is served
as two looked-up vectors; it errs elsewhere, as it integrates over what it does not know. What other
fields add to a row (`dynens.models.effects`) is drawn beside them, so that where and when something
was shown is not taken for taste.

Rows are heard by their grade, or by their label alone where there is none (a probit model). The
last draws that count are those after which validation rows are ranked best.
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
from dynens.batch import EncodedBatch, FieldPair
from dynens.config.learner import LearnerConfig
from dynens.errors import TrainingError
from dynens.layers.effects import FieldEffects
from dynens.layers.products import PairProduct, Table
from dynens.models.base import (
    PLAINLY,
    CurvePoint,
    FitOptions,
    FitProgress,
    FitReport,
    is_time_up,
    validation_score,
)
from dynens.models.checkpoints import CHECKPOINT, save_tensors
from dynens.models.defaults import resolve_config
from dynens.models.effects import other_fields
from dynens.models.gibbs import Posterior, Sampler, heard_rows, vector_length
from dynens.models.net_learner import WEIGHTS_FILE
from dynens.models.optim import reproducible
from dynens.models.pairs import LONGEST_PRODUCT, PairLearner, ScoredRows
from dynens.models.settings import save_settings
from dynens.run import intact, write_atomically

_SWEEPS_PER_POINT = 10
# Points without a better one that end the training.
_PATIENCE = 4
# Of what the values of a column of `ids` add, in the saved file.
_EFFECT = "effect_"


@dataclass
class Course:
    """How the sampling has gone so far, and what it came to where validation liked it best."""

    curve: list[CurvePoint] = field(default_factory=list)
    best: int = 0
    posterior: Posterior | None = None
    seconds: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing has been better for long."""
        return len(self.curve) - self.best > _PATIENCE

    def add(self, point: CurvePoint, posterior: Posterior, keep: bool) -> None:
        """Take a point in; its posterior is kept where it is the best or `keep` says so."""
        self.curve.append(point)
        if keep or self.posterior is None or point.score > self.curve[self.best].score:
            self.best, self.posterior = len(self.curve) - 1, posterior

    def state(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {
            "curve": [asdict(point) for point in self.curve],
            "best": self.best,
            "seconds": self.seconds,
            "posterior": None if self.posterior is None else vars(self.posterior),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Course:
        """What `state` gave."""
        curve = [CurvePoint(**point) for point in state["curve"]]
        posterior = state["posterior"]
        kept = None if posterior is None else Posterior(**posterior)
        return cls(curve, state["best"], kept, state.get("seconds", 0.0))


class BMFLearner(PairLearner):
    """A `BaseLearner` of a factorisation's posterior mean."""

    _posterior: Posterior | None = None

    @staticmethod
    def product_width(pair: FieldPair, config: LearnerConfig) -> int:
        return min(LONGEST_PRODUCT, 2 * vector_length(pair, config))

    def fit(self, train: EncodedBatch, valid: EncodedBatch, how: FitOptions = PLAINLY) -> FitReport:
        begun, follow = time.monotonic(), how.follow
        config = resolve_config(self.config, self.layout, len(train))
        last = config.gibbs.sweeps if follow is None else round(follow.best_epoch)
        checkpoint = None if how.checkpoint_dir is None else how.checkpoint_dir / CHECKPOINT
        with reproducible(self.seed, config.num_threads):
            heard = heard_rows(self.layout, config, train, how.unlabelled, self.seed)
            sampler = Sampler(heard, self.pair, config, self.seed)
            course = _resumed(sampler, checkpoint)
            begun -= course.seconds
            is_cut = False
            while sampler.sweep < last and not course.is_over and not is_cut:
                done = max(sampler.sweep, config.gibbs.burn_in)
                sampler.run_to(min(done + _SWEEPS_PER_POINT, last), config.gibbs.burn_in)
                self._posterior = sampler.posterior(self.product_width(self.pair, config))
                point = self._point(sampler.sweep, train, valid)
                if follow is not None:
                    point = follow.followed(len(course.curve), point)
                course.add(point, self._posterior, keep=follow is not None)
                course.seconds = time.monotonic() - begun
                _save(sampler, course, checkpoint)
                is_cut = is_time_up(how.ends_at)
                if how.progress is not None:
                    share = 1.0 if course.is_over or is_cut else sampler.sweep / last
                    how.progress(FitProgress(config.display_name, share, point))
        self.config, self._posterior = config, course.posterior
        best, curve = course.curve[course.best], tuple(course.curve)
        return FitReport(curve, course.seconds, best.epoch, best.valid_auc, best.score, is_cut)

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

    def tables(self) -> tuple[Table, Table]:
        return self._fitted().product

    def _fitted(self) -> Posterior:
        if self._posterior is None:
            raise TrainingError(f"{self.config.display_name} is not fitted; call fit first.")
        return self._posterior

    def _scorer(self) -> ScoredRows:
        fitted = self._fitted()
        others = other_fields(self.layout, self.pair, self.config.fields)
        heard = [field for field in others if field.column in fitted.effects]
        effects = FieldEffects(heard, fitted.effects) if heard else None
        return ScoredRows(PairProduct.of(self.pair, fitted.product), effects)

    def save(self, directory: Path) -> None:
        save_settings(self, directory)
        fitted = self._fitted()
        (left, left_bias), (right, right_bias) = fitted.product
        tensors = {"left": left, "left_bias": left_bias, "right": right, "right_bias": right_bias}
        tensors |= {f"{_EFFECT}{column}": effect for column, effect in fitted.effects.items()}
        arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
        np.savez(directory / WEIGHTS_FILE, **arrays)

    @classmethod
    def load(cls, directory: Path) -> Self:
        learner = cls._with_settings(directory)
        path = directory / WEIGHTS_FILE
        with intact(path), np.load(path, allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
            left, right = ((tensors[s], tensors[f"{s}_bias"]) for s in ("left", "right"))
        effects = {
            int(name.removeprefix(_EFFECT)): effect
            for name, effect in tensors.items()
            if name.startswith(_EFFECT)
        }
        learner._posterior = Posterior((left, right), effects)
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
