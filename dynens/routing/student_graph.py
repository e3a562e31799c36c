"""The student as served: logit, calibrated probability and difficulty from one graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch, FeatureLayout
from dynens.ensemble.blend import Blend
from dynens.layers.embeddings import FlatIndex
from dynens.models.batches import prediction_batches
from dynens.models.network import CTRNetwork
from dynens.models.onnx_export import export_module
from dynens.models.twin import InferenceTwin
from dynens.routing.difficulty import NUM_RARITY, Difficulty

Array = npt.NDArray[np.float32]


class Rarity(nn.Module):
    """Mean and minimum over fields of log(1 + training frequency of the field's ids)."""

    log_counts: Tensor

    def __init__(self, layout: FeatureLayout, id_counts: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.index = FlatIndex(layout.fields)
        table = torch.from_numpy(np.log1p(np.asarray(id_counts, dtype=np.float32)))
        self.register_buffer("log_counts", table.unsqueeze(1))

    def forward(self, ids: Tensor) -> Tensor:
        """(N, W) ids → (N, 2)."""
        if self.index.num_fields == 0:
            return self.log_counts.new_zeros((1, NUM_RARITY)).expand(ids.shape[0], -1)
        vectors = torch.nn.functional.embedding(self.index.rows(ids), self.log_counts)
        per_field = self.index.pool(vectors, ids).squeeze(2)
        return torch.stack([per_field.mean(dim=1), per_field.min(dim=1).values], dim=1)


class StudentTrunk(nn.Module):
    """What the router builds on: the student's logit, its last hidden layer and id rarity."""

    def __init__(
        self, network: CTRNetwork, layout: FeatureLayout, id_counts: npt.NDArray[np.int64]
    ) -> None:
        super().__init__()
        self.network = InferenceTwin(network)
        self.rarity = Rarity(layout, id_counts)

    def forward(
        self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(N, D), (N, W) → logit (N,), hidden (N, H), rarity (N, 2)."""
        head = self.network.head
        inputs = self.network.inputs(dense, ids, context_rows)
        features = head.features(inputs)
        return head.score(features, inputs), features, self.rarity(ids)

    def outputs(self, batch: EncodedBatch) -> tuple[Array, Array, Array]:
        """The three outputs of every row of `batch`, as arrays."""
        with torch.inference_mode():
            parts = [self(dense, ids) for _, dense, ids in prediction_batches(batch)]
        logit, hidden, rarity = (
            np.concatenate([np.asarray(p.numpy()) for p in column])
            for column in zip(*parts, strict=True)
        )
        return logit, hidden, rarity


class StudentGraph(nn.Module):
    """(N, D), (N, W) → logit, calibrated probability and difficulty, each (N,)."""

    def __init__(self, trunk: StudentTrunk, easy: Blend, difficulty: Difficulty) -> None:
        super().__init__()
        self.trunk = trunk
        self.scale = easy.weights["student"]
        self.bias = easy.bias
        self.difficulty = difficulty

    def forward(
        self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        logit, hidden, rarity = self.trunk(dense, ids, context_rows)
        probability = torch.sigmoid(self.scale * logit + self.bias)
        return logit, probability, self.difficulty(logit, hidden, rarity)


def export_student(graph: StudentGraph, layout: FeatureLayout, path: Path) -> None:
    """Write the served student: outputs `logit`, `probability`, `difficulty`."""
    export_module(graph, layout, path, outputs=("logit", "probability", "difficulty"))
