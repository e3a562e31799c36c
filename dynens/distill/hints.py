"""Feature hints: a frozen teacher network whose hidden layers the student learns to predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import MISSING, PADDING, EncodedBatch
from dynens.config.learner import Precision
from dynens.models.batches import TensorBatch, tensor_batch
from dynens.models.network import CTRNetwork
from dynens.models.optim import autocast
from dynens.models.selection import FeatureSelection

# Rows behind mean and standard deviation: their standard errors are below half a percent.
STANDARDISED_ON_ROWS = 65_536
_CHUNK_ROWS = 8192
_MIN_STD = 1e-6


class TeacherFeatures:
    """A trained network's standardised hidden layers, f_t in the hint loss, batch by batch.

    Every feature has mean 0 and standard deviation 1 over training rows (up to
    `STANDARDISED_ON_ROWS` of them, evenly spaced), so that a hint weight means the same on every
    table and for every teacher. A feature that never varies is 0. Statistics of ids are the rows'
    own leakage-free ones, as when the teacher was trained.

    Args:
        network: the teacher; frozen here and left in evaluation mode.
        train: the training rows.
        precision: arithmetic of the teacher's pass.
    """

    def __init__(
        self, network: CTRNetwork, train: EncodedBatch, precision: Precision = "fp32"
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self._precision = precision
        self.dims = network.hidden_dims
        self._mean, self._scale = self._moments(train)

    def to(self, device: torch.device) -> None:
        """Move it to where the student trains."""
        self._network.to(device)
        self._mean, self._scale = self._mean.to(device), self._scale.to(device)

    def __call__(self, batch: TensorBatch) -> tuple[Tensor, ...]:
        """(B, H_k) float32 of every hidden layer, the last one last."""
        return torch.split((self._raw(batch) - self._mean) * self._scale, list(self.dims), dim=1)

    def _raw(self, batch: TensorBatch) -> Tensor:
        network = self._network
        with torch.no_grad(), autocast(self._precision, batch.ids.device):
            inputs = network.inputs(batch.dense, batch.ids, batch.stats)
            return torch.cat([part.float() for part in network.head.hidden(inputs)], dim=1)

    def _moments(self, train: EncodedBatch) -> tuple[Tensor, Tensor]:
        step = max(len(train) // STANDARDISED_ON_ROWS, 1)
        rows = np.arange(0, len(train), step)
        total = square = torch.zeros(1, dtype=torch.float64)
        for start in range(0, len(rows), _CHUNK_ROWS):
            batch = tensor_batch(train, rows[start : start + _CHUNK_ROWS])
            features = self._raw(batch).double()
            total = total + features.sum(dim=0)
            square = square + features.square().sum(dim=0)
        mean = total / len(rows)
        std = (square / len(rows) - mean.square()).clamp(min=0).sqrt()
        scale = torch.where(std > _MIN_STD, 1 / std, torch.zeros_like(std))
        return mean.float(), scale.float()


def masked(
    batch: TensorBatch, selection: FeatureSelection, share: float, rng: np.random.Generator
) -> TensorBatch:
    """The rows with features missing at random, each with probability `share`.

    A field then holds the id `MISSING` as where a raw value is missing, a dense column its mean, 0.
    Statistics are left to the frozen tables, which know the encodings of a missing value.

    Args:
        batch: B rows.
        selection: the features that may go missing.
        share: in [0, 1].
        rng: draws which do.
    """
    rows, device = len(batch), batch.ids.device
    dense, ids = batch.dense.clone(), batch.ids.clone()
    columns = list(selection.dense_columns)
    gone = torch.from_numpy(rng.random((rows, len(columns))) < share).to(device)
    dense[:, columns] = dense[:, columns].masked_fill(gone, 0.0)
    widths = torch.tensor([field.width for field in selection.fields], dtype=torch.int64)
    gone = torch.from_numpy(rng.random((rows, len(widths))) < share)
    gone = gone.repeat_interleave(widths, dim=1).to(device)
    empty = [MISSING if k == 0 else PADDING for f in selection.fields for k in range(f.width)]
    columns = list(selection.id_columns)
    missing = torch.tensor(empty, dtype=ids.dtype, device=device)
    ids[:, columns] = torch.where(gone, missing, ids[:, columns])
    return replace(batch, dense=dense, ids=ids, stats=None)


class HintAdapter(nn.Module):
    """R in the hint loss: the linear map from the student's features to the teacher's.

    Trained beside the student, no part of it afterwards.
    """

    def __init__(self, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(student_dim, teacher_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(B, H_s) → (B, H_t)."""
        adapted: Tensor = self.linear(features)
        return adapted


def hint_distance(adapted: Tensor, hints: Tensor) -> Tensor:
    """‖f_t - R(f_s)‖² / H per row, the mean over features.

    With standardised hints, predicting their mean costs 1 on average, whatever H is.

    Args:
        adapted, hints: (B, H).

    Returns:
        (B,) values ≥ 0.

    References:
        Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3, up to the factor. The
        paper trains the guided layers on the hints first and distils afterwards; here both terms
        are minimised together.
    """
    return (hints - adapted).square().mean(dim=1)
