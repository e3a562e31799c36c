"""A finished run's student as a file for devices, and what they must know to feed it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from dynens import __version__
from dynens.batch import FIRST_VALUE_ID, MISSING, OUT_OF_VOCABULARY, PADDING, FeatureLayout
from dynens.bundle import load_bundle
from dynens.data.prepared import open_prepared
from dynens.ensemble.blend import Blend
from dynens.errors import BadInputError, TrainingError
from dynens.models.net_learner import NetLearner
from dynens.models.registry import load_learner
from dynens.run import ROUTER_JSON, RunDirectory, no_empty_folders, read_json, write_json
from training.device_formats import (
    DEVICE_FORMATS,
    PROBABILITY,
    Array,
    DeviceFormat,
    DeviceStudent,
    Feeds,
    device_feeds,
    write_device_file,
)

MAX_DIFFERENCE = 1e-5
_EXAMPLE_ROWS = 5


def device_student(run: RunDirectory) -> DeviceStudent:
    """The student in float32, whatever the bundle serves, with its route's calibration."""
    learner = load_learner(run.student)
    assert isinstance(learner, NetLearner)
    blends = read_json(run.router / ROUTER_JSON)["blends"]
    return DeviceStudent(learner.networks_[0], Blend.from_dict(blends["student"]))


def export_device(run: RunDirectory, name: str, out: Path, num_rows: int) -> dict[str, Any]:
    """Write the student as `out`, and beside it `out`.json, which says how to feed it.

    Args:
        run: a finished run.
        name: of the format.
        out: replaced where it is there.
        num_rows: rows of a call: always that many (TFLite), or at most (Core ML).

    Returns:
        The content of the JSON.

    Raises:
        BadInputError: `out` has another ending, or is a folder of something else; or the converter
            is not installed.
        BundleError: the run is not finished.
        TrainingError: the converter cannot write this student, or the file answers differently.
    """
    form = DEVICE_FORMATS[name]
    if out.suffix != form.suffix:
        raise BadInputError(
            f"--out {out} ends in {out.suffix!r}; files for {name} end in {form.suffix}."
        )
    if os.path.isdir(out) and any(out.iterdir()) and not (out / "Manifest.json").is_file():
        raise BadInputError(f"--out {out} is a folder, and no package; choose another --out.")
    bundle = load_bundle(run.root, verify=False)
    student = device_student(run)
    rows = open_prepared(run.data).split("test")
    feeds = device_feeds(rows.take(np.resize(np.arange(len(rows)), num_rows)))
    expected = student.answers(feeds)
    note: dict[str, Any] = {
        "format": name,
        "dynens_version": __version__,
        "dataset": bundle.manifest.dataset,
        "bundle_version": bundle.version,
        "rows": {"min": 1 if form.free_rows else num_rows, "max": num_rows},
        "inputs": _inputs(bundle.layout, feeds),
        "outputs": [{"name": PROBABILITY, "type": "float32"}],
        "special_ids": {
            "out_of_vocabulary": OUT_OF_VOCABULARY,
            "missing": MISSING,
            "first_value": FIRST_VALUE_ID,
            "padding": PADDING,
        },
        "example": {
            input_: array[:_EXAMPLE_ROWS].tolist()
            for input_, array in (feeds | {PROBABILITY: expected}).items()
        },
    }
    try:
        with no_empty_folders(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            note["largest_difference"] = _replace(out, form, student, feeds, expected)
            write_json(out.with_name(f"{out.name}.json"), note)
    except OSError as e:
        raise BadInputError(
            f"{out} cannot be written ({e.strerror or e}); choose another --out."
        ) from e
    return note


def _replace(
    out: Path, form: DeviceFormat, student: DeviceStudent, feeds: Feeds, expected: Array
) -> float | None:
    """Write and check under a temporary name, then rename; the difference from `expected`."""
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        written = Path(folder) / f"student{form.suffix}"
        found = write_device_file(form, student, feeds, written)
        difference = None if found is None else float(np.abs(found - expected).max())
        if difference is not None and not difference <= MAX_DIFFERENCE:
            raise TrainingError(
                f"the {form.suffix} file that {form.module} wrote answers up to {difference:.2g} "
                f"away from the student, where {MAX_DIFFERENCE:g} is allowed; use the ONNX graph "
                "in the bundle."
            )
        if out.is_dir() and written.is_dir():
            shutil.move(out, Path(folder) / "replaced")
        os.replace(written, out)
    return difference


def _inputs(layout: FeatureLayout, feeds: Feeds) -> list[dict[str, Any]]:
    """Name, type and columns of each input; a field's ids are `num_embeddings`, from 0 on."""
    fields = [
        {
            "field": field.name,
            "first": at.start,
            "width": field.width,
            "num_embeddings": field.num_embeddings,
            "vocabulary_of": field.vocabulary_of or field.name,
        }
        for field, at in layout.columns()
    ]
    columns: dict[str, list[Any]] = {"dense": list(layout.dense), "ids": fields}
    return [
        {"name": name, "type": str(array.dtype), "width": array.shape[1], "columns": columns[name]}
        for name, array in feeds.items()
    ]
