"""PyTorch modules to ONNX graphs that ONNX Runtime runs without any training code."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path

import onnx
import torch
from onnx import helper
from torch import nn

from dynens.batch import FeatureLayout

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8


def export_module(
    module: nn.Module, layout: FeatureLayout, path: Path, outputs: tuple[str, ...] = ("logit",)
) -> None:
    """Write `module(dense (N, D), ids (N, W))` as an ONNX graph with a free number of rows N.

    Inputs are named `dense` (float32) and `ids` (int32), and both exist even when the table has
    no dense or no sparse features (they are then N × 0).
    """
    example = (
        torch.zeros(2, layout.num_dense),
        torch.ones(2, layout.ids_width, dtype=torch.int32),
    )
    axes = {name: {0: "rows"} for name in ("dense", "ids", *outputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".onnx.tmp")
    os.close(handle)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                example,
                temporary,
                input_names=["dense", "ids"],
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(temporary)
        _declare_inputs(model.graph, layout)
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _declare_inputs(graph: onnx.GraphProto, layout: FeatureLayout) -> None:
    """Declare both inputs, in order: the exporter drops one that the module does not use."""
    del graph.input[:]
    for name, kind, width in (
        ("dense", onnx.TensorProto.FLOAT, layout.num_dense),
        ("ids", onnx.TensorProto.INT32, layout.ids_width),
    ):
        graph.input.append(helper.make_tensor_value_info(name, kind, ["rows", width]))
