"""FuxiCTR's side of `benchmarks.training_speed`; runs in FuxiCTR's own environment.

Reads commands from stdin, one JSON object a line, and answers each with one line on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import Any

import numpy as np
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn


class DNN(BaseModel):  # type: ignore[misc]
    """FuxiCTR's embedding layer and MLP block."""

    def __init__(self, feature_map: FeatureMap, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(feature_map, embedding_regularizer=options["embedding_l2"], **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, options["embedding_dim"])
        width = options["num_fields"] * options["embedding_dim"]
        self.mlp = MLP_Block(width, list(options["hidden_units"]), output_dim=1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        return {"y_pred": self.output_activation(self.mlp(x))}


class DCNv2(BaseModel):  # type: ignore[misc]
    """The same with a parallel cross network, as in FuxiCTR's model zoo."""

    def __init__(self, feature_map: FeatureMap, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(feature_map, embedding_regularizer=options["embedding_l2"], **kwargs)
        self.embedding_layer = FeatureEmbedding(feature_map, options["embedding_dim"])
        width = options["num_fields"] * options["embedding_dim"]
        self.cross = CrossNetV2(width, options["cross_layers"])
        self.mlp = MLP_Block(width, list(options["hidden_units"]))
        self.output = nn.Linear(width + options["hidden_units"][-1], 1)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        hidden = torch.cat([self.cross(x), self.mlp(x)], dim=1)
        return {"y_pred": self.output_activation(self.output(hidden))}


MODELS = {"dnn": DNN, "dcnv2": DCNv2}


class Peer:
    """One model and its data."""

    def __init__(self, options: dict[str, Any]) -> None:
        torch.set_num_threads(options["threads"])
        torch.manual_seed(0)
        self.options = options
        self.ids = torch.from_numpy(np.load(options["ids"]).astype(np.int64))
        self.labels = torch.from_numpy(np.load(options["labels"]))
        features = FeatureMap("bench", options["folder"])
        for i in range(options["num_fields"]):
            features.features[f"f{i}"] = {
                "type": "categorical",
                "source": "",
                "vocab_size": options["vocabulary"],
                "padding_idx": 0,
            }
        features.labels = ["label"]
        features.num_fields = options["num_fields"]
        features.set_column_index()
        self.model = MODELS[options["model"]](
            features, options, verbose=0, model_root=options["folder"], metrics=["AUC"]
        )
        self.model.compile("adam", "binary_crossentropy", options["learning_rate"])
        self.model.reset_parameters()
        self.model._max_gradient_norm = 10.0
        self.model.train()

    def batch(self, start: int) -> dict[str, Tensor]:
        rows = slice(start, start + self.options["batch_size"])
        inputs = {f"f{i}": self.ids[rows, i] for i in range(self.options["num_fields"])}
        return {**inputs, "label": self.labels[rows]}

    def steps(self, first: int, count: int) -> list[float]:
        """Seconds of each of `count` steps from batch number `first`."""
        seconds = []
        for step in range(first, first + count):
            batch = self.batch(step * self.options["batch_size"])
            started = time.perf_counter()
            self.model.train_step(batch).item()
            seconds.append(time.perf_counter() - started)
        return seconds

    def predict(self, first_row: int) -> list[float]:
        self.model.eval()
        with torch.no_grad():
            parts = [
                self.model(self.batch(start))["y_pred"].flatten()
                for start in range(first_row, len(self.ids), self.options["batch_size"])
            ]
        self.model.train()
        return [float(p) for p in torch.cat(parts)]


def main() -> None:
    # Whatever the library prints must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer: Peer | None = None
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "start":
                peer = Peer({**command["options"], "folder": folder})
                answer: Any = "ready"
            elif command["do"] == "steps":
                assert peer is not None
                answer = peer.steps(command["first"], command["count"])
            else:
                assert peer is not None
                answer = peer.predict(command["first_row"])
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
