"""Views of an item: which columns they lack, how their losses are weighed, what they are for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from dynens.batch import MISSING, OUT_OF_VOCABULARY, EncodedBatch, FeatureLayout, SparseField
from dynens.config.base import validate
from dynens.config.distill import DistillConfig
from dynens.config.learner import LearnerConfig, OptimizerConfig
from dynens.distill.augment import RowSpace, row_space
from dynens.distill.trainer import DistillTrainer, Teaching
from dynens.distill.views import ViewBalance, Views
from dynens.metrics import auc
from dynens.models.batches import tensor_batch
from dynens.models.dnn import DNNLearner
from tests.unit.distill.rows import missing_row, units
from tests.unit.models.tables import TinyStats

LAYOUT = FeatureLayout(
    ("age", "price"), tuple(SparseField(name, 6) for name in ("user", "item", "brand"))
)
ENTITIES = {"age": "user", "user": "user", "item": "item", "price": "item", "brand": "item"}


def space_of(layout: FeatureLayout, entities: dict[str, str]) -> RowSpace:
    counts = np.ones(sum(1 + field.num_embeddings for field in layout.fields), np.int64)
    return row_space(layout, units(layout, entities), counts, missing_row(layout))


def test_each_view_lacks_the_columns_of_the_other() -> None:
    views = Views.of(space_of(LAYOUT, ENTITIES), ["item"])
    assert views is not None
    rows = EncodedBatch(
        np.array([[0.5, 1.5], [2.5, 3.5]], np.float32), np.array([[2, 3, 4], [5, 4, 3]], np.int32)
    )
    batch = tensor_batch(rows, np.arange(2))
    content, behaviour = views.content(batch), views.behaviour(batch)
    assert content.dense.tolist() == rows.dense.tolist()
    assert content.ids.tolist() == [[2, OUT_OF_VOCABULARY, 4], [5, OUT_OF_VOCABULARY, 3]]
    assert behaviour.dense.tolist() == [[0.5, 0.0], [2.5, 0.0]]
    assert behaviour.ids.tolist() == [[2, 3, MISSING], [5, 4, MISSING]]
    assert content.stats is None
    assert batch.ids.tolist() == rows.ids.tolist()  # the rows themselves stay


@pytest.mark.parametrize(
    ("entities", "keys"),
    [(ENTITIES, []), (ENTITIES, ["price"]), ({**ENTITIES, "price": "user", "brand": ""}, ["item"])],
)
def test_a_table_without_a_key_or_other_item_features_has_no_views(
    entities: dict[str, str], keys: list[str]
) -> None:
    assert Views.of(space_of(LAYOUT, entities), keys) is None


def test_what_falls_slowly_weighs_more() -> None:
    balance = ViewBalance()
    for losses in ([4.0, 2.0, 1.0], [1.0, 1.0, 1.0]):
        assert balance(torch.tensor(losses)).item() == sum(losses)
        assert balance(torch.tensor(losses)).item() == sum(losses)
        balance.end_epoch()
    power = np.exp(np.array([0.25, 0.5, 1.0]) / 2)
    expected = 3 * power / power.sum()
    np.testing.assert_allclose(balance.weights(), expected, rtol=1e-6)
    weighted = balance(torch.tensor([1.0, 0.0, 2.0])).item()
    assert weighted == pytest.approx(expected[0] + 2 * expected[2], rel=1e-6)


def new_items() -> tuple[FeatureLayout, TinyStats, EncodedBatch, EncodedBatch]:
    """Brand and colour together decide an item's clicks; the second table's items are new."""
    rng = np.random.default_rng(0)
    layout = FeatureLayout(
        (), (SparseField("item", 102), SparseField("brand", 6), SparseField("colour", 6))
    )
    traits, effect = rng.integers(2, 6, (102, 2)), 2 * rng.normal(size=(6, 6))

    def rows(count: int) -> EncodedBatch:
        item = rng.integers(2, 102, count)
        brand, colour = traits[item].T
        clicked = rng.random(count) < expit(effect[brand, colour])
        ids = np.stack([item, brand, colour], axis=1).astype(np.int32)
        return EncodedBatch(np.zeros((count, 0), np.float32), ids, clicked.astype(np.float32))

    train, new = rows(3000), rows(3000)
    new.ids[:, 0] = OUT_OF_VOCABULARY
    stats = TinyStats(np.zeros((117, 2), np.float32), ("te", "count"), (1, 104, 111))
    return layout, stats, train, new


def test_a_student_of_views_knows_more_of_new_items() -> None:
    layout, stats, train, new = new_items()
    views = Views.of(space_of(layout, dict.fromkeys(("item", "brand", "colour"), "item")), ["item"])
    options = OptimizerConfig(
        batch_size=64,
        learning_rate=0.01,
        embedding_rate_factor=1.0,  # as all students have
        max_epochs=6,
        precision="fp32",
    )
    config = LearnerConfig(embedding_dim=4, hidden_units=(8,), use_stats=False, optimizer=options)
    found = []
    for weight in (0.0, 1.0):
        distill = validate(
            DistillConfig, {"views": weight, "alpha": {"start": 0}, "augmented_per_row": 0}, "test"
        )
        teaching = Teaching(np.zeros(len(train), np.float32), views=views)
        learner = DNNLearner(config, layout, stats, 1)
        learner.fit_with(
            lambda network, resolved, distill=distill, teaching=teaching: DistillTrainer(
                network, resolved, distill, teaching, 1
            ),
            train,
            train,
        )
        found.append(auc(new.labels, learner.predict_logits(new)))
    assert found[1] > found[0] + 0.02
