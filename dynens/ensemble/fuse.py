"""One ONNX graph for the whole ensemble: members side by side, blends on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dynens.batch import FeatureLayout
from dynens.ensemble.blend import Blend
from dynens.errors import TrainingError
from dynens.models.onnx_export import graph_inputs, save_model
from dynens.run import intact

STUDENT_LOGIT = "student_logit"


def fuse_ensemble(
    members: Mapping[str, Path], outputs: Mapping[str, Blend], layout: FeatureLayout, path: Path
) -> None:
    """Write a graph that runs every member on the same rows and blends their logits.

    Args:
        members: exported learners (inputs as `graph_inputs` has them; output `logit`).
        outputs: probability outputs by name; a blend may also name "student", whose logit then
            comes in through the input `student_logit` (N,).
        layout: the encoded rows.
        path: the file to write.

    Raises:
        BundleError: a member's file is missing or damaged.
        TrainingError: the members' graphs use different operator sets.
    """
    nodes: list[NodeProto] = []
    initializers: list[TensorProto] = []
    opsets: dict[str, int] = {}
    ir_version = 0
    logit_of = {"student": STUDENT_LOGIT}
    for position, (name, file) in enumerate(members.items()):
        with intact(file):
            model = onnx.load(str(file))
            onnx.checker.check_model(model)  # an empty file loads as an empty graph
        ir_version = max(ir_version, model.ir_version)
        for entry in model.opset_import:
            if opsets.setdefault(entry.domain, entry.version) != entry.version:
                raise TrainingError(
                    f"{file} uses operator set {entry.version} of {entry.domain or 'ai.onnx'} and "
                    f"another member {opsets[entry.domain]}; export both with one version."
                )
        logit_of[name] = _append_member(model, f"m{position}_", nodes, initializers)
    for output, blend in outputs.items():
        _append_blend(output, blend, logit_of, nodes, initializers)
    graph = helper.make_graph(
        nodes,
        "ensemble",
        [
            *graph_inputs(layout),
            helper.make_tensor_value_info(STUDENT_LOGIT, TensorProto.FLOAT, ["rows"]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows"]) for name in outputs],
        initializers,
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in opsets.items()],
        ir_version=ir_version,
        producer_name="dynens",
    )
    save_model(model, path)


def _append_member(
    model: ModelProto, prefix: str, nodes: list[NodeProto], initializers: list[TensorProto]
) -> str:
    """Add a member's nodes under a prefix; returns the name of its logit."""
    renamed = onnx.compose.add_prefix(model, prefix)
    names = {prefix + i.name: i.name for i in model.graph.input}
    for node in renamed.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        nodes.append(node)
    initializers.extend(renamed.graph.initializer)
    return prefix + "logit"


def _append_blend(
    output: str,
    blend: Blend,
    logit_of: Mapping[str, str],
    nodes: list[NodeProto],
    initializers: list[TensorProto],
) -> None:
    """σ(bias + Σ w z) as Mul, Sum, Add and Sigmoid."""
    terms = []
    for name, weight in blend.weights.items():
        constant = f"{output}_w_{name}"
        initializers.append(numpy_helper.from_array(np.array([weight], np.float32), constant))
        terms.append(f"{output}_wz_{name}")
        nodes.append(helper.make_node("Mul", [logit_of[name], constant], [terms[-1]]))
    bias = f"{output}_bias"
    initializers.append(numpy_helper.from_array(np.array([blend.bias], np.float32), bias))
    nodes.append(helper.make_node("Sum", [*terms, bias], [f"{output}_logit"]))
    nodes.append(helper.make_node("Sigmoid", [f"{output}_logit"], [output]))
