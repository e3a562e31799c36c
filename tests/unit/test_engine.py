"""The engine on real graphs, and its decisions on a clock that only moves when work is done."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.bundle import RouterSpec, write_bundle
from dynens.config.serving import EngineConfig
from dynens.data.prepare import prepare
from dynens.engine import BudgetSpentError, Engine, Pause, Scores
from dynens.errors import BundleError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, FeatureSchema, FieldSpec
from tests.bundles import ensemble_graph, student_graph

LAYOUT = FeatureLayout(
    ("price", "age"), (SparseField("user", 50), SparseField("item", 30), SparseField("tags", 9, 3))
)
MEMBER_ROW_S = 1e-4
STUDENT_CALL_S = 1e-4


class FakeEncoder:
    layout = LAYOUT
    input_fields = ()
    has_item_entity = False

    def encode_columns(self, columns: object) -> None:
        """Nothing to warm up."""

    def save(self, directory: Path) -> None:
        (directory / "encoder.json").write_text("{}", encoding="utf-8")


@dataclass
class FakeClock:
    """Time that passes only when a graph runs."""

    now: float = 100.0
    slowdown: float = 1.0
    calls: list[int] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def charge(self, engine: Engine) -> None:
        """Make every run of the engine's graphs cost time on this clock."""
        self._wrap(engine.student, lambda rows: STUDENT_CALL_S)
        self._wrap(engine.ensemble, lambda rows: rows * MEMBER_ROW_S * self.slowdown, log=True)

    def _wrap(self, graph: Any, cost: Callable[[int], float], log: bool = False) -> None:
        run = graph.run

        def timed(outputs: Any, dense: Any, ids: Any, logit: Any = None, **shared: bool) -> Any:
            result = run(outputs, dense, ids, logit, **shared)
            self.now += cost(len(ids))
            if log:
                self.calls.append(len(ids))
            return result

        graph.run = timed


def rows(count: int, seed: int = 0) -> EncodedBatch:
    rng = np.random.default_rng(seed)
    ids = np.empty((count, LAYOUT.ids_width), np.int32)
    for spec, columns in LAYOUT.columns():
        ids[:, columns] = rng.integers(0, spec.num_embeddings, (count, spec.width))
    return EncodedBatch(rng.standard_normal((count, 2)).astype(np.float32), ids)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bundle")
    write_bundle(
        directory / "bundle",
        dataset="toy",
        layout=LAYOUT,
        router=RouterSpec(threshold=-0.5, difficulty="margin", hard_fraction=0.3),
        members=["a", "b", "c"],
        student=student_graph(directory / "s.onnx", LAYOUT),
        ensemble=ensemble_graph(directory / "e.onnx", LAYOUT, hidden=(16,)),
        encoder=FakeEncoder(),
    )
    return directory / "bundle"


