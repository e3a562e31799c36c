"""INT8 graphs in a run: what is put where, and that the router is fitted on what is served."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, load

from dynens.batch import EncodedBatch
from dynens.config.run import RunConfig
from dynens.ensemble.blend import Blend
from dynens.ensemble.int8 import GraphFigures, Int8Trial
from dynens.ensemble.scorer import open_session
from dynens.models.net_learner import NetLearner
from dynens.models.onnx_export import export_module
from dynens.models.quantize import quantize_graph
from dynens.models.registry import build_learner
from dynens.routing.difficulty import PredictedTarget
from dynens.routing.student_graph import StudentGraph, StudentTrunk, export_student
from dynens.run import RunDirectory
from dynens.schema import DatasetConfig
from tests.unit.models.tables import TinyTable, tiny_table
from training import int8
from training.context import StageContext

LABELLED = EncodedBatch(np.zeros((2, 1)), np.zeros((2, 1), np.int32), np.array([0, 1], np.float32))


def context(directory: Path, mode: str) -> StageContext:
    return StageContext(
        run=RunDirectory(directory),
        dataset=DatasetConfig.model_construct(),
        config=RunConfig.model_validate({"ensemble": {"int8": mode}}),
        out=directory,
        checkpoints=directory,
        progress=lambda _: None,
    )


def serve(directory: Path, mode: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`serve_int8` on a file that says "fp32", with a trial that writes "int8"."""

    def trial(source: Path, calibration: object, judged: object, path: Path) -> Int8Trial:
        path.write_text("int8")
        return Int8Trial(kept, "because")

    monkeypatch.setattr(int8, "try_int8", trial)
    monkeypatch.setattr(int8, "_calibration", lambda _: LABELLED)
    graph = directory / "model.onnx"
    graph.write_text("fp32")
    int8.serve_int8(context(directory, mode), graph, LABELLED)
    return graph


def test_off_leaves_everything_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(tmp_path, "off", True, monkeypatch)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"model.onnx": "fp32"}


def test_a_kept_graph_takes_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = serve(tmp_path, "auto", True, monkeypatch)
    assert graph.read_text() == "int8"
    assert (tmp_path / "model_fp32.onnx").read_text() == "fp32"
    assert json.loads((tmp_path / "int8.json").read_text())["kept"] is True
    assert len(list(tmp_path.iterdir())) == 3


def test_a_refused_graph_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = serve(tmp_path, "auto", False, monkeypatch)
    assert graph.read_text() == "fp32"
    assert json.loads((tmp_path / "int8.json").read_text())["why"] == "because"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kept", [True, False])
def test_a_second_pass_serves_what_the_first_one_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """Its own rows trained it, so that they could not decide."""

    def quantised(source: Path, calibration: object, path: Path) -> bool:
        path.write_text("int8")
        return True

    first, graph = tmp_path / "first", tmp_path / "second" / "model.onnx"
    for folder in (first, graph.parent):
        folder.mkdir()
    found = Int8Trial(kept, "because", GraphFigures(9, 2.0, 0.7), GraphFigures(4, 1.0, 0.7))
    (first / "int8.json").write_text(json.dumps(found.to_dict()))
    monkeypatch.setattr(int8, "try_int8", lambda *_: pytest.fail("tried again"))
    monkeypatch.setattr(int8, "quantize_graph", quantised)
    monkeypatch.setattr(int8, "_calibration", lambda _: LABELLED)
    graph.write_text("fp32")
    place = replace(context(graph.parent, "auto"), first=RunDirectory(first))
    settled = int8.settled_trial(place, lambda run: run.root)
    assert settled == found
    assert int8.serve_int8(place, graph, LABELLED, settled) == found
    assert graph.read_text() == ("int8" if kept else "fp32")
    assert (graph.parent / "model_fp32.onnx").exists() is kept


def trained_trunk(table: TinyTable) -> StudentTrunk:
    config = RunConfig().student.model_copy(update={"model": "dnn", "hidden_units": (16, 8)})
    optimizer = config.optimizer.model_copy(update={"max_epochs": 2})
    learner = build_learner(
        config.model_copy(update={"optimizer": optimizer}), table.layout, table.stats, 1
    )
    assert isinstance(learner, NetLearner)
    learner.fit(table.train, table.valid)
    counts = np.arange(len(table.stats.table), dtype=np.int64)
    return StudentTrunk(learner.networks_[0], table.layout, counts).eval()


def test_router_is_fitted_on_the_outputs_of_the_served_student(tmp_path: Path) -> None:
    table = tiny_table()
    trunk = trained_trunk(table)
    export_module(trunk, table.layout, tmp_path / "trunk.onnx", outputs=int8.TRUNK_OUTPUTS)
    quantize_graph(tmp_path / "trunk.onnx", table.train, tmp_path / "trunk.onnx")
    difficulty = PredictedTarget(8).eval()
    student = tmp_path / "student.onnx"
    export_student(
        StudentGraph(trunk, Blend({"student": 2.0}, 0.5), difficulty), table.layout, student
    )
    quantize_graph(student, table.train, student, keep=int8.DIFFICULTY_WEIGHTS)
    kinds = {t.name: t.data_type for t in load(str(student)).graph.initializer}
    assert kinds["difficulty.layers.0.weight"] == TensorProto.FLOAT
    assert TensorProto.INT8 in kinds.values()

    trunk_session = open_session(tmp_path / "trunk.onnx")
    logit, hidden, _ = trunk_session.run_all(int8.TRUNK_OUTPUTS, table.valid)
    served = open_session(student).run_all(("logit", "probability", "difficulty"), table.valid)
    assert served[0] == pytest.approx(logit, abs=1e-5)
    assert served[1] == pytest.approx(1 / (1 + np.exp(-(2 * logit + 0.5))), abs=1e-5)
    layers = [layer for layer in difficulty.layers if hasattr(layer, "weight")]
    first, second = ((x.weight.detach().numpy(), x.bias.detach().numpy()) for x in layers)
    wanted = np.maximum(hidden @ first[0].T + first[1], 0) @ second[0].T + second[1]
    assert served[2] == pytest.approx(wanted[:, 0], abs=1e-5)
    assert not np.allclose(logit, trunk.outputs(table.valid)[0], atol=1e-5)
