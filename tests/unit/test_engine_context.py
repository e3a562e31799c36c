"""What the candidates of a request share is scored once, and changes no answer."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dynens.batch import Candidates, EncodedBatch, FeatureLayout
from dynens.bundle import RouterSpec, load_bundle, write_bundle
from dynens.config.learner import LearnerConfig
from dynens.config.serving import EngineConfig
from dynens.engine import Engine
from dynens.ensemble.blend import Blend
from dynens.ensemble.fuse import fuse_ensemble
from dynens.graph import Form, shares_context
from dynens.models.defaults import resolve_config
from dynens.models.net_learner import NetLearner, SavedStats
from dynens.models.rank_graph import rank_graph
from dynens.models.registry import MODELS
from dynens.routing.difficulty import Margin
from dynens.routing.student_graph import StudentGraph, StudentTrunk, export_student
from tests.unit.test_engine import LAYOUT, MEMBER_ROW_S, FakeClock, FakeEncoder, rows

CONTEXT_LAYOUT = FeatureLayout(LAYOUT.dense, LAYOUT.fields, context_dense=1, context_fields=1)


@pytest.fixture
def context_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose graphs were exported, with `user` and `price` as context."""

    class ContextEncoder(FakeEncoder):
        layout = CONTEXT_LAYOUT

    torch.manual_seed(0)
    stats = SavedStats(np.zeros((92, 2), np.float32), ("a", "b"))
    paths = {}
    for name, model in (("student", "dnn"), ("a", "dcnv2"), ("b", "ipnn")):
        config = LearnerConfig(model=model, hidden_units=(8,), use_stats=False, dropout=0.0)
        config = resolve_config(config, CONTEXT_LAYOUT, 100)
        learner = MODELS[model](config, CONTEXT_LAYOUT, stats, 1)
        assert isinstance(learner, NetLearner)
        learner.networks_ = [learner.build_network(config).eval()]
        paths[name] = tmp_path / f"{name}.onnx"
        learner.export_onnx(paths[name])
        if name == "student":
            trunk = StudentTrunk(learner.networks_[0], CONTEXT_LAYOUT, np.ones(92, np.int64))
            graph = StudentGraph(trunk, Blend({"student": 1.0}), Margin())
            export_student(graph, CONTEXT_LAYOUT, paths[name])
    hard = Blend({"a": 0.5, "b": 0.3, "student": 0.2})
    trio = Blend({"a": 0.6, "b": 0.4})
    members = {name: paths[name] for name in "ab"}
    blends = {"probability": hard, "trio_probability": trio}
    fuse_ensemble(members, blends, CONTEXT_LAYOUT, tmp_path / "ensemble.onnx")
    write_bundle(
        tmp_path / "bundle",
        dataset="toy",
        layout=CONTEXT_LAYOUT,
        router=RouterSpec(threshold=-np.inf, difficulty="margin", hard_fraction=1.0),
        members=["a", "b"],
        student=paths["student"],
        ensemble=tmp_path / "ensemble.onnx",
        encoder=ContextEncoder(),
    )
    monkeypatch.setattr("dynens.engine.RowEncoder.load", lambda directory: ContextEncoder())
    return Engine.load(tmp_path / "bundle")


@pytest.mark.parametrize("system", ["dynamic", "student", "ensemble", "ensemble_with_student"])
def test_shared_context_is_seen_and_changes_no_answer(context_engine: Engine, system: Any) -> None:
    batch = rows(3000)
    batch.dense[:, 0], batch.ids[:, 0] = 0.7, 13
    stranger = rows(1, seed=1)
    mixed = EncodedBatch(
        np.concatenate([batch.dense, stranger.dense]), np.concatenate([batch.ids, stranger.ids])
    )
    said: list[bool] = []
    for graph in (context_engine.student, context_engine.ensemble):
        spy_on(graph, said)
    shared = context_engine.score(batch, system=system)
    assert said
    assert all(said)
    said.clear()
    arbitrary = context_engine.score(mixed, system=system)
    assert said
    assert not any(said)
    np.testing.assert_allclose(shared.probability, arbitrary.probability[:-1], atol=1e-6)
    assert np.ptp(shared.probability) > 1e-4


def spy_on(graph: Any, said: list[bool]) -> None:
    run = graph.run

    def spying(*args: Any, shares_context: bool = False) -> Any:
        said.append(shares_context)
        return run(*args, shares_context=shares_context)

    graph.run = spying


