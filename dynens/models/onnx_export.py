"""PyTorch modules to ONNX graphs that ONNX Runtime runs without any training code."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from dynens.batch import FeatureLayout
from dynens.run import write_atomically

OPSET = 17
ML_OPSET = 3
IR_VERSION = 8


def export_module(
    module: nn.Module, layout: FeatureLayout, path: Path, outputs: tuple[str, ...] = ("logit",)
) -> None:
    """Write `module(dense (N, D), ids (N, W))` as an ONNX graph with a free number of rows N.

    Inputs are named `dense` (float32) and `ids` (int32), and both exist even when the table has
    no dense or no sparse features (they are then N × 0). Where the layout has columns that the
    candidates of a request share, a scalar `context_rows` (int64) is the third: 1 when all rows
    agree in these columns, which are then read from the first row alone, else N.
    """
    names = [i.name for i in graph_inputs(layout)]
    example = (
        torch.zeros(2, layout.num_dense),
        torch.ones(2, layout.ids_width, dtype=torch.int32),
        torch.tensor(2),
    )[: len(names)]
    axes = {name: {0: "rows"} for name in ("dense", "ids", *outputs)}

    def write(temporary: Path) -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module.eval(),
                example,
                str(temporary),
                input_names=names,
                output_names=list(outputs),
                dynamic_axes=axes,
                opset_version=OPSET,
                dynamo=False,
            )
        model = onnx.load(temporary)
        # The exporter drops inputs that the module does not use.
        del model.graph.input[:]
        model.graph.input.extend(graph_inputs(layout))
        onnx.checker.check_model(model)
        onnx.save(model, temporary)

    write_atomically(path, write)


def save_model(model: onnx.ModelProto, path: Path) -> None:
    """Check a graph and write it atomically."""
    onnx.checker.check_model(model)
    write_atomically(path, lambda temporary: onnx.save(model, temporary))


def graph_inputs(layout: FeatureLayout) -> list[onnx.ValueInfoProto]:
    """The inputs of every exported learner, in order."""
    inputs = [
        helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["rows", layout.num_dense]),
        helper.make_tensor_value_info("ids", TensorProto.INT32, ["rows", layout.ids_width]),
    ]
    if layout.has_context:
        inputs.append(helper.make_tensor_value_info("context_rows", TensorProto.INT64, []))
    return inputs
