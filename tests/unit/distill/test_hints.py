"""Hints: the teacher's features are standardised, frozen and those of the batch's rows."""

import numpy as np
import pytest
import torch

from dynens.batch import MISSING, PADDING, EncodedBatch
from dynens.config.learner import LearnerConfig
from dynens.distill import hints
from dynens.distill.hints import HintAdapter, TeacherFeatures, hint_distance, masked
from dynens.models.batches import tensor_batch
from dynens.models.dcnv2 import DCNv2Head
from dynens.models.defaults import resolve_config
from dynens.models.network import CTRNetwork
from dynens.models.selection import select_features
from tests.unit.models.tables import tiny_table

TABLE = tiny_table(rows=400)


def teacher_network() -> CTRNetwork:
    config = LearnerConfig(model="dcnv2", embedding_dim=4, hidden_units=(8,), dropout=0.5)
    torch.manual_seed(0)
    network = CTRNetwork(
        TABLE.layout, resolve_config(config, TABLE.layout, 400), DCNv2Head, TABLE.stats
    )
    network.fit_stats(TABLE.train.stats)
    return network


def features_of(train: EncodedBatch, rows: np.ndarray, network: CTRNetwork) -> np.ndarray:
    return TeacherFeatures(network, train, "fp32")(tensor_batch(train, rows))[-1].numpy()


def test_features_have_mean_zero_and_deviation_one_over_the_training_rows() -> None:
    rows = np.arange(400)
    hint = features_of(TABLE.train, rows, teacher_network())
    varies = hint.std(axis=0) > 0
    assert varies.any()
    assert hint.mean(axis=0) == pytest.approx(0.0, abs=1e-3)
    assert hint.std(axis=0)[varies] == pytest.approx(1.0, abs=1e-3)


def test_moments_of_chunks_and_of_evenly_spaced_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "STANDARDISED_ON_ROWS", 100)
    monkeypatch.setattr(hints, "_CHUNK_ROWS", 30)
    fourth = np.arange(0, 400, 4)
    whole = features_of(TABLE.train, fourth, teacher_network())
    monkeypatch.undo()
    own = features_of(TABLE.train.take(fourth), np.arange(100), teacher_network())
    assert whole == pytest.approx(own, abs=1e-4)


def test_a_constant_feature_gives_no_hint() -> None:
    network = teacher_network()
    with torch.no_grad():
        for name, parameter in network.head.named_parameters():
            if name.startswith("mlp."):
                parameter.fill_(-1.0 if name.endswith("bias") else 0.0)
    hint = features_of(TABLE.train, np.arange(50), network)
    assert not hint[:, -8:].any()
    assert hint[:, :-8].any()


def test_the_teacher_is_frozen_and_does_not_drop_out() -> None:
    network = teacher_network()
    teacher = TeacherFeatures(network, TABLE.train)
    batch = tensor_batch(TABLE.train, np.arange(10))
    assert torch.equal(teacher(batch)[-1], teacher(batch)[-1])
    assert not any(p.requires_grad for p in network.parameters())
    widths = tuple(part.shape[1] for part in teacher(batch))
    assert teacher.dims == network.hidden_dims == widths


def test_hint_distance_by_hand() -> None:
    adapter = HintAdapter(2, 2)
    with torch.no_grad():
        adapter.linear.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        adapter.linear.bias.copy_(torch.tensor([0.5, 0.0]))
    # R(1, 1) = (3.5, -1); from (1.5, 0): (2² + 1²) / 2. R(0, 0) = (0.5, 0), which is the hint.
    adapted = adapter(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    distance = hint_distance(adapted, torch.tensor([[1.5, 0.0], [0.5, 0.0]]))
    assert distance.tolist() == pytest.approx([2.5, 0.0])


def test_masked_features_are_missing_ones() -> None:
    table = tiny_table(multi_valued=True, rows=500)
    batch = tensor_batch(table.train, np.arange(500))
    selection = select_features(table.layout, None)
    nothing = masked(batch, selection, 0.0, np.random.default_rng(0))
    assert torch.equal(nothing.ids, batch.ids)
    assert torch.equal(nothing.dense, batch.dense)
    everything = masked(batch, selection, 1.0, np.random.default_rng(0))
    # Two single-valued fields, then a list of three.
    assert everything.ids.unique(dim=0).tolist() == [[MISSING] * 3 + [PADDING] * 2]
    assert not everything.dense.any()
    half = masked(batch, selection, 0.5, np.random.default_rng(0))
    changed = half.ids != batch.ids
    known = batch.ids[:, :2] != MISSING
    assert changed[:, :2][known].float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert (half.dense == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert set(half.ids[changed].tolist()) == {MISSING, PADDING}
    assert half.stats is None
    assert torch.equal(batch.ids, tensor_batch(table.train, np.arange(500)).ids)
