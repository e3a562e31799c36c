"""Files for devices answer as the ONNX graph does, whatever the student is made of."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.mil import run_package
from dynens.ensemble.blend import Blend
from dynens.errors import BadInputError, TrainingError
from dynens.models.net_learner import NetLearner
from dynens.models.registry import MODELS
from tests.unit.models.tables import TinyTable, tiny_table
from tests.unit.models.test_contract import CONTEXT_TABLES, TABLES, config_of, fitted
from training.device_formats import (
    DEVICE_FORMATS,
    DeviceStudent,
    Feeds,
    device_feeds,
    write_device_file,
)

ROWS = 7
BLEND = Blend({"student": 1.3}, -0.2)
EVERYTHING = tiny_table(
    num_dense=3, num_fields=4, multi_valued=True, shared=3, context=(1, 2), apart=((1, 0), (2, 1))
)
NO_GRAPH, PARTS_OF_OTHERS = {"xgboost", "autorec", "bmf"}, {"lr", "fm", "dnn", "ipnn"}
CASES = {
    **{
        f"{name} of everything": (name, EVERYTHING)
        for name in sorted({*MODELS} - NO_GRAPH - PARTS_OF_OTHERS)
    },
    "branches with a product": ("ipnn x3 *6", EVERYTHING),
    **{f"ipnn, {name}": ("ipnn", TABLES[name]) for name in ("no dense", "no sparse", "one field")},
    "ipnn, no dense context": ("ipnn", CONTEXT_TABLES["no dense"]),
}
needs = {
    name: pytest.mark.skipif(
        importlib.util.find_spec(form.module) is None,
        reason=f"{form.module} is not installed (`{form.install}`)",
    )
    for name, form in DEVICE_FORMATS.items()
}
every_format = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs[name]) for name in DEVICE_FORMATS]
)


def student_of(model: str, table: TinyTable, onnx: Path) -> tuple[DeviceStudent, Feeds, np.ndarray]:
    """A student, rows, and their probabilities by ONNX Runtime and NumPy."""
    quick = config_of(model).optimizer.model_copy(update={"max_epochs": 1})
    learner = fitted(model, table, optimizer=quick)
    assert isinstance(learner, NetLearner)
    learner.export_onnx(onnx)
    rows = table.valid.take(slice(0, ROWS))
    session = ort.InferenceSession(str(onnx))
    inputs = {"dense": rows.dense, "ids": rows.ids, "context_rows": np.array(ROWS, np.int64)}
    given = {i.name: inputs[i.name] for i in session.get_inputs()}
    (logit,) = session.run(["logit"], given)
    expected = 1 / (1 + np.exp(0.2 - 1.3 * np.asarray(logit, np.float64)))
    return DeviceStudent(learner.networks_[0], BLEND), device_feeds(rows), expected


@every_format
@pytest.mark.parametrize("case", CASES)
def test_a_file_answers_as_onnx_runtime_does(case: str, name: str, tmp_path: Path) -> None:
    student, feeds, expected = student_of(*CASES[case], tmp_path / "student.onnx")
    form = DEVICE_FORMATS[name]
    path = tmp_path / f"student{form.suffix}"
    found = write_device_file(form, student, feeds, path)
    if found is None:
        found = run_package(path, feeds)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@needs["coreml"]
def test_a_core_ml_package_takes_any_number_of_rows_up_to_its_own(tmp_path: Path) -> None:
    import coremltools as ct

    student, feeds, expected = student_of("dnn", EVERYTHING, tmp_path / "student.onnx")
    path = tmp_path / "student.mlpackage"
    write_device_file(DEVICE_FORMATS["coreml"], student, feeds, path)
    fewer = run_package(path, {name: array[:3] for name, array in feeds.items()})
    np.testing.assert_allclose(fewer, expected[:3], atol=1e-6)
    description = ct.models.MLModel(str(path), skip_model_load=True).get_spec().description
    widths = {"dense": 3, "ids": EVERYTHING.layout.ids_width}
    for described in description.input:
        ranges = described.type.multiArrayType.shapeRange.sizeRanges
        bounds = [(size.lowerBound, size.upperBound) for size in ranges]
        assert bounds == [(1, ROWS), (widths[described.name],) * 2]
    assert [described.name for described in description.output] == ["probability"]


@every_format
def test_a_file_may_be_for_one_row(name: str, tmp_path: Path) -> None:
    student, feeds, expected = student_of("dnn", EVERYTHING, tmp_path / "student.onnx")
    one = {kind: array[:1] for kind, array in feeds.items()}
    path = tmp_path / f"student{DEVICE_FORMATS[name].suffix}"
    found = write_device_file(DEVICE_FORMATS[name], student, one, path)
    if found is None:
        found = run_package(path, one)
    np.testing.assert_allclose(found, expected[:1], atol=1e-6)


@pytest.mark.parametrize("name", DEVICE_FORMATS)
def test_a_converter_that_is_not_there_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = DEVICE_FORMATS[name]
    monkeypatch.setitem(sys.modules, form.module, None)
    student, feeds, _ = student_of("lr", EVERYTHING, tmp_path / "student.onnx")
    with pytest.raises(BadInputError, match=re.escape(f"`{form.install}` adds it.")):
        write_device_file(form, student, feeds, tmp_path / f"student{form.suffix}")


@pytest.mark.parametrize("name", DEVICE_FORMATS)
def test_a_converter_that_fails_ends_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    form = DEVICE_FORMATS[name]
    monkeypatch.setitem(sys.modules, form.module, sys)  # has nothing to convert with
    student, feeds, _ = student_of("lr", EVERYTHING, tmp_path / "student.onnx")
    capfd.readouterr()
    with pytest.raises(TrainingError, match=f"{form.module} cannot write this student"):
        write_device_file(form, student, feeds, tmp_path / f"student{form.suffix}")
    print("said afterwards")
    assert capfd.readouterr().out == "said afterwards\n"
