"""`dynens export RUN --format …`: one file for devices, and how to feed it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.mil import run_package
from dynens.errors import BadInputError, TrainingError
from dynens.run import RunDirectory
from tests.integration.pipeline.conftest import dynens
from training.device_formats import DEVICE_FORMATS, DeviceFormat, DeviceStudent
from training.devices import export_device


def wrong_by(difference: float) -> DeviceFormat:
    """A format whose files answer that far away; no converter is needed to write them."""

    def write(_: Any, student: DeviceStudent, feeds: Any, path: Path) -> np.ndarray:
        path.write_bytes(b"a graph")
        return student.answers(feeds) + np.float32(difference)

    return DeviceFormat(".tflite", "json", "", write, free_rows=False)


def arrays(example: dict[str, Any]) -> dict[str, np.ndarray]:
    types = {"ids": np.int32}
    return {name: np.array(rows, types.get(name, np.float32)) for name, rows in example.items()}


def bundle_answers(run: Path, example: dict[str, Any]) -> np.ndarray:
    """The bundle's own graph on the rows of a note."""
    session = ort.InferenceSession(str(run / "bundle/student.onnx"))
    feeds = arrays(example) | {"context_rows": np.array(len(example["ids"]), np.int64)}
    given = {i.name: feeds[i.name] for i in session.get_inputs()}
    return np.asarray(session.run(["probability"], given)[0])


@pytest.mark.skipif(
    importlib.util.find_spec("coremltools") is None, reason="coremltools is not installed"
)
def test_a_core_ml_package_and_its_note_agree_with_the_bundle(
    finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "files" / "student.mlpackage"
    for rows in (6, 4):  # the second replaces the first
        done = dynens("export", finished, "--format", "coreml", "--out", out, "--rows", rows)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"{out}: not run, which only a device can; ")
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, f"{out.name}.json"]
    note = json.loads(out.with_name(f"{out.name}.json").read_text())
    manifest = json.loads((finished / "bundle/manifest.json").read_text())
    assert note["bundle_version"] == manifest["bundle_version"]
    assert note["rows"] == {"min": 1, "max": 4}
    example = note["example"]
    expected = bundle_answers(finished, example)
    assert len(expected) == 4
    np.testing.assert_allclose(example.pop("probability"), expected, atol=1e-6)
    np.testing.assert_allclose(run_package(out, arrays(example)), expected, atol=1e-6)


def test_the_note_says_where_each_field_is(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEVICE_FORMATS, "tflite", wrong_by(2e-6))
    out = tmp_path / "student.tflite"
    note = export_device(RunDirectory(finished), "tflite", out, 100)
    assert json.loads(out.with_name("student.tflite.json").read_text()) == note
    assert note["rows"] == {"min": 100, "max": 100}
    assert note["largest_difference"] == pytest.approx(2e-6, rel=0.1)
    layout = json.loads((finished / "bundle/manifest.json").read_text())["layout"]
    by_name = {entry["name"]: entry for entry in note["inputs"]}
    assert by_name["dense"]["columns"] == layout["dense"]
    fields = by_name["ids"]["columns"]
    assert [[f["field"], f["num_embeddings"], f["width"]] for f in fields] == layout["fields"]
    firsts = np.cumsum([0, *(width for _, _, width in layout["fields"])])
    assert [f["first"] for f in fields] == firsts[:-1].tolist()
    assert by_name["ids"]["width"] == firsts[-1]


def test_a_file_that_answers_differently_is_not_left_behind(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DEVICE_FORMATS, "tflite", wrong_by(1e-3))
    with pytest.raises(TrainingError, match=r"answers up to 0\.001 away from the student"):
        export_device(RunDirectory(finished), "tflite", tmp_path / "new" / "s.tflite", 10)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_package_is_left_alone(finished: Path, tmp_path: Path) -> None:
    kept = tmp_path / "student.mlpackage" / "notes.txt"
    kept.parent.mkdir()
    kept.touch()
    with pytest.raises(BadInputError, match="is a folder, and no package"):
        export_device(RunDirectory(finished), "coreml", kept.parent, 10)
    assert kept.exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--format", "tflite"), "name it with --out."),
        (("--format", "coreml", "--out", "{}/student.onnx"), "end in .mlpackage."),
        (("--out", "{}/student.tflite"), "--out and --rows belong to a --format for devices"),
        (("--format", "coreml", "--out", "{}/s.mlpackage", "--rows", 0), "'--rows'"),
    ],
)
def test_a_mistake_is_one_sentence(
    finished: Path, tmp_path: Path, arguments: tuple[object, ...], sentence: str
) -> None:
    done = dynens("export", finished, *(str(a).format(tmp_path) for a in arguments))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
