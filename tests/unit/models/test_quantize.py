"""INT8 graphs: exact where that can be worked out by hand, close to float32 elsewhere."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.config.learner import LearnerConfig
from dynens.ensemble.blend import Blend
from dynens.ensemble.fuse import fuse_ensemble
from dynens.ensemble.scorer import PoolScorer, open_session
from dynens.models.quantize import input_scale, quantize_columns, quantize_graph
from dynens.models.registry import build_learner
from tests.unit.models.tables import TinyTable, tiny_table

WIDTH = 8


def dense_graph(path: Path, weight: np.ndarray, table: np.ndarray) -> Path:
    """logit = Σ (dense · weight + 1 + table[id]): one Gemm and one lookup."""
    names = {
        "weight": weight.T.astype(np.float32),
        "bias": np.ones(weight.shape[1], np.float32),
        "table": table.astype(np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gemm", ["dense", "weight", "bias"], ["hidden"], transB=1),
        helper.make_node("Squeeze", ["ids", "axes"], ["id"]),
        helper.make_node("Gather", ["table", "id"], ["looked"]),
        helper.make_node("Add", ["hidden", "looked"], ["both"]),
        helper.make_node("ReduceSum", ["both", "axes"], ["logit"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [
            helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["n", len(weight)]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["n", 1]),
        ],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(value, name) for name, value in names.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def logits(path: Path, batch: EncodedBatch) -> np.ndarray:
    return PoolScorer({"x": path}).logits(batch)["x"]


def exported(directory: Path, model: str, table: TinyTable) -> Path:
    config = LearnerConfig.model_validate(
        {"model": model, "hidden_units": [32, 16], "optimizer": {"max_epochs": 2}}
    )
    learner = build_learner(config, table.layout, table.stats, 1)
    learner.fit(table.train, table.valid)
    learner.export_onnx(directory / f"{model}.onnx")
    return directory / f"{model}.onnx"


def test_scale_of_an_input_without_column_factors() -> None:
    """[-1, 4] over 255 steps: zero lies 51 steps above the bottom."""
    how = input_scale(np.array([-1.0, 0.0]), np.array([0.5, 4.0]), [])
    assert how.columns is None
    assert how.scale == pytest.approx(5 / 255)
    assert how.zero == 51


def test_column_factors_share_the_range_between_input_and_weights() -> None:
    """c = max|x|^0.65 / max|w|^0.35 = (4^0.65, 4^-0.35): x / c lies in [-½, 1] · 4^0.35."""
    weight = np.array([[1.0, -0.5], [4.0, 2.0]])
    how = input_scale(np.array([-2.0, 0.0]), np.array([4.0, 1.0]), [weight])
    assert how.columns == pytest.approx([4**0.65, 4**-0.35])
    assert how.scale == pytest.approx(1.5 * 4**0.35 / 255)
    assert how.zero == 85


def test_scale_of_an_input_that_is_always_zero() -> None:
    how = input_scale(np.zeros(3), np.zeros(3), [np.zeros((3, 2))])
    assert how.scale == 1.0
    assert how.zero == 0
    assert np.isfinite(how.columns).all()


def test_columns_have_their_own_scale() -> None:
    values, scales = quantize_columns(np.array([[63.0, 0.0, 1.0], [-31.4, 0.0, -1.26]]), 63)
    assert values.tolist() == [[63, 0, 50], [-31, 0, -63]]
    assert scales == pytest.approx([1.0, 1.0, 0.02])


def test_exact_where_every_value_lies_on_the_grid(tmp_path: Path) -> None:
    """Weights in {-1, 0, 1}·k/63, inputs on 255 steps of [0, 255], table entries on 127 steps."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-62, 63, (WIDTH, WIDTH)) / 63
    weight[np.arange(WIDTH), np.arange(WIDTH)] = 1.0
    table = rng.integers(-126, 127, (5, WIDTH)) / 127
    table[1] = 1.0
    dense = rng.integers(0, 256, (50, WIDTH)).astype(np.float32)
    dense[0] = 255.0
    batch = EncodedBatch(dense, rng.integers(0, 5, (50, 1)).astype(np.int32))
    source = dense_graph(tmp_path / "fp32.onnx", weight, table)
    # Columns of equal ranges have equal factors, which fall out of scale · factor.
    assert quantize_graph(source, batch, tmp_path / "int8.onnx", min_table_bytes=0)
    wanted = (dense @ weight + 1 + table[batch.ids[:, 0]]).sum(axis=1)
    assert logits(tmp_path / "int8.onnx", batch) == pytest.approx(wanted, rel=1e-5)


