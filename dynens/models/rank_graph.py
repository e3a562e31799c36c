"""Graphs for ranking: what depends on the item alone is computed once, at export.

The candidates of a ranking request come from the bundle's item table, so every tensor of a graph
that no user or context column reaches has one row per item, known beforehand. `rank_graph` cuts
such tensors out, evaluates them for all items and puts a Gather in their place. A first layer reads
item columns beside others; `W x = W_item x_item + W_rest x_rest` is split so that the item's
product is among what is known.

The original takes N encoded rows; the result takes one row of context and N positions in the table:

    context_dense (1, D_c), context_ids (1, W_c), items (N,) int32 [, student_logit (N,)]

It works on the ONNX file, whatever learner wrote it, and relies on one thing: rows do not mix, the
first axis of what depends on a row being the row. Callers check the result against the original.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dynens.batch import EncodedBatch, FeatureLayout
from dynens.session import GraphSession

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

CONTEXT_DENSE, CONTEXT_IDS, ITEMS = "context_dense", "context_ids", "items"
_ITEM_DENSE, _ITEM_IDS = "item_dense", "item_ids"
_INPUTS = ("dense", "ids")
_EVALUATED_ROWS = 4096


class NotSeparableError(Exception):
    """The graph reads its inputs in a way that does not tell context and item columns apart."""


class TableTooLargeError(Exception):
    """What depends on the items alone takes more memory than allowed.

    Attributes:
        size_bytes: how much.
    """

    def __init__(self, size_bytes: float) -> None:
        super().__init__(f"{size_bytes:.0f} bytes")
        self.size_bytes = size_bytes


class Kind(Enum):
    """What a tensor depends on."""

    CONSTANT = 0
    CONTEXT = 1
    ITEM = 2
    BOTH = 3

    def joined(self, other: Kind) -> Kind:
        return Kind(self.value | other.value)


@dataclass(frozen=True)
class _Width:
    """How many columns of an input are the context's, and how many there are."""

    context: int
    total: int


def rank_graph(
    model: ModelProto, layout: FeatureLayout, table: EncodedBatch, max_bytes: float = math.inf
) -> ModelProto:
    """The same function for candidates given by their row in `table`.

    Args:
        model: takes `dense`, `ids`, `context_rows` and perhaps `student_logit`.
        layout: of these rows; it has context columns.
        table: (M, item columns), the last columns of an encoded row for every item.
        max_bytes: size of what is computed beforehand.

    Raises:
        NotSeparableError: the graph reads context and item columns together from the start.
        TableTooLargeError: there are too many items.
    """
    widths = {
        "dense": _Width(layout.context_dense, layout.num_dense),
        "ids": _Width(layout.context_ids_width, layout.ids_width),
    }
    items: Arrays = {_ITEM_DENSE: table.dense, _ITEM_IDS: table.ids}
    context: Arrays = {
        CONTEXT_DENSE: np.zeros((1, layout.context_dense), np.float32),
        CONTEXT_IDS: np.zeros((1, layout.context_ids_width), np.int32),
    }
    others = [i for i in model.graph.input if i.name not in (*_INPUTS, "context_rows")]
    graph = _Graph(model)
    graph.read_apart(widths)
    graph.inputs = [_info(name, array) for name, array in (context | items).items()] + others
    one_row = context | {name: array[:1] for name, array in items.items()}
    one_row |= {other.name: np.zeros(1, np.float32) for other in others}
    graph.split_first_layers(_block_widths(graph, one_row))
    graph.look_up(_evaluate(graph, items, max_bytes))
    rows = helper.make_tensor_value_info(ITEMS, TensorProto.INT32, ["rows"])
    graph.inputs = [_info(name, array) for name, array in context.items()] + [rows, *others]
    return graph.model()


def _info(name: str, array: Array) -> onnx.ValueInfoProto:
    """An input like `array`; the context has one row."""
    rows = 1 if name in (CONTEXT_DENSE, CONTEXT_IDS) else "rows"
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, [rows, array.shape[1]])


