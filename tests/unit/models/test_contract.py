"""Every learner against every promise of the `BaseLearner` protocol."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from dynens.batch import FIRST_VALUE_ID, OUT_OF_VOCABULARY, Candidates, EncodedBatch
from dynens.config.learner import OptimizerConfig
from dynens.config.serving import EngineConfig
from dynens.errors import BundleError
from dynens.graph import Form, Graph
from dynens.layers.products import Table
from dynens.metrics import auc
from dynens.models.base import BaseLearner, FitOptions, FitProgress
from dynens.models.pairs import PairLearner
from dynens.models.rank_graph import rank_graph
from dynens.models.registry import MODELS, build_learner, load_learner
from tests.unit.models.learners import FORMS, config_of, every_model
from tests.unit.models.tables import TinyTable, tiny_table

TABLES = {
    "plain": tiny_table(),
    "no dense": tiny_table(num_dense=0),
    "no sparse": tiny_table(num_fields=0, num_dense=3),
    "multi-valued": tiny_table(multi_valued=True),
    "one field": tiny_table(num_dense=0, num_fields=1),
    "shared values": tiny_table(num_fields=4, multi_valued=True, shared=3),
    "apart": tiny_table(num_dense=3, apart=((2, 1), (0, 2))),
    "only apart": tiny_table(num_dense=3, apart=((2, 1),), only_apart=(1, 2)),
    "a product": tiny_table(vectors=3),
}

CONTEXT_TABLES = {
    "both sides mixed": tiny_table(num_dense=3, num_fields=5, multi_valued=True, context=(1, 3)),
    "no dense": tiny_table(num_dense=0, context=(0, 1)),
    "context dense": tiny_table(num_fields=2, context=(2, 0)),
    "no sparse": tiny_table(num_fields=0, num_dense=3, context=(2, 0)),
    "shared values": tiny_table(num_fields=4, multi_valued=True, shared=3, context=(1, 2)),
    "a product of both sides": tiny_table(vectors=3, context=(4, 1)),
    "apart and shared": tiny_table(
        num_dense=3, num_fields=4, shared=3, context=(1, 2), apart=((1, 0), (2, 1))
    ),
}

# On which side of a request derived inputs stand is the same code's for all networks.
SIDES = {
    "candidates dense": tiny_table(num_fields=2, context=(1, 2)),
    "dense of candidates alone": tiny_table(context=(0, 1)),
    "shared values of the context": tiny_table(num_fields=4, shared=0, context=(1, 2)),
    "apart on both sides": tiny_table(num_dense=4, context=(2, 1), apart=((2, 1), (1, 0), (3, 2))),
    "apart in the context": tiny_table(num_dense=3, context=(2, 1), apart=((0, 1),)),
    "an owner of the candidates": tiny_table(num_dense=2, context=(1, 1), apart=((0, 1),)),
    "only apart on both sides": tiny_table(
        num_dense=4, context=(2, 1), apart=((2, 1),), only_apart=(1, 2)
    ),
    "only apart and no other dense": tiny_table(
        num_dense=2, context=(1, 1), apart=((1, 0),), only_apart=(0, 1)
    ),
    "a product of the context": tiny_table(vectors=3, context=(8, 1)),
    "a product of the candidates": tiny_table(vectors=3, context=(0, 1)),
}

OF_PAIRS = {name for name, model in MODELS.items() if issubclass(model, PairLearner)}


def models_on(
    tables: Mapping[str, TinyTable], models: Sequence[str] = FORMS
) -> list[tuple[str, str]]:
    """Every model on every table; but on those without two fields of one value none of these."""
    return [
        (model, name)
        for model in models
        for name, table in sorted(tables.items())
        if model not in OF_PAIRS or table.layout.largest_pair() is not None
    ]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model that was fitted and exported once for several tests."""

    model: str
    table: TinyTable
    learner: BaseLearner
    path: Path


@pytest.fixture(scope="module", params=models_on(TABLES), ids="-".join)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    model, name = request.param
    return _export(model, TABLES[name], tmp_path_factory.mktemp("plain"))


