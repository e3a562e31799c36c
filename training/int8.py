"""INT8 graphs in a run: they take the place of the float32 ones where they are worth it.

That happens before anything is fitted on a model's logits, so blends, calibration, router and
evaluation all see the graph that is served.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynens.batch import EncodedBatch
from dynens.ensemble.int8 import Int8Trial, calibration_rows, try_int8
from dynens.ensemble.scorer import open_session
from dynens.models.onnx_export import export_module
from dynens.models.quantize import quantize_graph
from dynens.routing.student_graph import StudentTrunk
from dynens.run import MODEL_ONNX, RunDirectory, read_json, write_json
from training.context import StageContext

INT8_JSON = "int8.json"
QUANTIZATION_JSON = "quantization.json"
TRUNK_OUTPUTS = ("logit", "hidden", "rarity")
# The difficulty head is fitted on the INT8 trunk's outputs and costs little: it stays as it is.
DIFFICULTY_WEIGHTS = ("difficulty.",)

Array = npt.NDArray[np.float32]


def serve_int8(
    context: StageContext, graph: Path, judged: EncodedBatch, settled: Int8Trial | None = None
) -> Int8Trial | None:
    """Put the INT8 form in the place of `graph` if it is worth it, and record the trial beside it.

    Args:
        context: the stage's; with `ensemble.int8` off nothing happens.
        graph: an exported network with the output `logit`; replaced, it stays as `NAME_fp32.onnx`.
        judged: labelled rows that trained nothing.
        settled: the first pass's trial where this is the second, whose `judged` cannot decide.
    """
    if context.config.ensemble.int8 == "off":
        return None
    candidate = graph.with_name(f"{graph.stem}_int8.onnx")
    trial = settled or try_int8(graph, _calibration(context), judged, candidate)
    if settled is not None and settled.kept:
        quantize_graph(graph, _calibration(context), candidate)
    if trial.kept:
        os.replace(graph, _fp32_name(graph))
        os.replace(candidate, graph)
    else:
        candidate.unlink(missing_ok=True)
    write_json(graph.with_name(INT8_JSON), trial.to_dict())
    return trial


def settled_trial(context: StageContext, place: Callable[[RunDirectory], Path]) -> Int8Trial | None:
    """In a second pass, what the first one found of a network whose folder is `place`."""
    if context.first is None or context.config.ensemble.int8 == "off":
        return None
    return Int8Trial.from_dict(read_json(place(context.first) / INT8_JSON))


def _settled_student(context: StageContext) -> Int8Trial | None:
    if context.first is None:
        return None
    trials = read_json(context.first.router / QUANTIZATION_JSON)
    return Int8Trial.from_dict(trials["student"])


def fp32_graph(directory: Path) -> Path:
    """The FP32 graph of a learner, whatever form is served."""
    served = directory / MODEL_ONNX
    return _fp32_name(served) if is_int8(served) else served


def is_int8(graph: Path) -> bool:
    """Whether the served graph is the INT8 form of another."""
    return _fp32_name(graph).is_file()


def _fp32_name(graph: Path) -> Path:
    return graph.with_name(f"{graph.stem}_fp32.onnx")


def trunk_outputs(
    context: StageContext, trunk: StudentTrunk, rows: EncodedBatch
) -> tuple[tuple[Array, Array, Array], Int8Trial | None]:
    """The student's logit, hidden layer and rarity on `rows`, as served, and the INT8 trial."""
    if context.config.ensemble.int8 == "off":
        return trunk.outputs(rows), None
    with tempfile.TemporaryDirectory(dir=context.out) as directory:
        graph = Path(directory) / "trunk.onnx"
        export_module(trunk, context.prepared().layout, graph, outputs=TRUNK_OUTPUTS)
        trial = serve_int8(context, graph, rows, _settled_student(context))
        logit, hidden, rarity = open_session(graph).run_all(TRUNK_OUTPUTS, rows)
    return (logit, hidden, rarity), trial


def quantize_student(context: StageContext, graph: Path) -> None:
    """The served student in INT8, with the ranges that `trunk_outputs` used."""
    quantize_graph(graph, _calibration(context), graph, keep=DIFFICULTY_WEIGHTS)


def write_trials(context: StageContext, student: Int8Trial) -> None:
    """What was tried on every model of the run, in one file of the router stage."""
    directories = {name: context.run.learner(name) for name in context.config.learners}
    directories["baseline"] = context.run.baseline
    trials = {name: read_json(path / INT8_JSON) for name, path in directories.items()}
    write_json(context.out / QUANTIZATION_JSON, {**trials, "student": student.to_dict()})


def _calibration(context: StageContext) -> EncodedBatch:
    return calibration_rows(context.prepared().split("train"), context.config.seed)