@pytest.fixture
def engine(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr("dynens.engine.RowEncoder.load", lambda directory: FakeEncoder())
    return Engine.load(bundle)


@pytest.fixture
def clocked(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, FakeClock]:
    """An engine that thinks a row of ensemble work takes 0.1 ms, and is right."""
    monkeypatch.setattr("dynens.engine.RowEncoder.load", lambda directory: FakeEncoder())
    clock = FakeClock()
    loaded = Engine.load(bundle, EngineConfig(safety_margin=0.0, chunk_ms=1.05), clock=clock)
    clock.charge(loaded)
    loaded.warm_up()
    clock.calls.clear()
    return loaded, clock


def test_the_graphs_take_turns_in_warming_up(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    for name in ("student", "ensemble"):
        graph = getattr(engine, name)

        def noted(*args: Any, name: str = name, run: Any = graph.run, **shared: bool) -> Any:
            ran.append(name)
            return run(*args, **shared)

        monkeypatch.setattr(graph, "run", noted)
    engine.warm_up()
    assert all({*pair} == {"student", "ensemble"} for pair in zip(ran[::2], ran[1::2], strict=True))


def test_warm_up_learns_the_cost(clocked: tuple[Engine, FakeClock]) -> None:
    engine, _ = clocked
    assert engine.ensemble_cost.seconds(50, 0.0) == pytest.approx(50 * MEMBER_ROW_S, rel=1e-3)
    assert engine.student_cost.seconds(50, 0.0) == pytest.approx(STUDENT_CALL_S, rel=1e-3)


def test_hard_rows_get_the_ensemble_and_easy_rows_the_student(engine: Engine) -> None:
    batch = rows(200)
    student = engine.score(batch, system="student")
    voiced = engine.score(batch, system="ensemble_with_student")
    dynamic = engine.score(batch)
    logit, _, difficulty = engine.student.run(
        ("logit", "probability", "difficulty"), batch.dense, batch.ids
    )
    hard = difficulty > -0.5
    assert 0 < hard.sum() < 200
    np.testing.assert_array_equal(dynamic.route, hard.astype(np.int32))
    expected = np.where(hard, voiced.probability, student.probability)
    np.testing.assert_allclose(dynamic.probability, expected, atol=1e-6)
    np.testing.assert_allclose(student.probability, 1 / (1 + np.exp(-logit)), atol=1e-6)
    assert (dynamic.hard_wanted, dynamic.hard_granted, dynamic.degraded) == (
        hard.sum(),
        hard.sum(),
        None,
    )


def test_the_trio_alone_does_not_hear_the_student(engine: Engine) -> None:
    batch = rows(20)
    (trio,) = engine.ensemble.run(
        ("trio_probability",), batch.dense, batch.ids, np.full(20, 9.0, np.float32)
    )
    scores = engine.score(batch, system="ensemble")
    np.testing.assert_allclose(scores.probability, trio, atol=1e-6)
    assert scores.route.tolist() == [1] * 20


@pytest.mark.parametrize(("threshold", "granted"), [(-np.inf, 30), (np.inf, 0)])
def test_a_threshold_can_be_laid_over_the_bundles(
    engine: Engine, threshold: float, granted: int
) -> None:
    assert engine.score(rows(30), threshold=threshold).hard_granted == granted


@pytest.mark.parametrize("system", ["dynamic", "student", "ensemble", "ensemble_with_student"])
def test_results_do_not_depend_on_batching(engine: Engine, system: Any) -> None:
    batch = rows(5000)
    together = engine.score(batch, system=system)
    parts = [
        engine.score(batch.take(slice(i, i + 617)), system=system) for i in range(0, 5000, 617)
    ]
    apart = np.concatenate([p.probability for p in parts])
    np.testing.assert_allclose(together.probability, apart, atol=1e-6)


@pytest.mark.parametrize("system", ["dynamic", "student", "ensemble"])
def test_no_rows_no_answers(engine: Engine, system: Any) -> None:
    assert len(engine.score(rows(0), system=system).probability) == 0


def test_the_hardest_rows_go_first_and_as_many_as_fit(
    clocked: tuple[Engine, FakeClock],
) -> None:
    engine, clock = clocked
    batch = rows(100)
    (difficulty,) = engine.student.run(("difficulty",), batch.dense, batch.ids)
    # 0.1 ms for the student and 3.25 ms for the ensemble: 32 rows of 0.1 ms.
    deadline = clock() + STUDENT_CALL_S + 3.25e-3
    scores = engine.score(batch, deadline_s=deadline, threshold=-np.inf)
    assert (scores.hard_wanted, scores.hard_granted, scores.degraded) == (100, 32, "budget")
    hardest = np.argsort(-difficulty, kind="stable")[:32]
    assert sorted(hardest) == np.flatnonzero(scores.route).tolist()
    assert clock() <= deadline
    assert max(clock.calls) <= 10  # chunks of 1 ms
    student = engine.score(batch, system="student")
    easy = scores.route == 0
    np.testing.assert_array_equal(scores.probability[easy], student.probability[easy])


def test_a_member_ten_times_slower_costs_rows_and_not_punctuality(
    clocked: tuple[Engine, FakeClock],
) -> None:
    engine, clock = clocked
    clock.slowdown = 10.0
    late = []
    granted = []
    for _ in range(12):
        deadline = clock() + 8e-3
        scores = engine.score(rows(50), deadline_s=deadline, threshold=-np.inf)
        late.append(clock() > deadline)
        granted.append(scores.hard_granted)
    assert not any(late[3:])  # the first chunks had to be tried
    assert 0 < granted[-1] < 10
    clock.slowdown = 1.0
    for _ in range(40):
        scores = engine.score(rows(50), deadline_s=clock() + 8e-3, threshold=-np.inf)
    assert scores.hard_granted == 50


def test_the_caller_may_allow_fewer_rows(clocked: tuple[Engine, FakeClock]) -> None:
    engine, clock = clocked
    steps = engine.steps(rows(50), deadline_s=clock() + 1.0, threshold=-np.inf)
    step = next(steps)
    assert (step.pause, step.rows_left) == (Pause.ENSEMBLE, 50)
    scores = finish(steps, 12)
    assert (scores.hard_wanted, scores.hard_granted, scores.degraded) == (50, 12, "load")


def finish(steps: Any, allowed: int) -> Scores:
    try:
        step = steps.send(allowed)
        while True:
            assert step.pause is Pause.CHUNK
            step = next(steps)
    except StopIteration as stop:
        return stop.value


def test_between_chunks_the_caller_gets_its_turn(clocked: tuple[Engine, FakeClock]) -> None:
    engine, clock = clocked
    steps = engine.steps(rows(25), threshold=-np.inf, deadline_s=clock() + 1.0)
    pauses = [(s.pause, s.rows_left) for s in steps]
    assert pauses == [(Pause.ENSEMBLE, 25), (Pause.CHUNK, 15), (Pause.CHUNK, 5)]


@pytest.mark.parametrize("system", ["dynamic", "student", "ensemble", "ensemble_with_student"])
def test_nothing_is_answered_after_the_deadline(
    clocked: tuple[Engine, FakeClock], system: Any
) -> None:
    engine, clock = clocked
    with pytest.raises(BudgetSpentError):
        engine.score(rows(10), system=system, deadline_s=clock() - 1e-9)


def test_the_static_trio_answers_every_row_or_none(clocked: tuple[Engine, FakeClock]) -> None:
    engine, clock = clocked
    assert engine.score(rows(10), system="ensemble", deadline_s=clock() + 1.1e-3).hard_granted == 10
    started = clock()
    with pytest.raises(BudgetSpentError):
        engine.score(rows(10), system="ensemble", deadline_s=clock() + 0.5e-3)
    assert clock() == started  # not even the rows that would have fit were run


def test_graphs_without_the_agreed_outputs_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynens.engine.RowEncoder.load", lambda directory: FakeEncoder())

    def export(student: Path, ensemble: Path) -> Path:
        write_bundle(
            tmp_path / "bundle",
            dataset="toy",
            layout=LAYOUT,
            router=RouterSpec(threshold=0.0, difficulty="margin", hard_fraction=0.3),
            members=["a"],
            student=student,
            ensemble=ensemble,
            encoder=FakeEncoder(),
        )
        return tmp_path / "bundle"

    with pytest.raises(BundleError, match="lacks outputs"):
        Engine.load(export(bundle / "student.onnx", bundle / "student.onnx"))
    (tmp_path / "junk.onnx").write_bytes(b"junk")
    with pytest.raises(BundleError, match="cannot be loaded"):
        Engine.load(export(tmp_path / "junk.onnx", bundle / "ensemble.onnx"))
    wider = FeatureLayout(("price",), LAYOUT.fields)
    other = student_graph(tmp_path / "other.onnx", wider)
    with pytest.raises(BundleError, match="do not run"):
        Engine.load(export(other, bundle / "ensemble.onnx"))


def test_warm_up_speaks_to_fields_of_every_kind(tmp_path: Path) -> None:
    days = [f"{1 + i % 28:02}.03.2024" for i in range(200)]
    table = {"day": days, "x": ["1,5", "2"] * 100, "tags": ["a|b"] * 200, "y": [0, 1] * 100}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    fields = (
        FieldSpec(name="weekday", column="day", derive="weekday"),
        FieldSpec(name="day", kind="numeric", derive="epoch_days"),
        FieldSpec(name="x", kind="numeric", decimal=","),
        FieldSpec(name="tags", kind="multi_valued", separator="|"),
    )
    features = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    config = DatasetConfig(files=(str(tmp_path / "t.parquet"),), features=features)
    encoder = prepare(config, tmp_path / "data", seed=0).encoder
    Engine._warm_encoder(SimpleNamespace(encoder=encoder))  # type: ignore[arg-type]
