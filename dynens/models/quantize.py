"""INT8 for exported networks, with scales fixed in advance.

ONNX Runtime's dynamic quantisation takes an activation's range from the batch at hand, so a row's
answer would depend on its neighbours. Here every range comes from calibration rows, once:

- a dense layer `y = x W + b` becomes `q = round(x / (c s)) + z` in uint8, an integer product with
  int8 weights `W c`, one scale per output unit, and a float32 result with the bias;
- a large embedding table becomes int8 with one scale per column: Gather, cast, multiply. A scale
  per row needs a second Gather, which made lookups up to 60 % slower than float32; per column they
  cost about the same.

The column factors c move range from activations to weights (SmoothQuant's equation 4): the
input of a first layer joins columns of very different ranges, such as dense features and products
beside embeddings, and one scale for all would lose the narrow ones. The output of a ReLU gets
none, as its columns are alike.

References:
    Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language
    Models", ICML 2023, eq. 3-4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dynens.batch import EncodedBatch
from dynens.models.onnx_export import save_model
from dynens.session import GraphSession

Array = npt.NDArray[np.float32]

CONTRIB_DOMAIN = "com.microsoft"
# Narrower layers (a logit's weights) cost next to nothing.
MIN_WIDTH = 8
# Without VNNI, x86 adds two uint8·int8 products in 16 bits: 2 · 255 · 63 < 2¹⁵, so that weights of
# 7 bits never overflow there, and every machine gives the same answer.
MAX_WEIGHT = 63
MAX_TABLE = 127
MAX_ACTIVATION = 255
# int8 tables save memory, not time (up to 0.2 µs per row are lost), and small ones take little.
MIN_TABLE_BYTES = 16 * 2**20
# SmoothQuant's α. Of 0.5, 0.65, 0.8 and 1, the least error of logits over seven networks trained on
# MovieLens-1M's sample and on KuaiRand-Pure; 0.8 and more lose up to 0.002 AUC on the latter.
BALANCE = 0.65
# A column whose range is below this share of the widest one's counts as that wide.
SMALLEST_RANGE = 1e-3


@dataclass(frozen=True)
class DenseLayer:
    """`output = input · weight + bias` in a float32 graph; weight (K, N), bias's name or ""."""

    node: NodeProto
    weight_name: str
    weight: Array
    bias: str


@dataclass(frozen=True)
class InputScale:
    """How a dense layer's input x (…, K) becomes uint8: `round(x / (columns · scale)) + zero`."""

    columns: Array | None
    scale: float
    zero: int


def quantize_graph(
    source: Path,
    rows: EncodedBatch,
    path: Path,
    *,
    keep: Sequence[str] = (),
    min_table_bytes: int = MIN_TABLE_BYTES,
) -> bool:
    """Write the INT8 form of an exported network.

    Args:
        source: a graph with inputs `dense` and `ids`.
        rows: calibration rows; they set the ranges of activations.
        path: the file to write; may be `source`.
        keep: dense layers whose weights' names start with one of these stay float32.
        min_table_bytes: smaller embedding tables stay float32.

    Returns:
        False, with nothing written, where the graph has no dense layers (trees, linear models).
    """
    model = onnx.load(str(source))
    layers = [x for x in dense_layers(model) if not x.weight_name.startswith(tuple(keep))]
    if not layers:
        return False
    weights: dict[str, list[Array]] = {}
    for layer in layers:
        weights.setdefault(layer.node.input[0], []).append(layer.weight)
    ranges = _column_ranges(model, list(weights), rows)
    rectified = _rectified(model)
    scales = {
        name: input_scale(*ranges[name], [] if name in rectified else matrices)
        for name, matrices in weights.items()
    }
    editor = _Editor(model)
    editor.replace_layers({layer.node.output[0]: layer for layer in layers}, scales)
    editor.replace_tables(min_table_bytes)
    editor.save(path)
    return True


def _rectified(model: ModelProto) -> set[str]:
    """Outputs of ReLUs, and parts of them: the inputs of branches."""
    names: set[str] = set()
    for node in model.graph.node:  # in topological order
        is_part = node.op_type in ("Slice", "Split") and node.input[0] in names
        if node.op_type == "Relu" or is_part:
            names.update(node.output)
    return names


