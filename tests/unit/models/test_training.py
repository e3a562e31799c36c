"""The training loop: schedule, faults, continuation, snapshots, regularisation."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.errors import BundleError, ConfigError, TrainingError
from dynens.metrics import auc, sigmoid
from dynens.models.base import FitOptions, FitProgress
from dynens.models.batches import minibatches
from dynens.models.checkpoints import CHECKPOINT
from dynens.models.defaults import (
    default_batch_size,
    resolve_config,
)
from dynens.models.dnn import DNNHead, DNNLearner
from dynens.models.network import CTRNetwork
from dynens.models.optim import (
    reproducible,
)
from dynens.models.training import weighted_bce
from tests.unit.killed import KilledError, kill_after
from tests.unit.models.tables import config_of, tiny_table

TABLE = tiny_table(multi_valued=True)


def learner_of(config: LearnerConfig, seed: int = 0) -> DNNLearner:
    return DNNLearner(config, TABLE.layout, TABLE.stats, seed)


def test_padding_rows_stay_zero_through_training() -> None:
    learner = learner_of(config_of(embedding_l2=1e-2))
    learner.fit(TABLE.train, TABLE.valid)
    weight = learner.networks_[0].get_parameter(
        "embeddings.collection.embedding_bags.fields.weight"
    )
    padding_rows = [0, 7, 17]
    assert torch.equal(weight[padding_rows], torch.zeros(3, 4))
    assert weight.abs().sum() > 0


def test_weighted_bce_by_hand() -> None:
    logits, labels = torch.tensor([0.0, math.log(3)]), torch.tensor([1.0, 0.0])
    weight = torch.tensor([3.0, 1.0])
    # p = .5 and .75: (3·ln 2 + 1·ln 4) / 4
    expected = (3 * math.log(2) + math.log(4)) / 4
    assert weighted_bce(logits, labels, weight).item() == pytest.approx(expected)


def test_sigmoid_of_extreme_logits() -> None:
    np.testing.assert_allclose(sigmoid(np.float32([-1e4, 0, 1e4])), [0, 0.5, 1])


def test_minibatches_cover_every_row_once() -> None:
    batches = list(minibatches(TABLE.train, 64, np.random.default_rng(0)))
    assert [len(b) for b in batches] == [64] * 9 + [24]
    index = np.concatenate([b.index for b in batches])
    np.testing.assert_array_equal(np.sort(index), np.arange(600))
    first = batches[0]
    np.testing.assert_array_equal(first.ids.numpy(), TABLE.train.ids[first.index])


def test_a_training_on_more_rows_follows_epoch_by_epoch() -> None:
    """Though its epochs have steps enough for points that those of the first had none for."""
    config = config_of(max_epochs=6, evaluations_per_epoch=4, batch_size=len(TABLE.train) // 2)
    first = learner_of(config)
    report = first.fit(TABLE.train, TABLE.valid)
    assert report.points_per_epoch == 2
    twice = TABLE.train.take(np.tile(np.arange(len(TABLE.train)), 2))
    again = learner_of(first.config).fit(twice, TABLE.valid, FitOptions(follow=report))
    assert again.points_per_epoch == 2
    assert again.best_epoch == report.best_epoch == again.curve[-1].epoch


def test_non_finite_loss_stops_with_the_last_good_checkpoint(tmp_path: Path) -> None:
    seen: list[FitProgress] = []
    poisoned = dataclasses.replace(TABLE.train, dense=TABLE.train.dense.copy())
    config = config_of(max_epochs=3)
    learner_of(config).fit(
        TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path, progress=seen.append)
    )
    good = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    poisoned.dense[5] = np.inf
    longer = config_of(max_epochs=5)
    message = r"dnn: the training loss became (nan|inf) in epoch 3\."
    with pytest.raises(TrainingError, match=message):
        learner_of(longer).fit(poisoned, TABLE.valid, FitOptions(checkpoint_dir=tmp_path))
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert kept["state"]["epoch"] == good["state"]["epoch"] == 3
    for name, value in good["network"].items():
        assert torch.equal(value, kept["network"][name])
        assert value.isfinite().all()


@pytest.mark.parametrize("of_another", [False, True])
def test_a_checkpoint_that_cannot_be_continued_is_named(tmp_path: Path, of_another: bool) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    if of_another:
        (tmp_path / CHECKPOINT).unlink()
        other = learner_of(config_of().model_copy(update={"hidden_units": (3,)}))
        other.fit(TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path))
    with pytest.raises(BundleError, match=f"{CHECKPOINT} is missing or damaged; remove its folder"):
        learner_of(config_of()).fit(TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"ema_decay": 0.9},
        {"snapshots": 2, "epochs_per_snapshot": 3},
        {"embedding_optimizer": "lazy_adam"},
    ],
)
def test_continued_run_equals_undisturbed_run(tmp_path: Path, options: dict[str, object]) -> None:
    config = config_of(max_epochs=6, **options)

    undisturbed = learner_of(config)
    expected = undisturbed.fit(TABLE.train, TABLE.valid)
    with pytest.raises(KilledError):
        learner_of(config).fit(
            TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path, progress=kill_after(3.5))
        )
    continued = learner_of(config)
    epochs: list[float] = []
    report = continued.fit(
        TABLE.train,
        TABLE.valid,
        FitOptions(checkpoint_dir=tmp_path, progress=lambda p: epochs.append(p.point.epoch)),
    )
    assert epochs[0] == 4.0
    assert report.curve == expected.curve
    np.testing.assert_array_equal(
        continued.predict_logits(TABLE.valid), undisturbed.predict_logits(TABLE.valid)
    )


def test_kept_weights_are_the_averaged_ones_that_were_validated() -> None:
    learner = learner_of(config_of(ema_decay=0.99))
    report = learner.fit(TABLE.train, TABLE.valid)
    labels = TABLE.valid.labels
    assert labels is not None
    assert auc(labels, learner.predict_logits(TABLE.valid)) == pytest.approx(report.best_auc)


@pytest.mark.parametrize("kill", [False, True])
def test_a_cosine_takes_the_rate_to_zero_over_all_epochs(tmp_path: Path, kill: bool) -> None:
    """No plateau ends it, and a continued run stands where it was on the curve."""
    config = config_of(schedule="cosine", max_epochs=6, patience=1, max_decays=0)

    if kill:
        with pytest.raises(KilledError):
            learner_of(config).fit(
                TABLE.train,
                TABLE.valid,
                FitOptions(checkpoint_dir=tmp_path, progress=kill_after(3.5)),
            )
    report = learner_of(config).fit(TABLE.train, TABLE.valid, FitOptions(checkpoint_dir=tmp_path))
    steps = -(-len(TABLE.train) // 64)
    ends = [math.cos(math.pi * (steps * (k + 1) - 1) / (steps * 6)) for k in range(6)]
    expected = [0.01 / 2 * (end + 1) for end in ends]
    assert [point.learning_rate for point in report.curve] == pytest.approx(expected)
    assert expected[-1] < 1e-5


def test_snapshot_ensemble_averages_its_members_logits(tmp_path: Path) -> None:
    learner = learner_of(config_of(snapshots=3, epochs_per_snapshot=1))
    learner.fit(TABLE.train, TABLE.valid)
    assert len(learner.networks_) == 3
    whole = learner.predict_logits(TABLE.valid)
    members = []
    for network in learner.networks_:
        single = learner_of(learner.config)
        single.networks_ = [network]
        members.append(single.predict_logits(TABLE.valid))
    assert np.abs(members[0] - members[2]).max() > 1e-3
    np.testing.assert_allclose(whole, np.mean(members, axis=0), atol=1e-6)
    learner.save(tmp_path)
    np.testing.assert_array_equal(DNNLearner.load(tmp_path).predict_logits(TABLE.valid), whole)


def test_statistics_of_training_rows_are_the_ones_they_bring() -> None:
    config = resolve_config(config_of(), TABLE.layout, 600).model_copy(update={"use_stats": True})
    network = CTRNetwork(TABLE.layout, config, DNNHead, TABLE.stats).eval()
    network.fit_stats(TABLE.train.stats)
    rows = TABLE.train.take(slice(0, 8))
    dense, ids = torch.from_numpy(rows.dense), torch.from_numpy(rows.ids)
    assert rows.stats is not None
    own = torch.from_numpy(rows.stats)
    # Here the rows' statistics equal the frozen tables', so both ways agree …
    torch.testing.assert_close(network(dense, ids, own), network(dense, ids))
    # … and others do not.
    assert (network(dense, ids, own + 1) - network(dense, ids)).abs().max() > 1e-4


def test_unknown_field_is_named() -> None:
    config = config_of().model_copy(update={"fields": ("c0", "nope")})
    with pytest.raises(ConfigError, match="'nope'"):
        learner_of(config).fit(TABLE.train, TABLE.valid)


def test_bf16_and_fp32_training_agree_in_auc() -> None:
    table = tiny_table(rows=3000, seed=5)
    reached = []
    for precision in ("fp32", "bf16"):
        config = config_of(precision=precision, max_epochs=8)
        learner = DNNLearner(config, table.layout, table.stats, 0)
        reached.append(learner.fit(table.train, table.valid).best_auc)
    assert reached[0] == pytest.approx(reached[1], abs=0.01)


def test_defaults_replace_every_none_and_keep_what_is_given() -> None:
    resolved = resolve_config(config_of(embedding_l2=None), TABLE.layout, 600_000)
    assert resolved.dropout == 0.1
    assert resolved.optimizer.batch_size == 64
    assert resolved.optimizer.embedding_l2 == pytest.approx(1e-3)
    assert resolved.optimizer.ema_decay == pytest.approx(0.999)
    small = resolve_config(config_of(embedding_l2=0.0, ema_decay=0.0), TABLE.layout, 640)
    assert small.dropout == 0.2
    assert small.optimizer.embedding_l2 == 0.0
    assert small.optimizer.ema_decay == 0.0


def test_statistics_are_inputs_where_ids_have_few_rows() -> None:
    rows = 30 * max(field.num_embeddings for field in TABLE.layout.fields)
    assert resolve_config(config_of(), TABLE.layout, rows - 1).use_stats
    assert not resolve_config(config_of(), TABLE.layout, rows).use_stats


def test_default_batch_size_grows_with_the_table() -> None:
    sizes = [default_batch_size(rows) for rows in (1, 500, 20_000, 600_000, 9_000_000)]
    assert sizes == [64, 64, 256, 1024, 4096]


def test_random_features_are_a_linear_model_of_a_network_as_it_was_drawn() -> None:
    options = OptimizerConfig(
        batch_size=600, learning_rate=0.05, max_epochs=600, dense_l2=1e-4, ema_decay=0.0
    )
    config = LearnerConfig(
        model="dnn",
        embedding_dim=4,
        hidden_units=(24,),
        random_features=True,
        use_stats=False,
        dropout=0.0,
        optimizer=options,
    )
    learner = learner_of(config)
    learner.fit(TABLE.train, TABLE.train)
    network = learner.networks_[0].eval()
    with reproducible(0, 1):
        drawn = learner.build_network(learner.config)
    trained, before = dict(network.state_dict()), drawn.state_dict()
    changed = {name for name in before if not torch.equal(before[name], trained[name])}
    assert changed == {"head.output.weight", "head.output.bias"}
    with torch.no_grad():
        inputs = network.inputs(
            torch.from_numpy(TABLE.train.dense), torch.from_numpy(TABLE.train.ids), None
        )
        features = network.head.features(inputs).numpy()
    linear = LogisticRegression(C=np.inf, max_iter=5000, tol=1e-8).fit(features, TABLE.train.labels)
    expected = features @ linear.coef_[0] + linear.intercept_
    assert np.corrcoef(expected, learner.predict_logits(TABLE.train))[0, 1] > 0.98
