"""`NetLearner`: a neural learner is a head class plus everything here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray, num_flat_rows
from dynens.config.learner import LearnerConfig
from dynens.models.base import PLAINLY, BaseLearner, FitOptions, FitReport, StatSource
from dynens.models.defaults import resolve_config
from dynens.models.network import CTRNetwork, HeadClass
from dynens.models.onnx_export import export_module
from dynens.models.optim import reproducible
from dynens.models.settings import load_settings, save_settings
from dynens.models.training import Trainer, predict_logits
from dynens.models.twin import InferenceTwin, MeanLogits
from dynens.run import intact

WEIGHTS_FILE = "weights.npz"


class SavedStats:
    """The statistics' flat table as a saved learner carries it."""

    def __init__(self, table: FloatArray, columns: tuple[str, ...]) -> None:
        self.table = table
        self.columns = columns


NO_STATS = SavedStats(np.zeros((0, 2), np.float32), ())
"""Of learners that make nothing of statistics."""


class NetLearner(BaseLearner):
    """A `BaseLearner` over `CTRNetwork`; subclasses name their head.

    After `fit`, `networks_` holds the network, or the members of a snapshot ensemble, whose
    logits are averaged.
    """

    head_class: ClassVar[HeadClass]

    def __init__(
        self, config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
    ) -> None:
        self.config = config
        self.layout = layout
        self.stats = stats
        self.seed = seed
        self.networks_: list[CTRNetwork] = []

    def build_network(self, config: LearnerConfig) -> CTRNetwork:
        """A fresh network, initialised from torch's current random state."""
        return CTRNetwork(self.layout, config, self.head_class, self.stats)

    def fit(self, train: EncodedBatch, valid: EncodedBatch, how: FitOptions = PLAINLY) -> FitReport:
        return self.fit_with(
            lambda network, config: Trainer(network, config, self.seed, how), train, valid
        )

    def fit_with(
        self,
        make_trainer: Callable[[CTRNetwork, LearnerConfig], Trainer],
        train: EncodedBatch,
        valid: EncodedBatch,
    ) -> FitReport:
        """`fit` with another training loop: distillation brings its own `Trainer`."""
        config = resolve_config(self.config, self.layout, len(train))
        with reproducible(self.seed, config.num_threads):
            network = self.build_network(config)
            network.fit_stats(train.stats)
            trainer = make_trainer(network.to(config.device), config)
            report = trainer.fit(train, valid)
            snapshots = [self.network_with(config, w) for w in trainer.state.snapshots]
        self.take(config, snapshots or [network.cpu()], train)
        return report

    def take(self, config: LearnerConfig, networks: list[CTRNetwork], train: EncodedBatch) -> None:
        """Become what a training with the resolved `config` came to on `train`, whose rows tell
        which values nothing was learnt of."""
        self.config, self.networks_ = config, networks
        for network in networks:
            network.fill_unseen(train.ids)

    def predict_logits(self, batch: EncodedBatch) -> FloatArray:
        return predict_logits(self._scorer(), batch)

    def save(self, directory: Path) -> None:
        columns = list(self.stats.columns)
        save_settings(self, directory, stats_columns=columns, members=len(self.networks_))
        arrays = {
            f"{member}/{name}": value.numpy()
            for member, network in enumerate(self.networks_)
            for name, value in network.state_dict().items()
        }
        np.savez(directory / WEIGHTS_FILE, **arrays)

    @classmethod
    def load(cls, directory: Path) -> Self:
        said = load_settings(directory)
        # The networks' own buffers carry the statistics; this only gives the table's shape.
        num_rows = num_flat_rows(said.layout.fields)
        stats = SavedStats(np.zeros((num_rows, 2), np.float32), tuple(said.more["stats_columns"]))
        learner = cls(said.config, said.layout, stats, said.seed)
        path = directory / WEIGHTS_FILE
        with intact(path), np.load(path, allow_pickle=False) as arrays:
            for member in range(said.more["members"]):
                prefix = f"{member}/"
                weights = {
                    name.removeprefix(prefix): torch.from_numpy(arrays[name])
                    for name in arrays.files
                    if name.startswith(prefix)
                }
                learner.networks_.append(learner.network_with(said.config, weights))
        return learner

    def export_onnx(self, path: Path) -> None:
        twins = [InferenceTwin(network) for network in self.networks_]
        export_module(twins[0] if len(twins) == 1 else MeanLogits(twins), self.layout, path)

    def _scorer(self) -> nn.Module:
        return self.networks_[0] if len(self.networks_) == 1 else MeanLogits(self.networks_)

    def network_with(self, config: LearnerConfig, weights: Mapping[str, Tensor]) -> CTRNetwork:
        """One with the weights of a state."""
        with torch.random.fork_rng(devices=[]):
            network = self.build_network(config)
        network.load_state_dict(weights)
        return network.eval()
