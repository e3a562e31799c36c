"""What every stage of a run is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.data.prepared import PreparedData, open_prepared
from dynens.run import RunDirectory
from dynens.schema import DatasetConfig


@dataclass(frozen=True)
class StageContext:
    """The run, and the places a stage may write to.

    Attributes:
        run: the run directory.
        first: the first pass of the run where this is its second, on validation rows, too.
        dataset: the table.
        config: the run's configuration.
        out: the directory this stage fills (renamed into place when it is complete).
        checkpoints: survives a killed worker; removed when the stage is complete.
        progress: told how far training is (`dynens.models.base.FitProgress`).
        begun: when the stage began, in whatever process, as `time.time` counts seconds.
        ends_at: when training ends, as `time.time` counts seconds; None: when it is done.
    """

    run: RunDirectory
    dataset: DatasetConfig
    config: RunConfig
    out: Path
    checkpoints: Path
    progress: Callable[[Any], None]
    first: RunDirectory | None = None
    begun: float = 0.0
    ends_at: float | None = None

    def prepared(self) -> PreparedData:
        return open_prepared(self.run.data)


def json_progress(path: Path) -> Callable[[Any], None]:
    """A callback that appends each point to a JSON-lines file, for whoever watches."""

    def write(progress: Any) -> None:
        line = {
            "learner": progress.learner,
            "fraction": progress.fraction,
            "epoch": progress.point.epoch,
            "valid_auc": progress.point.valid_auc,
            "train_loss": progress.point.train_loss,
        }
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    return write


def read_settings(settings: Mapping[str, Any], source: str) -> tuple[DatasetConfig, RunConfig]:
    """A run's dataset and configuration, with what this version added at its default.

    Raises:
        ConfigError: they are not those of a run; the sentence names `source`.
    """
    rest = dict(settings)
    dataset = validate(DatasetConfig, rest.pop("data", {}), source)
    return dataset, validate(RunConfig, rest, source)
