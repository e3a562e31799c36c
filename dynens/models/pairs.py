"""Learners of one product of two looked-up vectors, as a rule the user's and the item's."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from dynens.batch import EncodedBatch, FeatureLayout, FieldPair, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.errors import ConfigError
from dynens.layers.effects import FieldEffects
from dynens.layers.products import PairProduct, Table
from dynens.models.base import BaseLearner, StatSource
from dynens.models.net_learner import NO_STATS
from dynens.models.onnx_export import export_module
from dynens.models.settings import load_settings
from dynens.models.training import predict_logits

LONGEST_PRODUCT = 128
"""Of the vectors that are served: on MovieLens-1M a quarter of an autoencoder's length does as
well."""


class ScoredRows(nn.Module):
    """The product of both fields' tables, and what other fields add, as a function of rows."""

    def __init__(self, product: PairProduct, effects: FieldEffects | None = None) -> None:
        super().__init__()
        self.product, self.effects = product, effects

    def forward(self, dense: Tensor, ids: Tensor, context_rows: Tensor | None = None) -> Tensor:
        """(N, D), (N, W) → (N,) logits; `context_rows` as for `InferenceTwin`."""
        del dense
        logits: Tensor = self.product(ids, context_rows)
        return logits if self.effects is None else logits + self.effects(ids, context_rows)


class PairLearner(BaseLearner):
    """What such learners have in common; a subclass trains, saves and loads."""

    def __init__(
        self, config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
    ) -> None:
        del stats
        pair = layout.largest_pair(config.fields)
        if pair is None:
            raise ConfigError(
                f"{config.display_name}: {config.model} needs two fields of one value each, as the "
                "keys of user and item are; choose another model."
            )
        self.config = config
        self.layout = layout
        self.seed = seed
        self.pair: FieldPair = pair

    @staticmethod
    @abstractmethod
    def product_width(pair: FieldPair, config: LearnerConfig) -> int:
        """L, the length of the vectors that `tables` will have."""

    @abstractmethod
    def tables(self) -> tuple[Table, Table]:
        """Vectors (R, L) and biases (R,) of both fields, whose product and sum is the logit but for
        what other fields add."""

    def predict_logits(self, batch: EncodedBatch) -> FloatArray:
        """As `BaseLearner` has it."""
        return predict_logits(self._scorer(), batch)

    def export_onnx(self, path: Path) -> None:
        """As `BaseLearner` has it."""
        export_module(self._scorer(), self.layout, path)

    def _scorer(self) -> ScoredRows:
        return ScoredRows(PairProduct.of(self.pair, self.tables()))

    @classmethod
    def _with_settings(cls, directory: Path) -> Self:
        """One that is not fitted yet, with the settings that `save_settings` wrote."""
        said = load_settings(directory)
        return cls(said.config, said.layout, NO_STATS, said.seed)