class _Graph:
    """A model's nodes in order, with its constants as arrays."""

    def __init__(self, model: ModelProto) -> None:
        self._source = model
        self.constants: dict[str, Array] = {
            i.name: numpy_helper.to_array(i) for i in model.graph.initializer
        }
        self.nodes: list[NodeProto] = []
        self.inputs = list(model.graph.input)
        for node in model.graph.node:
            if node.op_type == "Constant":
                self.constants[node.output[0]] = numpy_helper.to_array(_attribute(node, "value"))
            else:
                self.nodes.append(node)

    @property
    def outputs(self) -> list[str]:
        return [o.name for o in self._source.graph.output]

    def model(
        self,
        nodes: Sequence[NodeProto] | None = None,
        outputs: Iterable[onnx.ValueInfoProto] | None = None,
    ) -> ModelProto:
        """A model of some (or all) of the nodes, without what nobody needs."""
        results = list(self._source.graph.output if outputs is None else outputs)
        kept, needed = _needed(self.nodes if nodes is None else nodes, [o.name for o in results])
        graph = helper.make_graph(
            kept,
            "ranking",
            [i for i in self.inputs if i.name in needed],
            results,
            [
                numpy_helper.from_array(value, name)
                for name, value in self.constants.items()
                if name in needed
            ],
        )
        return helper.make_model(
            graph,
            opset_imports=self._source.opset_import,
            ir_version=self._source.ir_version,
            producer_name="dynens",
        )

    def kinds(self) -> dict[str, Kind]:
        """What every tensor depends on; the number of candidates is part of both sides."""
        kinds = dict.fromkeys(self.constants, Kind.CONSTANT)
        kinds |= {i.name: Kind.BOTH for i in self.inputs}
        kinds |= {CONTEXT_DENSE: Kind.CONTEXT, CONTEXT_IDS: Kind.CONTEXT}
        kinds |= {_ITEM_DENSE: Kind.ITEM, _ITEM_IDS: Kind.ITEM}
        for node in self.nodes:
            kind = Kind.CONSTANT
            for name in filter(None, node.input):
                kind = kind.joined(kinds[name])
            if node.op_type == "Shape" and kind is Kind.ITEM:
                kind = Kind.BOTH
            kinds |= dict.fromkeys(node.output, kind)
        return kinds

    def read_apart(self, widths: dict[str, _Width]) -> None:
        """Replace what the nodes read of the rows by context and item inputs.

        Raises:
            NotSeparableError: a node reads both.
        """
        renamed: dict[str, str] = {}  # a context part of the rows → its input
        kept = []
        for node in self.nodes:
            source = node.input[0] if node.input else ""
            if source in widths and self._takes_context_rows(node):
                renamed[node.output[0]] = f"context_{source}"
                continue
            apart = helper.make_node(node.op_type, node.input, node.output)
            apart.CopyFrom(node)
            for position, name in enumerate(node.input):
                if name in renamed:
                    apart.input[position] = renamed[name]
                elif name in widths:
                    if position:
                        raise NotSeparableError(f"{node.op_type} reads {name}")
                    self._read_items(apart, name, widths[name])
            kept.append(apart)
        self.nodes, needed = _needed(kept, self.outputs)
        if "context_rows" in needed:
            raise NotSeparableError("more than a slice of the rows depends on context_rows")

    def _takes_context_rows(self, node: NodeProto) -> bool:
        """Whether it is `x[:context_rows]`."""
        if node.op_type != "Slice" or len(node.input) < 4 or node.input[2] in self.constants:
            return False
        return bool((self.constants[node.input[3]] == 0).all())

    def _read_items(self, node: NodeProto, source: str, width: _Width) -> None:
        """Make a node that selects item columns of all rows do so on the item's input."""
        target = f"item_{source}"
        columns = np.arange(width.total)
        if node.op_type == "Slice" and self.constants[node.input[3]].tolist() == [1]:
            start, stop = (int(self.constants[name][0]) for name in node.input[1:3])
            columns = columns[start:stop]
        elif node.op_type == "Gather" and _axis(node) == 1:
            columns = columns[self.constants[node.input[1]]]
        if (columns < width.context).any():
            raise NotSeparableError(f"{node.op_type} reads context columns of {source} by the row")
        shift = width.context
        if node.op_type == "Slice" and len(columns) < width.total:
            stop = int(columns[-1]) + 1 - shift
            node.input[1] = self._constant(f"{node.output[0]}_start", [int(columns[0]) - shift])
            node.input[2] = self._constant(f"{node.output[0]}_stop", [stop])
        elif node.op_type == "Gather" and _axis(node) == 1:
            node.input[1] = self._constant(f"{node.output[0]}_columns", (columns - shift).tolist())
        node.input[0] = target

    def _constant(self, name: str, values: list[int]) -> str:
        self.constants[name] = np.array(values, np.int64)
        return name

    def linear_maps(self) -> Iterable[tuple[NodeProto, list[str]]]:
        """Products with a constant matrix, each with the columns' blocks it reads."""
        made_by = {name: node for node in self.nodes for name in node.output}
        for node in self.nodes:
            if not _is_linear(node) or node.input[1] not in self.constants:
                continue
            source = made_by.get(node.input[0])
            if source is not None and source.op_type == "Concat" and _axis(source) == 1:
                yield node, list(source.input)
            else:
                yield node, [node.input[0]]

    def split_first_layers(self, widths: dict[str, int]) -> None:
        """`W x + b` as `W_item x_item` plus the rest, where x has both.

        Args:
            widths: columns of every block that a linear map reads.
        """
        kinds = self.kinds()
        replaced: dict[str, list[NodeProto]] = {}
        for node, blocks in self.linear_maps():
            own = [kinds[name] is Kind.ITEM for name in blocks]
            if any(own) and kinds[node.output[0]] is Kind.BOTH:
                replaced[node.output[0]] = self._split(node, blocks, own, widths)
        nodes = [part for node in self.nodes for part in replaced.get(node.output[0], [node])]
        self.nodes, _ = _needed(nodes, self.outputs)

    def _split(
        self, node: NodeProto, blocks: list[str], own: list[bool], widths: dict[str, int]
    ) -> list[NodeProto]:
        out = node.output[0]
        weight = self.constants[node.input[1]]
        if _transposes(node):
            weight = weight.T
        ends = np.cumsum([widths[name] for name in blocks])
        rows = np.split(np.arange(len(weight)), ends[:-1])
        nodes: list[NodeProto] = []

        def product(chosen: bool, bias: str | None, result: str) -> None:
            """Of the item's blocks, or of the others."""
            names = [name for name, mine in zip(blocks, own, strict=True) if mine is chosen]
            at = [r for r, mine in zip(rows, own, strict=True) if mine is chosen]
            source, matrix = names[0], f"{result}_weight"
            if len(names) > 1:
                source = f"{result}_input"
                nodes.append(helper.make_node("Concat", names, [source], axis=1))
            self.constants[matrix] = weight[np.concatenate(at)]
            if bias is None:
                nodes.append(helper.make_node("MatMul", [source, matrix], [result]))
            else:
                nodes.append(helper.make_node("Gemm", [source, matrix, bias], [result]))

        has_bias = len(node.input) > 2
        is_last = all(own)
        items = f"{out}_items"
        product(True, None, items)
        bias = items
        if has_bias:
            bias = out if is_last else f"{out}_bias"
            nodes.append(helper.make_node("Add", [items, node.input[2]], [bias]))
        if not is_last:
            product(False, bias, out)
        return nodes

    def look_up(self, tables: dict[str, Array]) -> None:
        """Take the tensors in `tables` from there, by `items`."""
        kinds = self.kinds()
        gathers = []
        for name, table in tables.items():
            self.constants[f"{name}_table"] = table
            gathers.append(helper.make_node("Gather", [f"{name}_table", ITEMS], [name], axis=0))
        rest = [node for node in self.nodes if kinds[node.output[0]] is not Kind.ITEM]
        self.nodes = [*gathers, *rest]


