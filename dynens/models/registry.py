"""The learners by name. A new one is one file and one line here."""

from __future__ import annotations

from pathlib import Path

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig
from dynens.models.base import BaseLearner, StatSource
from dynens.models.dcnv2 import DCNv2Learner
from dynens.models.dnn import DNNLearner
from dynens.models.xgboost import XGBoostLearner

MODELS: dict[str, type[BaseLearner]] = {
    "dnn": DNNLearner,
    "dcnv2": DCNv2Learner,
    "xgboost": XGBoostLearner,
}


def build_learner(
    config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
) -> BaseLearner:
    """An untrained learner of `config.model`."""
    return MODELS[config.model](config, layout, stats, seed)


def load_learner(model: str, directory: Path) -> BaseLearner:
    """A learner that `save` wrote."""
    return MODELS[model].load(directory)