def dense_layers(model: ModelProto) -> list[DenseLayer]:
    """The Gemm and MatMul nodes with a constant matrix of at least MIN_WIDTH on both sides."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        if node.op_type not in ("Gemm", "MatMul") or node.input[1] not in constants:
            continue
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = numpy_helper.to_array(constants[node.input[1]])
        plain = options.get("alpha", 1) == 1 == options.get("beta", 1) and not options.get("transA")
        if weight.ndim != 2 or min(weight.shape) < MIN_WIDTH or not plain:
            continue
        weight = weight.T if options.get("transB") else weight
        bias = node.input[2] if len(node.input) > 2 else ""
        layers.append(DenseLayer(node, node.input[1], weight, bias))
    return layers


def input_scale(low: Array, high: Array, weights: Sequence[Array]) -> InputScale:
    """The scale of an input whose columns lie in [low, high].

    Args:
        low: (K,) smallest value of each column.
        high: (K,) largest.
        weights: matrices (K, N) the input is multiplied with, which column factors balance
            against; none: one scale for all columns.
    """
    columns = None
    if weights:
        activation = _at_least(np.maximum(-low, high))
        weight = _at_least(np.max([np.abs(w).max(axis=1) for w in weights], axis=0))
        columns = (activation**BALANCE / weight ** (1 - BALANCE)).astype(np.float32)
        low, high = low / columns, high / columns
    bottom, top = min(float(low.min()), 0.0), max(float(high.max()), 0.0)
    scale = (top - bottom) / MAX_ACTIVATION or 1.0
    return InputScale(columns, scale, round(-bottom / scale))


def _at_least(values: Array) -> Array:
    return np.maximum(values, SMALLEST_RANGE * (float(values.max()) or 1.0))


def quantize_columns(matrix: Array, largest: int) -> tuple[npt.NDArray[np.int8], Array]:
    """int8 (K, N) within ±`largest` and scales (N,), with `matrix ≈ int8 · scales`."""
    scales = (np.abs(matrix).max(axis=0) / largest).astype(np.float32)
    scales[scales == 0] = 1.0
    return np.rint(matrix / scales).astype(np.int8), scales


def _column_ranges(
    model: ModelProto, names: Sequence[str], rows: EncodedBatch
) -> dict[str, tuple[Array, Array]]:
    """Smallest and largest value (K,) of each column of the named tensors (…, K)."""
    probed = ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    values = GraphSession(probed.SerializeToString()).run_all(names, rows)
    flat = {name: v.reshape(-1, v.shape[-1]) for name, v in zip(names, values, strict=True)}
    return {name: (v.min(axis=0), v.max(axis=0)) for name, v in flat.items()}


class _Editor:
    """Rewrites the nodes of a graph one pass at a time and drops what nothing uses any more."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def replace_layers(self, layers: dict[str, DenseLayer], scales: dict[str, InputScale]) -> None:
        """Integer products in place of the layers, given by the name of their output."""
        quantized: set[str] = set()
        for node in self.model.graph.node:
            layer = layers.get(node.output[0])
            if layer is None:
                self.nodes.append(node)
                continue
            name = node.input[0]
            if name not in quantized:
                self._quantize_input(name, scales[name])
                quantized.add(name)
            self._multiply(layer, scales[name])

    def _quantize_input(self, name: str, how: InputScale) -> None:
        source = name
        if how.columns is not None:
            factors = self.constant(f"{name}_int8_factors", 1 / how.columns)
            source = f"{name}_int8_balanced"
            self.nodes.append(helper.make_node("Mul", [name, factors], [source]))
        scale = self.constant(f"{name}_int8_scale", np.array(how.scale, np.float32))
        zero = self.constant(f"{name}_int8_zero", np.array(how.zero, np.uint8))
        self.nodes.append(
            helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_int8"])
        )

    def _multiply(self, layer: DenseLayer, how: InputScale) -> None:
        weight = layer.weight if how.columns is None else layer.weight * how.columns[:, None]
        values, scales = quantize_columns(weight, MAX_WEIGHT)
        name, matrix = layer.node.input[0], f"{layer.weight_name}_int8"
        inputs = [
            f"{name}_int8",
            self.constant(matrix, values),
            f"{name}_int8_scale",
            self.constant(f"{matrix}_scale", scales),
            f"{name}_int8_zero",
        ]
        output = layer.node.output[0]
        # A bias that is computed, the part that rows share, is more than the operator can add.
        is_constant = not layer.bias or layer.bias in self.constants
        product = output if is_constant else f"{output}_int8"
        if layer.bias and is_constant:
            inputs += ["", layer.bias]
        multiply = helper.make_node(
            "MatMulIntegerToFloat",
            inputs,
            [product],
            domain=CONTRIB_DOMAIN,
            name=layer.node.name,
        )
        self.nodes.append(multiply)
        if not is_constant:
            self.nodes.append(helper.make_node("Add", [product, layer.bias], [output]))

    def replace_tables(self, min_bytes: int) -> None:
        """int8 rows in place of embedding tables: Gather, Cast, Mul by the columns' scales."""
        nodes, self.nodes = self.nodes, []
        for node in nodes:
            table = self.constants.get(node.input[0]) if node.op_type == "Gather" else None
            if table is None or not _is_table(table, min_bytes):
                self.nodes.append(node)
                continue
            values, scales = quantize_columns(numpy_helper.to_array(table), MAX_TABLE)
            output, name = node.output[0], f"{table.name}_int8"
            inputs = [self.constant(name, values), node.input[1]]
            factors = self.constant(f"{name}_scale", scales)
            self.nodes += [
                helper.make_node("Gather", inputs, [f"{output}_int8"], name=node.name),
                helper.make_node(
                    "Cast", [f"{output}_int8"], [f"{output}_cast"], to=TensorProto.FLOAT
                ),
                helper.make_node("Mul", [f"{output}_cast", factors], [output]),
            ]

    def save(self, path: Path) -> None:
        graph = self.model.graph
        used = {name for node in self.nodes for name in node.input}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(t for name, t in self.constants.items() if name in used)
        if CONTRIB_DOMAIN not in {entry.domain for entry in self.model.opset_import}:
            self.model.opset_import.append(helper.make_opsetid(CONTRIB_DOMAIN, 1))
        save_model(self.model, path)


def _is_table(tensor: TensorProto, min_bytes: int) -> bool:
    return (
        tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2
        and tensor.dims[1] >= MIN_WIDTH
        and 4 * tensor.dims[0] * tensor.dims[1] >= min_bytes
    )
