"""The learners by name. A new one is one file and one line here."""

from __future__ import annotations

import json
from pathlib import Path

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig
from dynens.models.autorec import AutoRecLearner
from dynens.models.base import BaseLearner, StatSource
from dynens.models.bmf import BMFLearner
from dynens.models.dcnv2 import DCNv2Learner
from dynens.models.deepfm import DeepFMLearner
from dynens.models.dnn import DNNLearner
from dynens.models.finalmlp import FinalMLPLearner
from dynens.models.fm import FMLearner
from dynens.models.ipnn import IPNNLearner
from dynens.models.lr import LRLearner
from dynens.models.masknet import MaskNetLearner
from dynens.models.settings import LEARNER_FILE
from dynens.models.xgboost import XGBoostLearner
from dynens.run import intact

MODELS: dict[str, type[BaseLearner]] = {
    "lr": LRLearner,
    "fm": FMLearner,
    "dnn": DNNLearner,
    "deepfm": DeepFMLearner,
    "dcnv2": DCNv2Learner,
    "ipnn": IPNNLearner,
    "masknet": MaskNetLearner,
    "finalmlp": FinalMLPLearner,
    "autorec": AutoRecLearner,
    "bmf": BMFLearner,
    "xgboost": XGBoostLearner,
}


def build_learner(
    config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
) -> BaseLearner:
    """An untrained learner of `config.model`."""
    return MODELS[config.model](config, layout, stats, seed)


def load_learner(directory: Path) -> BaseLearner:
    """A learner that `save` wrote.

    Raises:
        BundleError: a file is missing or damaged.
    """
    with intact(directory / LEARNER_FILE):
        data = json.loads((directory / LEARNER_FILE).read_text(encoding="utf-8"))
        model = MODELS[data["config"]["model"]]
    return model.load(directory)
