"""The settings of a saved learner, beside its arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynens.batch import FeatureLayout
from dynens.config.learner import LearnerConfig
from dynens.models.base import BaseLearner

LEARNER_FILE = "learner.json"


@dataclass(frozen=True)
class Settings:
    """What a learner was made with; `more` is what its kind adds."""

    config: LearnerConfig
    layout: FeatureLayout
    seed: int
    more: dict[str, Any]


def save_settings(learner: BaseLearner, directory: Path, **more: object) -> None:
    """Begin a learner's folder."""
    data = {
        "config": learner.config.model_dump(mode="json"),
        "layout": learner.layout.to_dict(),
        "seed": learner.seed,
        **more,
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / LEARNER_FILE).write_text(json.dumps(data, indent=1), encoding="utf-8")


def load_settings(directory: Path) -> Settings:
    """What `save_settings` wrote."""
    data = json.loads((directory / LEARNER_FILE).read_text(encoding="utf-8"))
    config = LearnerConfig.model_validate(data.pop("config"))
    layout = FeatureLayout.from_dict(data.pop("layout"))
    return Settings(config, layout, data.pop("seed"), data)