def _needed(nodes: Sequence[NodeProto], outputs: Iterable[str]) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the outputs hang on, in order, and every tensor that these read."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed & set(node.output):
            kept.append(node)
            needed |= {name for name in node.input if name}
    return kept[::-1], needed


def _block_widths(graph: _Graph, one_row: Arrays) -> dict[str, int]:
    """The columns of all blocks that linear maps read, seen on one row."""
    produced = {name for node in graph.nodes for name in node.output}
    names = {name for _, blocks in graph.linear_maps() for name in blocks} & produced
    values = _run(graph.model(outputs=_anything(names)), sorted(names), one_row)
    return {name: value.shape[1] for name, value in (one_row | values).items() if value.ndim == 2}


def _evaluate(graph: _Graph, items: Arrays, max_bytes: float) -> dict[str, Array]:
    """Every tensor of the items alone that the rest reads, for all items."""
    kinds = graph.kinds()
    others = [node for node in graph.nodes if kinds[node.output[0]] is not Kind.ITEM]
    read = {name for node in others for name in node.input} | set(graph.outputs)
    tables = {name: array for name, array in items.items() if name in read}
    names = [n for n in kinds if kinds[n] is Kind.ITEM and n in read and n not in items]
    free = (Kind.ITEM, Kind.CONSTANT)
    mine = [node for node in graph.nodes if kinds[node.output[0]] in free]
    model = graph.model(mine, _anything(names))
    rows = len(items[_ITEM_IDS])
    parts: list[dict[str, Array]] = []
    for start in range(0, rows, _EVALUATED_ROWS):
        chunk = {name: array[start : start + _EVALUATED_ROWS] for name, array in items.items()}
        parts.append(_run(model, names, chunk))
        size = sum(array.nbytes for array in parts[-1].values()) * rows / len(chunk[_ITEM_IDS])
        size += sum(array.nbytes for array in tables.values())
        if size > max_bytes:
            raise TableTooLargeError(size)
    return tables | {name: np.concatenate([part[name] for part in parts]) for name in names}


def _run(model: ModelProto, names: list[str], feeds: Arrays) -> dict[str, Array]:
    if not names:
        return {}
    values = GraphSession(model.SerializeToString()).run_arrays(names, feeds)
    return dict(zip(names, values, strict=True))


def _anything(names: Iterable[str]) -> list[onnx.ValueInfoProto]:
    """Outputs whose types the runtime finds out."""
    return [onnx.ValueInfoProto(name=name) for name in names]


def _is_linear(node: NodeProto) -> bool:
    if node.op_type == "MatMul":
        return True
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0}
    return node.op_type == "Gemm" and all(
        helper.get_attribute_value(a) == plain.get(a.name, helper.get_attribute_value(a))
        for a in node.attribute
    )


def _transposes(node: NodeProto) -> bool:
    return any(a.name == "transB" and a.i for a in node.attribute)


def _axis(node: NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 0)


def _attribute(node: NodeProto, name: str) -> TensorProto:
    return next(a.t for a in node.attribute if a.name == name)
