"""Running a graph: in one call, in chunks, and of no rows at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynens import session
from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.session import GraphSession
from tests.bundles import student_graph

LAYOUT = FeatureLayout(("x",), (SparseField("a", 20), SparseField("b", 9)))
OUTPUTS = ("logit", "difficulty")


def rows(count: int) -> EncodedBatch:
    rng = np.random.default_rng(count)
    ids = rng.integers(0, 9, (count, 2)).astype(np.int32)
    return EncodedBatch(rng.standard_normal((count, 1)).astype(np.float32), ids)


@pytest.fixture
def graph(tmp_path: Path) -> GraphSession:
    return GraphSession(student_graph(tmp_path / "student.onnx", LAYOUT))


def test_chunks_say_what_one_call_says(
    graph: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = rows(25)
    whole = graph.run(OUTPUTS, batch)
    sizes = []
    run = graph.run

    def counted(outputs: Any, batch: EncodedBatch, **shared: bool) -> Any:
        sizes.append(len(batch))
        return run(outputs, batch, **shared)

    monkeypatch.setattr(graph, "run", counted)
    monkeypatch.setattr(session, "CHUNK_ROWS", 10)
    chunked = graph.run_all(OUTPUTS, batch)
    assert sizes == [10, 10, 5]
    np.testing.assert_allclose(chunked, whole, atol=1e-6)


def test_no_rows_never_reach_the_runtime(
    graph: GraphSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime may end the process on them."""
    monkeypatch.setattr(graph, "run", lambda *_, **__: pytest.fail("was run"))
    assert [(a.shape, a.dtype) for a in graph.run_all(OUTPUTS, rows(0))] == [((0,), np.float32)] * 2


def test_a_graph_takes_of_the_arrays_those_it_names(graph: GraphSession) -> None:
    batch = rows(3)
    arrays = {"dense": batch.dense, "ids": batch.ids, "items": np.arange(7)}
    assert set(graph.inputs) == {"dense", "ids"}
    (logit,) = graph.run_arrays(("logit",), arrays)
    assert logit.shape == (3,)
