"""The fused ensemble graph against its members run one by one."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.ensemble.blend import Blend
from dynens.ensemble.fuse import fuse_ensemble
from dynens.ensemble.scorer import PoolScorer
from dynens.errors import BundleError

LAYOUT = FeatureLayout(("x",), (SparseField("u", 5),))


def linear_member(path: Path, slope: float, per_id: list[float]) -> None:
    """logit = slope · x + table[id]."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["dense", "slope"], ["scaled"]),
            helper.make_node("Gather", ["table", "ids"], ["looked"]),
            helper.make_node("Add", ["scaled", "looked"], ["sum"]),
            helper.make_node("Squeeze", ["sum", "axis"], ["logit"]),
        ],
        "member",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", 1]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 1]),
        ],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])],
        [
            numpy_helper.from_array(np.array([[slope]], np.float32), "slope"),
            numpy_helper.from_array(np.array(per_id, np.float32), "table"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))


def test_fused_graph_equals_the_blend_of_its_members(tmp_path: Path) -> None:
    members = {"a": tmp_path / "a.onnx", "b": tmp_path / "b.onnx"}
    linear_member(members["a"], 2.0, [0.0, 0.1, 0.2, 0.3, 0.4])
    linear_member(members["b"], -1.0, [1.0, 0.5, 0.0, -0.5, -1.0])
    trio = Blend({"a": 0.6, "b": 0.4}, 0.1)
    voiced = Blend({"a": 0.5, "b": 0.3, "student": 0.2}, -0.1)
    path = tmp_path / "ensemble.onnx"
    fuse_ensemble(members, {"probability": voiced, "trio_probability": trio}, LAYOUT, path)
    rng = np.random.default_rng(0)
    batch = EncodedBatch(
        rng.normal(size=(7, 1)).astype(np.float32), rng.integers(0, 5, (7, 1)).astype(np.int32)
    )
    student = rng.normal(size=7).astype(np.float32)
    logits = {**PoolScorer(members).logits(batch), "student": student}
    probability, alone = ort.InferenceSession(str(path)).run(
        ["probability", "trio_probability"],
        {"dense": batch.dense, "ids": batch.ids, "student_logit": student},
    )
    assert probability == pytest.approx(voiced.probability(logits), abs=1e-6)
    assert alone == pytest.approx(trio.probability(logits), abs=1e-6)
    assert logits["a"] == pytest.approx(2 * batch.dense[:, 0] + 0.1 * batch.ids[:, 0], abs=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"no graph"])
def test_a_member_that_is_not_intact_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"a\.onnx is missing or damaged; .* --resume"):
        PoolScorer({"a": path})
    with pytest.raises(BundleError, match=r"a\.onnx is missing or damaged"):
        fuse_ensemble({"a": path}, {"p": Blend({"a": 1.0}, 0.0)}, LAYOUT, tmp_path / "e.onnx")
