"""Where a network trains: the rules everywhere, and the training itself where there is a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dynens.batch import FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.errors import ConfigError
from dynens.metrics import auc
from dynens.models.base import BaseLearner, FitOptions
from dynens.models.checkpoints import CHECKPOINT
from dynens.models.defaults import resolve_config
from dynens.models.net_learner import NetLearner
from dynens.models.registry import MODELS, build_learner, load_learner
from tests.unit.killed import KilledError, kill_after
from tests.unit.models.tables import TinyTable, tiny_table

TABLE = tiny_table(multi_valued=True)
MATCHING = tiny_table(multi_valued=True, shared=0)
LARGE = FeatureLayout((), (SparseField("id", 2_000_000),))
NETWORKS = sorted(set(MODELS) - {"xgboost"})

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA GPU")


def config_of(model: str, **updates: object) -> LearnerConfig:
    return LearnerConfig(
        model=model,  # type: ignore[arg-type]
        embedding_dim=4,
        hidden_units=(24, 8),
        dropout=0.0,  # the devices draw different masks
        use_stats=True,
        optimizer=OptimizerConfig(
            max_epochs=3,
            batch_size=64,
            learning_rate=0.01,
            embedding_rate_factor=1.0,
            precision="fp32",
        ),
    ).model_copy(update=updates)


def fitted(
    config: LearnerConfig, table: TinyTable = TABLE, checkpoint_dir: Path | None = None
) -> BaseLearner:
    learner = build_learner(config, table.layout, table.stats, 1)
    learner.fit(table.train, table.valid, FitOptions(checkpoint_dir=checkpoint_dir))
    return learner


@pytest.mark.parametrize(
    ("is_there", "options", "device", "optimizer"),
    [
        (True, {}, "cuda", "adam"),
        (True, {"device": "cpu"}, "cpu", "lazy_adam"),
        (True, {"optimizer": {"embedding_optimizer": "lazy_adam"}}, "cuda", "lazy_adam"),
        (True, {"model": "xgboost"}, "cpu", None),
        (True, {"device": "cuda"}, "cuda", "adam"),
        (False, {}, "cpu", "lazy_adam"),
    ],
)
def test_a_gpu_is_used_where_it_can_be(
    monkeypatch: pytest.MonkeyPatch,
    is_there: bool,
    options: dict[str, object],
    device: str,
    optimizer: str | None,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_there)
    config = resolve_config(LearnerConfig.model_validate(options), LARGE, 1_000_000)
    assert config.device == device
    assert optimizer in (None, config.optimizer.embedding_optimizer)


def test_asking_for_a_gpu_that_is_not_there_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"dcnv2: device is cuda but torch .* finds no CUDA GPU"):
        resolve_config(LearnerConfig(model="dcnv2", device="cuda"), LARGE, 1000)


@needs_gpu
@pytest.mark.parametrize("table", [TABLE, MATCHING], ids=["plain", "matching"])
@pytest.mark.parametrize("model", NETWORKS)
def test_a_gpu_trains_what_the_cpu_does(model: str, table: TinyTable) -> None:
    logits = [
        fitted(config_of(model, device=device), table).predict_logits(table.valid)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(logits[0], logits[1], atol=0.02)


@needs_gpu
@pytest.mark.parametrize("model", NETWORKS)
def test_bf16_on_a_gpu_learns_as_much(model: str) -> None:
    found = []
    for precision in ("fp32", "bf16"):
        config = config_of(model, device="cuda")
        optimizer = config.optimizer.model_copy(update={"precision": precision})
        learner = fitted(config.model_copy(update={"optimizer": optimizer}))
        found.append(auc(TABLE.valid.labels, learner.predict_logits(TABLE.valid)))
    assert found[1] == pytest.approx(found[0], abs=0.02)
    assert found[1] > 0.6


@needs_gpu
def test_a_learner_trained_on_a_gpu_is_saved_for_any_machine(tmp_path: Path) -> None:
    learner = fitted(config_of("dnn", device="cuda"))
    assert isinstance(learner, NetLearner)
    assert all(p.device.type == "cpu" for p in learner.networks_[0].parameters())
    learner.save(tmp_path)
    np.testing.assert_array_equal(
        load_learner(tmp_path).predict_logits(TABLE.valid), learner.predict_logits(TABLE.valid)
    )


@needs_gpu
def test_a_killed_training_goes_on_on_a_gpu(tmp_path: Path) -> None:
    config = config_of("dnn", device="cuda")
    learner = build_learner(config, TABLE.layout, TABLE.stats, 1)
    with pytest.raises(KilledError):
        learner.fit(
            TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path, progress=kill_after(1.9))
        )
    assert (tmp_path / CHECKPOINT).exists()
    continued = fitted(config, checkpoint_dir=tmp_path).predict_logits(TABLE.valid)
    # Sums on a GPU are not in a fixed order: near, not equal.
    whole = fitted(config).predict_logits(TABLE.valid)
    np.testing.assert_allclose(continued, whole, atol=0.02)
