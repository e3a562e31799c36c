"""Cutting out what depends on the item alone, on graphs small enough to reckon by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.ensemble.scorer import open_session
from dynens.models.onnx_export import OPSET, graph_inputs
from dynens.models.rank_graph import NotSeparableError, TableTooLargeError, rank_graph

# One dense feature and one id of the user, one dense feature and one id of the item.
LAYOUT = FeatureLayout(("age", "price"), (SparseField("user", 5), SparseField("item", 4)), 1, 1)
TABLE = EncodedBatch(
    np.array([[10.0], [20.0], [30.0]], np.float32), np.array([[2], [3], [1]], np.int32)
)
CONSTANTS = {
    "zero": np.array([0], np.int64),
    "one": np.array([1], np.int64),
    "two": np.array([2], np.int64),
    # Rows of a first layer: age, price, their product.
    "weight": np.array([[1.0, 0.0], [2.0, 1.0], [0.5, 0.0]], np.float32),
    "bias": np.array([0.25, -1.0], np.float32),
}
# y = [age, price, age * price] W + b, the age taken from the first row alone.
NODES = [
    helper.make_node("Unsqueeze", ["context_rows", "zero"], ["rows"]),
    helper.make_node("Slice", ["dense", "zero", "rows", "zero"], ["shared"]),
    helper.make_node("Slice", ["shared", "zero", "one", "one"], ["age"]),
    helper.make_node("Slice", ["dense", "one", "two", "one"], ["price"]),
    helper.make_node("Mul", ["age", "price"], ["both"]),
    helper.make_node("Mul", ["price", "price_ones"], ["price_again"]),
    helper.make_node("Add", ["age", "price_zeros"], ["age_of_rows"]),
    helper.make_node("Concat", ["age_of_rows", "price_again", "both"], ["x"], axis=1),
    helper.make_node("Gemm", ["x", "weight", "bias"], ["y"]),
]
# Makes every row's age out of the shared one, as exported graphs do by Expand.
ROWS = [helper.make_node("Mul", ["price", "nil"], ["price_zeros"])]


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    constants = CONSTANTS | {
        "price_ones": np.array([[1.0]], np.float32),
        "nil": np.array([[0.0]], np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        graph_inputs(LAYOUT),
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", "n"])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def run(ranking: onnx.ModelProto, age: float, items: list[int], tmp_path) -> np.ndarray:
    onnx.checker.check_model(ranking)
    onnx.save(ranking, str(tmp_path / "m.onnx"))
    feeds = {
        "context_dense": np.array([[age]], np.float32),
        "context_ids": np.array([[2]], np.int32),
        "items": np.array(items, np.int32),
    }
    session = open_session(tmp_path / "m.onnx")
    (y,) = session.run_arrays(session.outputs, feeds)
    return np.asarray(y)


def test_the_items_part_of_a_first_layer_is_known_beforehand(tmp_path) -> None:
    ranking = rank_graph(model([*NODES[:4], *ROWS, *NODES[4:]]), LAYOUT, TABLE)
    tables = {i.name: numpy_helper.to_array(i) for i in ranking.graph.initializer}
    # Of W x + b what reads the price alone: price * [2, 1] + [.25, -1].
    np.testing.assert_allclose(tables["y_bias_table"], [[20.25, 9], [40.25, 19], [60.25, 29]])
    assert [i.name for i in ranking.graph.input] == ["context_dense", "items"]
    # age 2, price 30: [2 + 60 + 30 + .25, 30 - 1]; price 10: [2 + 20 + 10 + .25, 10 - 1].
    found = run(ranking, 2.0, [2, 0, 2], tmp_path)
    np.testing.assert_allclose(found, [[92.25, 29], [32.25, 9], [92.25, 29]])


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([helper.make_node("ReduceSum", ["dense", "one"], ["y"])], "ReduceSum reads context"),
        (
            [
                helper.make_node("Slice", ["dense", "zero", "two", "one"], ["all"]),
                helper.make_node("ReduceSum", ["all", "one"], ["y"]),
            ],
            "Slice reads context columns",
        ),
        (
            [
                helper.make_node("Cast", ["context_rows"], ["n"], to=TensorProto.FLOAT),
                helper.make_node("Mul", ["price", "n"], ["y"]),
            ],
            "depends on context_rows",
        ),
        ([helper.make_node("Mul", ["price", "dense"], ["y"])], "Mul reads dense"),
    ],
)
def test_a_graph_that_mixes_from_the_start_is_refused(nodes, words) -> None:
    with pytest.raises(NotSeparableError, match=words):
        rank_graph(model([NODES[3], *nodes]), LAYOUT, TABLE)


def test_tables_may_not_grow_without_limit() -> None:
    whole = model([*NODES[:4], *ROWS, *NODES[4:]])
    # Looked up: the price, zeros of its shape, and the product's two numbers, for three items.
    with pytest.raises(TableTooLargeError) as refused:
        rank_graph(whole, LAYOUT, TABLE, max_bytes=47)
    assert refused.value.size_bytes == 3 * (1 + 1 + 2) * 4
    rank_graph(whole, LAYOUT, TABLE, max_bytes=48)