@pytest.fixture(
    scope="module",
    params=models_on(CONTEXT_TABLES) + models_on(SIDES, ("dnn", "dcnv2", "ipnn *6", "xgboost")),
    ids="-".join,
)
def of_two_sides(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    model, name = request.param
    return _export(model, (CONTEXT_TABLES | SIDES)[name], tmp_path_factory.mktemp("context"))


def _export(model: str, table: TinyTable, folder: Path) -> Exported:
    learner = fitted(model, table)
    learner.export_onnx(folder / "m.onnx")
    return Exported(model, table, learner, folder / "m.onnx")


def fitted(model: str, table: TinyTable, seed: int = 1, **updates: object) -> BaseLearner:
    learner = build_learner(config_of(model, **updates), table.layout, table.stats, seed)
    learner.fit(table.train, table.valid)
    for network in getattr(learner, "networks_", ()):
        if network.product is not None:
            network.product.fill(random_tables(network.product.pair.sizes))
    return learner


def random_tables(sizes: tuple[int, int], width: int = 6) -> tuple[Table, Table]:
    """Vectors and biases of two fields."""
    left, right = (
        np.random.default_rng(size).normal(size=(size, width + 1)).astype(np.float32) / 2
        for size in sizes
    )
    return tuple(  # type: ignore[return-value]
        (torch.from_numpy(side[:, :-1]), torch.from_numpy(side[:, -1])) for side in (left, right)
    )


def run_onnx(path: Path, batch: EncodedBatch) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["dense", "ids"]
    (logit,) = session.run(["logit"], {"dense": batch.dense, "ids": batch.ids})
    return np.asarray(logit)


def test_logits_have_one_finite_float_per_row(exported: Exported) -> None:
    valid = exported.table.valid
    logits = exported.learner.predict_logits(valid)
    assert logits.shape == (len(valid),)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_exported_onnx_equals_eager(exported: Exported) -> None:
    valid = exported.table.valid
    onnx_logits = run_onnx(exported.path, valid)
    assert onnx_logits.shape == (len(valid),)
    np.testing.assert_allclose(onnx_logits, exported.learner.predict_logits(valid), atol=1e-5)


def test_shared_context_changes_no_answer(of_two_sides: Exported) -> None:
    table, learner = of_two_sides.table, of_two_sides.learner
    layout = table.layout
    session = ort.InferenceSession(str(of_two_sides.path))
    shared = EncodedBatch(table.valid.dense.copy(), table.valid.ids.copy())
    shared.dense[:, : layout.context_dense] = shared.dense[0, : layout.context_dense]
    shared.ids[:, : layout.context_ids_width] = shared.ids[0, : layout.context_ids_width]
    count = len(shared)

    def logits(batch: EncodedBatch, context_rows: int) -> np.ndarray:
        feed = {
            "dense": batch.dense,
            "ids": batch.ids,
            "context_rows": np.array(context_rows, np.int64),
        }
        assert [i.name for i in session.get_inputs()] == list(feed)
        (logit,) = session.run(["logit"], feed)
        assert logit.shape == (count,)
        return np.asarray(logit)

    # A layer norm over nearly equal components makes eager masknet itself inexact (5e-5 against
    # float64).
    atol = 1e-4 if of_two_sides.model == "masknet" else 1e-5
    once, each = logits(shared, 1), logits(shared, count)
    np.testing.assert_allclose(once, each, atol=1e-5)
    np.testing.assert_allclose(once, learner.predict_logits(shared), atol=atol)
    np.testing.assert_allclose(
        logits(table.valid, count), learner.predict_logits(table.valid), atol=atol
    )


def test_what_depends_on_the_item_alone_can_be_looked_up(
    of_two_sides: Exported, tmp_path: Path
) -> None:
    table, layout = of_two_sides.table, of_two_sides.table.layout
    items = EncodedBatch(
        table.valid.dense[:, layout.context_dense :], table.valid.ids[:, layout.context_ids_width :]
    )
    ranking = rank_graph(onnx.load(str(of_two_sides.path)), layout, items)
    read = {i.name for i in ranking.graph.input}
    assert "items" in read
    assert read <= {"items", "context_dense", "context_ids"}
    onnx.save(ranking, str(tmp_path / "ranking.onnx"))
    graph = Graph(of_two_sides.path, tmp_path / "ranking.onnx", ("logit",), EngineConfig())
    seen = []
    for row, count in ((0, 1), (1, 40), (2, 7)):
        chosen = np.random.default_rng(row).integers(0, len(items), count).astype(np.int32)
        candidates = Candidates(table.valid.take(slice(row, row + 1)), items, chosen)
        (looked_up,) = graph.score(("logit",), candidates, Form.CANDIDATES)
        (computed,) = graph.score(("logit",), candidates.encoded(), Form.SHARED)
        assert looked_up.shape == (count,)
        np.testing.assert_allclose(looked_up, computed, atol=1e-5)
        seen += looked_up.tolist()
    assert np.ptp(seen) > 1e-2


@pytest.mark.parametrize("model", sorted({*MODELS} - OF_PAIRS))
def test_a_field_subset_on_one_side_shares_nothing(model: str, tmp_path: Path) -> None:
    table = CONTEXT_TABLES["both sides mixed"]
    for fields in (("x0", "c0", "c1"), ("x1", "c3", "c4"), ("c1", "c3")):
        learner = fitted(model, table, fields=fields)
        learner.export_onnx(tmp_path / "m.onnx")
        feed = {
            "dense": table.valid.dense,
            "ids": table.valid.ids,
            "context_rows": np.array(len(table.valid), np.int64),
        }
        (logit,) = ort.InferenceSession(str(tmp_path / "m.onnx")).run(["logit"], feed)
        np.testing.assert_allclose(logit, learner.predict_logits(table.valid), atol=1e-5)


@every_model
def test_a_row_does_not_depend_on_its_batch(model: str, tmp_path: Path) -> None:
    table = TABLES["multi-valued"]
    learner = fitted(model, table)
    learner.export_onnx(tmp_path / "m.onnx")
    whole = table.valid.take(slice(0, 20))
    rows = [table.valid.take(slice(i, i + 1)) for i in range(20)]
    eager = np.concatenate([learner.predict_logits(row) for row in rows])
    exported = np.concatenate([run_onnx(tmp_path / "m.onnx", row) for row in rows])
    np.testing.assert_allclose(eager, learner.predict_logits(whole), atol=1e-5)
    np.testing.assert_allclose(exported, run_onnx(tmp_path / "m.onnx", whole), atol=1e-5)


@every_model
def test_no_rows_give_no_logits(model: str) -> None:
    table = TABLES["plain"]
    assert fitted(model, table).predict_logits(table.valid.take(slice(0, 0))).shape == (0,)


@every_model
def test_same_seed_gives_the_same_learner_and_another_seed_another(model: str) -> None:
    table = TABLES["plain"]
    first, again, other = (
        fitted(model, table, seed=s, bootstrap=True).predict_logits(table.valid) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4


@every_model
def test_loaded_learner_equals_saved(model: str, tmp_path: Path) -> None:
    table = TABLES["multi-valued"]
    learner = fitted(model, table)
    learner.save(tmp_path / "saved")
    loaded = load_learner(tmp_path / "saved")
    np.testing.assert_array_equal(
        loaded.predict_logits(table.valid), learner.predict_logits(table.valid)
    )
    assert loaded.layout == table.layout


def test_means_of_lists_are_exported_and_learners_of_before_have_them(tmp_path: Path) -> None:
    table = TABLES["multi-valued"]
    learner = fitted("dnn", table, list_pooling="mean", use_stats=True)
    logits = learner.predict_logits(table.valid)
    learner.export_onnx(tmp_path / "m.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "m.onnx", table.valid), logits, atol=1e-5)
    learner.save(tmp_path)
    written = json.loads((tmp_path / "learner.json").read_text())
    del written["config"]["list_pooling"]
    (tmp_path / "learner.json").write_text(json.dumps(written))
    np.testing.assert_array_equal(load_learner(tmp_path).predict_logits(table.valid), logits)
    sums = fitted("dnn", table, use_stats=True).predict_logits(table.valid)
    assert np.abs(sums - logits).max() > 1e-3


@pytest.mark.parametrize("model", ["lr", "xgboost"])
def test_a_damaged_file_is_named(model: str, tmp_path: Path) -> None:
    fitted(model, TABLES["plain"]).save(tmp_path)
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for damage in (b"", content[: len(content) // 2]):
            path.write_bytes(damage)
            with pytest.raises(BundleError, match=f"{path.name} is missing or damaged"):
                load_learner(tmp_path)
        path.unlink()
        with pytest.raises(BundleError, match=f"{path.name} is missing or damaged"):
            load_learner(tmp_path)
        path.write_bytes(content)


@every_model
def test_learns_a_planted_signal(model: str) -> None:
    table = tiny_table(rows=2000, seed=3)
    options = OptimizerConfig(learning_rate=0.01, max_epochs=10, batch_size=64)
    config = config_of(model, optimizer=options)
    learner = build_learner(config, table.layout, table.stats, 0)
    report = learner.fit(table.train, table.valid)
    labels = table.valid.labels
    assert labels is not None
    reached = auc(labels, learner.predict_logits(table.valid))
    assert reached > (0.65 if model in OF_PAIRS else 0.75)  # which sees two of three fields
    assert reached == pytest.approx(report.best_auc, abs=1e-4)


@every_model
def test_a_value_never_met_is_answered_like_an_average_row(model: str) -> None:
    """Nearly all rows are positive; a value that training never met says nothing against it."""
    table = TABLES["plain"]
    ids = np.where(table.train.ids == OUT_OF_VOCABULARY, FIRST_VALUE_ID, table.train.ids)
    labels = (np.arange(len(ids)) % 10 > 0).astype(np.float32)
    train = dataclasses.replace(table.train, ids=ids, labels=labels)
    options = OptimizerConfig(learning_rate=0.05, max_epochs=8, batch_size=32)
    config = config_of(model, use_stats=False, optimizer=options, embedding_std=0.5)
    learner = build_learner(config, table.layout, table.stats, 0)
    learner.fit(train, train)
    new = dataclasses.replace(train, ids=np.full_like(ids, OUT_OF_VOCABULARY))
    rates = [float((1 / (1 + np.exp(-learner.predict_logits(x)))).mean()) for x in (train, new)]
    assert rates == pytest.approx([0.9, 0.9], abs=0.06)


@every_model
def test_field_subset_ignores_the_other_features(model: str, tmp_path: Path) -> None:
    table = TABLES["shared values"]
    learner = fitted(model, table, fields=("x1", "c1", "c2", "c3"))
    changed = EncodedBatch(table.valid.dense.copy(), table.valid.ids.copy())
    changed.dense[:, 0] += 5
    changed.ids[:, 0] = (changed.ids[:, 0] + 1) % 9
    np.testing.assert_array_equal(
        learner.predict_logits(changed), learner.predict_logits(table.valid)
    )
    learner.export_onnx(tmp_path / "m.onnx")
    np.testing.assert_allclose(
        run_onnx(tmp_path / "m.onnx", table.valid), learner.predict_logits(table.valid), atol=1e-5
    )


@every_model
def test_single_class_validation_rows_do_not_stop_training(model: str) -> None:
    table = TABLES["plain"]
    labels = table.valid.labels
    assert labels is not None
    positives = table.valid.take(np.flatnonzero(labels == 1))
    learner = build_learner(config_of(model), table.layout, table.stats, 0)
    learner.fit(table.train, positives)
    assert auc(labels, learner.predict_logits(table.valid)) > 0.55


@every_model
def test_a_weight_that_all_rows_have_changes_nothing(model: str) -> None:
    table = TABLES["plain"]
    plain, weighed = (build_learner(config_of(model), table.layout, table.stats, 0) for _ in "12")
    plain.fit(table.train, table.valid)
    weight = np.full(len(table.train), 2.0**-13, np.float32)  # whose mean is exact
    weighed.fit(dataclasses.replace(table.train, sample_weight=weight), table.valid)
    np.testing.assert_allclose(
        weighed.predict_logits(table.valid), plain.predict_logits(table.valid), atol=0.01
    )


@every_model
def test_progress_reports_the_curve(model: str) -> None:
    table = TABLES["plain"]
    seen: list[FitProgress] = []
    learner = build_learner(config_of(model), table.layout, table.stats, 0)
    report = learner.fit(table.train, table.valid, FitOptions(progress=seen.append))
    assert seen
    assert all(0 <= p.fraction <= 1 for p in seen)
    assert {p.point for p in seen} <= set(report.curve)
    assert report.best_epoch > 0
