"""Small bundles with untrained but real graphs, for tests and benchmarks of serving.

The graphs have the shape of exported ones (one Gather over a flat offset table, then matrix
products) and, at the default sizes, about their cost: some 1 ms for 100 rows through the ensemble
and a tenth of that through the student.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dynens.batch import FeatureLayout

_OPSET = 17
_EMBEDDING = 16


@dataclass
class GraphBuilder:
    """Collects nodes and constants of one ONNX graph."""

    layout: FeatureLayout
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def embed(self) -> str:
        """dense, ids -> (N, num_dense + ids_width * E)."""
        offsets, start = [], 0
        for field, columns in self.layout.columns():
            offsets += [start + 1] * (columns.stop - columns.start)
            start += 1 + field.num_embeddings
        table = self.rng.standard_normal((max(start, 1), _EMBEDDING)).astype(np.float32)
        begin = 0
        for field, _ in self.layout.columns():
            table[begin] = 0.0
            begin += 1 + field.num_embeddings
        rows = self.node(
            "Add", ["ids", self.constant("offsets", np.array(offsets, np.int32))], "rows"
        )
        gathered = self.node("Gather", [self.constant("table", table), rows], "gathered")
        width = self.layout.ids_width * _EMBEDDING
        shape = self.constant("flat_shape", np.array([-1, width], np.int64))
        flat = self.node("Reshape", [gathered, shape], "flat")
        return self.node("Concat", ["dense", flat], "features", axis=1)

    def mlp(self, name: str, features: str, hidden: tuple[int, ...]) -> str:
        """(N, width) -> (N,) logit."""
        width = self.layout.num_dense + self.layout.ids_width * _EMBEDDING
        x = features
        for i, units in enumerate((*hidden, 1)):
            scale = np.float32(1.0 / np.sqrt(max(width, 1)))
            weight = self.rng.standard_normal((width, units)).astype(np.float32) * scale
            w = self.constant(f"{name}.w{i}", weight)
            b = self.constant(f"{name}.b{i}", np.zeros(units, np.float32))
            x = self.node("Gemm", [x, w, b], f"{name}.z{i}")
            if units != 1:
                x = self.node("Relu", [x], f"{name}.a{i}")
            width = units
        shape = self.constant(f"{name}.shape", np.array([-1], np.int64))
        return self.node("Reshape", [x, shape], f"{name}.logit")

    def scaled(self, x: str, factor: float, output: str) -> str:
        return self.node("Mul", [x, self.constant(f"{output}.factor", np.float32(factor))], output)

    def save(self, path: Path, outputs: tuple[str, ...], *, student_logit: bool = False) -> Path:
        inputs = [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["N", self.layout.num_dense]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", self.layout.ids_width]),
        ]
        if student_logit:
            inputs.append(helper.make_tensor_value_info("student_logit", TensorProto.FLOAT, ["N"]))
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in outputs],
            self.constants,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
        onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


def student_graph(
    path: Path, layout: FeatureLayout, *, hidden: tuple[int, ...] = (64, 32), seed: int = 1
) -> Path:
    """A student whose difficulty is minus the absolute logit."""
    g = GraphBuilder(layout, np.random.default_rng(seed))
    g.node("Identity", [g.mlp("student", g.embed(), hidden)], "logit")
    g.node("Sigmoid", ["logit"], "probability")
    g.node("Neg", [g.node("Abs", ["logit"], "margin")], "difficulty")
    return g.save(path, ("logit", "probability", "difficulty"))


def ensemble_graph(
    path: Path,
    layout: FeatureLayout,
    *,
    members: int = 3,
    hidden: tuple[int, ...] = (400, 300, 200),
    seed: int = 2,
) -> Path:
    """The mean logit of `members` networks, and the same with the student as one more voice."""
    g = GraphBuilder(layout, np.random.default_rng(seed))
    features = g.embed()
    logits = [g.mlp(f"member{i}", features, hidden) for i in range(members)]
    trio = g.scaled(g.node("Sum", logits, "total"), 1.0 / members, "trio_logit")
    g.node("Sigmoid", [trio], "trio_probability")
    voices = [g.scaled(trio, 0.75, "loud"), g.scaled("student_logit", 0.25, "soft")]
    g.node("Sigmoid", [g.node("Add", voices, "mixed")], "probability")
    return g.save(path, ("probability", "trio_probability"), student_logit=True)