def test_error_is_within_half_a_step_of_weights_and_inputs(tmp_path: Path) -> None:
    """|Σ_k (x w - x̂ ŵ)| ≤ Σ_k |x| Δw/2 + |w| Δx/2 + Δx Δw/4, summed over the outputs."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(WIDTH, WIDTH))
    batch = EncodedBatch(
        rng.normal(size=(200, WIDTH)).astype(np.float32), np.zeros((200, 1), np.int32)
    )
    source = dense_graph(tmp_path / "fp32.onnx", weight, np.zeros((1, WIDTH)))
    quantize_graph(source, batch, tmp_path / "int8.onnx")
    how = input_scale(batch.dense.min(axis=0), batch.dense.max(axis=0), [weight])
    assert how.columns is not None
    weight_step = np.abs(weight * how.columns[:, None]).max(axis=0) / 63
    x, w = np.abs(batch.dense) / how.columns, np.abs(weight) * how.columns[:, None]
    bound = (
        x.sum(axis=1, keepdims=True) * weight_step / 2
        + w.sum(axis=0) * how.scale / 2
        + WIDTH * weight_step * how.scale / 4
    ).sum(axis=1)
    error = np.abs(logits(tmp_path / "int8.onnx", batch) - (batch.dense @ weight + 1).sum(axis=1))
    assert (error <= bound + 1e-4).all()
    assert error.max() > 1e-4  # something was rounded


@pytest.mark.parametrize("context", [(0, 0), (1, 2)])
@pytest.mark.parametrize("model", ["dnn", "deepfm", "dcnv2", "ipnn", "masknet", "finalmlp"])
def test_networks_stay_close_and_rows_do_not_depend_on_their_neighbours(
    tmp_path: Path, model: str, context: tuple[int, int]
) -> None:
    table = tiny_table(multi_valued=True, context=context)
    source, path = exported(tmp_path, model, table), tmp_path / "int8.onnx"
    assert quantize_graph(source, table.train, path, min_table_bytes=0)
    operators = {node.op_type for node in onnx.load(str(path)).graph.node}
    assert "MatMulIntegerToFloat" in operators
    assert path.stat().st_size < source.stat().st_size
    rows = EncodedBatch(
        np.tile(table.valid.dense, (2, 1))[:1000], np.tile(table.valid.ids, (2, 1))[:1000]
    )
    many = logits(path, rows)
    reference = logits(source, rows)
    assert np.abs(many - reference).mean() < 0.05 * reference.std()
    hundred = np.concatenate(
        [logits(path, rows.take(slice(i, i + 100))) for i in range(0, len(rows), 100)]
    )
    alone = np.concatenate([logits(path, rows.take(slice(i, i + 1))) for i in range(100)])
    assert hundred == pytest.approx(many, abs=1e-5)
    assert alone == pytest.approx(many[:100], abs=1e-5)


def test_branches_of_a_rectified_layer_get_no_column_factors(tmp_path: Path) -> None:
    """Only the network's input is scaled by column, however many branches read the hidden layer."""
    table = tiny_table(num_fields=6)
    muls = []
    for branches in (1, 3):
        config = LearnerConfig.model_validate(
            {
                "model": "dnn",
                "hidden_units": [32, 16, 16],
                "branches": branches,
                "optimizer": {"max_epochs": 1},
            }
        )
        learner = build_learner(config, table.layout, table.stats, 1)
        learner.fit(table.train, table.valid)
        path = tmp_path / f"{branches}.onnx"
        learner.export_onnx(path)
        before = logits(path, table.valid)
        assert quantize_graph(path, table.train, path)
        assert np.abs(logits(path, table.valid) - before).max() < 0.05
        nodes = onnx.load(str(path)).graph.node
        factors = [n for n in nodes if n.op_type == "Mul" and "factor" in "".join(n.input)]
        muls.append(len(factors))
    assert muls[1] == muls[0] > 0