@pytest.fixture
def ranking_engine(tmp_path: Path, context_engine: Engine) -> Engine:
    """The same bundle with graphs for candidates, `item` and `tags` from a table of 30 items."""
    table = item_table()
    bundle = context_engine.bundle
    ranking = tmp_path / "ranking"
    ranking.mkdir()
    for path in (bundle.student, bundle.ensemble):
        made = rank_graph(onnx.load(str(path)), CONTEXT_LAYOUT, table)
        onnx.save(made, str(ranking / path.name))
    encoder = context_engine.encoder
    encoder.item_table = lambda: table  # type: ignore[method-assign]
    write_bundle(
        tmp_path / "ranks",
        dataset="toy",
        layout=CONTEXT_LAYOUT,
        router=bundle.manifest.router,
        members=["a", "b"],
        student=bundle.student,
        ensemble=bundle.ensemble,
        encoder=encoder,
        ranking=ranking,
    )
    engine = Engine(load_bundle(tmp_path / "ranks"), EngineConfig(), encoder)
    engine.warm_up()
    return engine


def item_table() -> EncodedBatch:
    drawn = rows(30, seed=5)
    return EncodedBatch(drawn.dense[:, 1:].copy(), drawn.ids[:, 1:].copy())


@pytest.mark.parametrize("system", ["dynamic", "student", "ensemble", "ensemble_with_student"])
def test_candidates_get_the_answers_of_the_same_rows(
    context_engine: Engine, ranking_engine: Engine, system: Any
) -> None:
    assert ranking_engine.student.ranks
    assert not context_engine.student.ranks
    for seed, count in ((1, 5000), (2, 100), (3, 1), (4, 0)):
        items = np.random.default_rng(seed).integers(0, 30, count).astype(np.int32)
        candidates = Candidates(rows(1, seed=seed), item_table(), items)
        found = ranking_engine.score(candidates, system=system)
        for engine in (ranking_engine, context_engine):
            expected = engine.score(candidates.encoded(), system=system)
            np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
            np.testing.assert_array_equal(found.route, expected.route)
        # A bundle without such graphs takes candidates all the same.
        written = context_engine.score(candidates, system=system)
        np.testing.assert_allclose(found.probability, written.probability, atol=1e-6)
    assert np.ptp(ranking_engine.score(candidates_of(100), system=system).probability) > 1e-4


def candidates_of(count: int) -> Candidates:
    items = (np.arange(count) % 30).astype(np.int32)
    return Candidates(rows(1), item_table(), items)


def test_rows_cost_more_than_candidates_and_the_engine_knows(
    ranking_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    engine = ranking_engine
    engine.clock = clock
    engine.config = EngineConfig(safety_margin=0.0, chunk_ms=1000.0)
    times = {Form.CANDIDATES: 1, Form.SHARED: 2, Form.ANY: 4}
    score = engine.ensemble.score

    def timed(outputs: Any, some: Any, form: Form, *logit: Any) -> Any:
        clock.now += len(some) * MEMBER_ROW_S * times[form]
        return score(outputs, some, form, *logit)

    monkeypatch.setattr(engine.ensemble, "score", timed)
    engine.warm_up()
    granted = []
    for some in (candidates_of(100), candidates_of(100).encoded(), rows(100)):
        granted.append(engine.score(some, deadline_s=clock() + 9.1e-3).hard_granted)
    assert granted == [91, 45, 22]
    assert engine.ensemble_cost.slowdown == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("column", "shares"), [(None, True), ("ids", False), ("dense", False), ("other", True)]
)
def test_what_counts_as_shared(column: str | None, shares: bool) -> None:
    batch = rows(5)
    batch.dense[:, 0], batch.ids[:, 0] = 0.7, 13
    if column == "ids":
        batch.ids[4, 0] = 14
    if column == "dense":
        batch.dense[4, 0] = 0.8
    if column == "other":
        batch.ids[4, 1] = (batch.ids[4, 1] + 1) % 30
    assert shares_context(CONTEXT_LAYOUT, batch) is shares
    assert not shares_context(LAYOUT, batch)


def test_arbitrary_rows_are_known_to_cost_more(
    context_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    engine = context_engine
    engine.clock = clock
    engine.config = EngineConfig(safety_margin=0.0, chunk_ms=1000.0)
    run = engine.ensemble.run

    def timed(*args: Any, shares_context: bool = False) -> Any:
        clock.now += len(args[2]) * MEMBER_ROW_S * (1 if shares_context else 3)
        return run(*args, shares_context=shares_context)

    monkeypatch.setattr(engine.ensemble, "run", timed)
    engine.warm_up()
    batch = rows(100)
    # 9.1 ms buy 91 shared rows of 0.1 ms and 30 of 0.3 ms.
    arbitrary = engine.score(batch, deadline_s=clock() + 9.1e-3)
    batch.dense[:, 0], batch.ids[:, 0] = 0.7, 13
    shared = engine.score(batch, deadline_s=clock() + 9.1e-3)
    assert (arbitrary.hard_granted, shared.hard_granted) == (30, 91)
    assert engine.ensemble_cost.slowdown == pytest.approx(1.0)
