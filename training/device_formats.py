"""The student as one file for phones and other devices: TFLite (LiteRT) and Core ML.

Both converters read what `torch.export` makes of a module, so both start from the inference twin.
Nothing else needs them; they are imported when a file is written.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dynens.batch import EncodedBatch
from dynens.ensemble.blend import Blend
from dynens.errors import BadInputError, TrainingError
from dynens.models.network import CTRNetwork
from dynens.models.twin import InferenceTwin

PROBABILITY = "probability"
Array = npt.NDArray[Any]
Feeds = dict[str, Array]


class DeviceStudent(nn.Module):
    """`dense` (N, D) float32, `ids` (N, W) int32 → {"probability": (N,)}, calibrated.

    An input without columns is left out: the formats have no empty tensors.
    """

    def __init__(self, network: CTRNetwork, easy: Blend) -> None:
        super().__init__()
        self.network = InferenceTwin(network)
        self.scale = easy.weights["student"]
        self.bias = easy.bias
        self.eval()

    def forward(self, dense: Tensor | None = None, ids: Tensor | None = None) -> dict[str, Tensor]:
        if dense is None:
            assert ids is not None
            dense = torch.zeros(ids.shape[0], 0)
        if ids is None:
            ids = torch.zeros(dense.shape[0], 0, dtype=torch.int32)
        return {PROBABILITY: torch.sigmoid(self.scale * self.network(dense, ids) + self.bias)}

    def answers(self, feeds: Feeds) -> Array:
        """(N,) float32 probabilities."""
        with torch.inference_mode():
            return np.asarray(self(**_tensors(feeds))[PROBABILITY].numpy())


def device_feeds(rows: EncodedBatch) -> Feeds:
    """The inputs of a device's graph, for these rows."""
    arrays: Feeds = {"dense": np.array(rows.dense), "ids": np.array(rows.ids)}
    return {name: array for name, array in arrays.items() if array.shape[1]}


def _tensors(feeds: Feeds) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def _write_tflite(litert_torch: Any, student: DeviceStudent, feeds: Feeds, path: Path) -> Array:
    """A graph for exactly N rows, since the converter takes no lookups of a free number of them.

    Returns:
        What the file answers in LiteRT's interpreter.
    """
    runtime = importlib.import_module("ai_edge_litert.interpreter")
    litert_torch.convert(student, sample_kwargs=_tensors(feeds)).export(str(path))
    run = runtime.Interpreter(str(path), num_threads=1).get_signature_runner()
    return np.asarray(run(**feeds)[PROBABILITY])


def _write_coreml(ct: Any, student: DeviceStudent, feeds: Feeds, path: Path) -> None:
    """An mlprogram in float32 for 1 to N rows; only Apple's systems can run it."""
    count = len(next(iter(feeds.values())))
    rows = torch.export.Dim("rows", min=1, max=count) if count > 1 else None
    program = torch.export.export(
        student, (), _tensors(feeds), dynamic_shapes={name: {0: rows} for name in feeds}
    )
    ct.convert(
        # Its frontend knows no aliases.
        program.run_decompositions({torch.ops.aten.alias.default: lambda tensor: tensor}),
        outputs=[ct.TensorType(name=PROBABILITY)],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT32,
        package_dir=str(path),
        skip_model_load=True,
    )


@dataclass(frozen=True)
class DeviceFormat:
    """A kind of file.

    Attributes:
        suffix: of its name.
        module: the converter.
        install: what adds the converter.
        write: converts a student for N rows; what the file answers for them, where it can be run.
        free_rows: whether the file takes fewer rows than N, too.
    """

    suffix: str
    module: str
    install: str
    write: Callable[[Any, DeviceStudent, Feeds, Path], Array | None]
    free_rows: bool


DEVICE_FORMATS = {
    "tflite": DeviceFormat(
        ".tflite",
        "litert_torch",
        ".venv/bin/python -m pip install --no-deps -r requirements/tflite.txt",
        _write_tflite,
        free_rows=False,
    ),
    "coreml": DeviceFormat(
        ".mlpackage", "coremltools", "pip install coremltools", _write_coreml, free_rows=True
    ),
}


def write_device_file(
    form: DeviceFormat, student: DeviceStudent, feeds: Feeds, path: Path
) -> Array | None:
    """Write the student; `path` has the format's suffix and does not exist.

    Returns:
        (N,) what the file answers for the rows it was written with; None where it cannot be run.

    Raises:
        BadInputError: the converter is not installed.
        TrainingError: the converter does not know what the student is made of.
    """
    with _silent():
        try:
            converter = importlib.import_module(form.module)
        except ImportError as e:
            raise BadInputError(
                f"a {form.suffix} file is written by {form.module}, which cannot be imported "
                f"({e}); `{form.install}` adds it."
            ) from e
        try:
            return form.write(converter, student, feeds, path)
        except Exception as e:  # each pass of a converter has errors of its own
            why = f"{type(e).__name__}: {' '.join(str(e).split())[:160]}"
            raise TrainingError(
                f"{form.module} cannot write this student as a {form.suffix} file ({why}); "
                "use the ONNX graph in the bundle."
            ) from e


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Converters report their passes, some from C++, and warn of every torch newer than they."""
    streams = (sys.stdout, sys.stderr)
    with open(os.devnull, "w") as nothing, contextlib.ExitStack() as undo:
        for number, stream in enumerate(streams, start=1):
            stream.flush()
            kept = os.dup(number)
            undo.callback(os.close, kept)
            undo.callback(os.dup2, kept, number)
            os.dup2(nothing.fileno(), number)
            undo.callback(stream.flush)
        yield