def test_padding_rows_of_a_table_stay_zero(tmp_path: Path) -> None:
    table = tiny_table(multi_valued=True)
    path = tmp_path / "int8.onnx"
    quantize_graph(exported(tmp_path, "dnn", table), table.train, path, min_table_bytes=0)
    tables = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(str(path)).graph.initializer
        if t.name.endswith("table.weight_int8")
    }
    values = np.concatenate([tables[name] for name in sorted(tables)])  # group by group
    starts = np.cumsum([0] + [1 + f.num_embeddings for f in table.layout.fields])[:-1]
    assert values.dtype == np.int8
    assert not values[starts].any()


def test_kept_layers_and_small_tables_stay_float32(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    source = dense_graph(
        tmp_path / "fp32.onnx", rng.normal(size=(WIDTH, WIDTH)), np.ones((3, WIDTH))
    )
    batch = EncodedBatch(np.ones((4, WIDTH), np.float32), np.zeros((4, 1), np.int32))
    assert not quantize_graph(source, batch, tmp_path / "none.onnx", keep=("wei",))
    assert not (tmp_path / "none.onnx").exists()
    assert quantize_graph(source, batch, tmp_path / "int8.onnx")
    kinds = {t.name: t.data_type for t in onnx.load(str(tmp_path / "int8.onnx")).graph.initializer}
    assert kinds["table"] == TensorProto.FLOAT
    assert kinds["weight_int8"] == TensorProto.INT8


@pytest.mark.parametrize("model", ["lr", "fm", "xgboost"])
def test_models_without_dense_layers_are_left_alone(tmp_path: Path, model: str) -> None:
    table = tiny_table(rows=200)
    source = exported(tmp_path, model, table)
    assert not quantize_graph(source, table.train, tmp_path / "int8.onnx")


def test_fuses_with_float32_members(tmp_path: Path) -> None:
    table = tiny_table()
    fp32 = exported(tmp_path, "dcnv2", table)
    trees = exported(tmp_path, "xgboost", table)
    quantize_graph(fp32, table.train, tmp_path / "int8.onnx")
    members = {"a": tmp_path / "int8.onnx", "b": trees, "c": fp32}
    blend = Blend({"a": 0.5, "b": 0.3, "c": 0.2}, 0.1)
    fuse_ensemble(members, {"probability": blend}, table.layout, tmp_path / "ensemble.onnx")
    (probability,) = open_session(tmp_path / "ensemble.onnx").run_arrays(
        ("probability",),
        {
            "dense": table.valid.dense,
            "ids": table.valid.ids,
            "student_logit": np.zeros(len(table.valid), np.float32),
        },
    )
    wanted = blend.probability(PoolScorer(members).logits(table.valid))
    assert probability == pytest.approx(wanted, abs=1e-5)


def test_layout_without_dense_features(tmp_path: Path) -> None:
    layout = FeatureLayout((), (SparseField("a", 9), SparseField("b", 4)))
    rng = np.random.default_rng(0)
    ids = np.stack([rng.integers(0, 9, 64), rng.integers(0, 4, 64)], axis=1).astype(np.int32)
    labels = (ids[:, 0] % 2).astype(np.float32)
    rows = EncodedBatch(np.empty((64, 0), np.float32), ids, labels)
    config = LearnerConfig.model_validate(
        {"model": "dnn", "hidden_units": [16], "use_stats": False, "optimizer": {"max_epochs": 1}}
    )
    learner = build_learner(config, layout, tiny_table().stats, 1)
    learner.fit(rows, rows)
    learner.export_onnx(tmp_path / "fp32.onnx")
    assert quantize_graph(tmp_path / "fp32.onnx", rows, tmp_path / "int8.onnx")
    assert np.isfinite(logits(tmp_path / "int8.onnx", rows)).all()
