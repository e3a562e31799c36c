"""What a training leaves behind after each epoch, so that another process can go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynens.models.base import CurvePoint

CHECKPOINT = "checkpoint.pt"
CUT = "cut.pt"
"""Of a training whose time was up within an epoch; with more time it goes on from the other one."""
_NUMBERS = ("epoch", "step", "seconds", "finished", "is_cut", "best_epoch")
Weights = dict[str, Tensor]


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        epoch, step: how many are done.
        seconds: that all epochs took, in whatever process.
        finished: whether nothing is left to do.
        is_cut: whether it ended because time was up.
        curve: its validation points.
        best_epoch, best: the point that was kept, and its weights.
        snapshots: members of a snapshot ensemble.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    finished: bool = False
    is_cut: bool = False
    curve: list[CurvePoint] = field(default_factory=list)
    best_epoch: float = 0.0
    best: Weights = field(default_factory=dict)
    snapshots: list[Weights] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As `torch.load` reads it without unpickling classes."""
        return {
            **{name: getattr(self, name) for name in _NUMBERS},
            "curve": [asdict(point) for point in self.curve],
            "best": self.best,
            "snapshots": self.snapshots,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingState:
        """What `to_dict` gave."""
        return cls(**{**data, "curve": [CurvePoint(**point) for point in data["curve"]]})


def save_tensors(data: Any, path: Path) -> None:
    """`torch.save` through a Python file: a full disk then shows as the `OSError` it is."""
    with path.open("wb") as file:
        torch.save(data, file)
