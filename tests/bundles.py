"""Small bundles with untrained but real graphs, for tests and benchmarks of serving.

The graphs have the shape of exported ones (one Gather over a flat offset table, then matrix
products) and, at the default sizes, about their cost: some 1 ms for 100 rows through the ensemble
and a tenth of that through the student.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper

from dynens.batch import FeatureLayout
from dynens.bundle import ENSEMBLE, STUDENT, RouterSpec, write_bundle
from dynens.data.prepare import prepare
from dynens.data.prepared import open_prepared
from dynens.ensemble.scorer import open_session
from dynens.models.onnx_export import graph_inputs
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec, SplitConfig
from training.ranking import export_ranking

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

    def embed(self) -> list[str]:
        """dense, ids -> (M, width) features of the context, if any, and of the rest."""
        layout = self.layout
        start = 0
        offsets = []
        for field, columns in layout.columns():
            offsets += [start + 1] * (columns.stop - columns.start)
            start += 1 + field.num_embeddings
        table = self.rng.standard_normal((max(start, 1), _EMBEDDING)).astype(np.float32)
        begin = 0
        for field, _ in layout.columns():
            table[begin] = 0.0
            begin += 1 + field.num_embeddings
        self.constant("table", table)
        if not layout.has_context:
            return [self._features("all", "dense", "ids", np.array(offsets, np.int32))]
        at = {"dense": layout.context_dense, "ids": layout.context_ids_width}
        width = {"dense": layout.num_dense, "ids": layout.ids_width}
        rows = self.node(
            "Unsqueeze", ["context_rows", self.constant("axis", np.array([0], np.int64))], "shared"
        )
        zero, one = (self.constant(f"c{i}", np.array([i], np.int64)) for i in range(2))
        parts = []
        for part in ("context", "item"):
            columns = {}
            for name in ("dense", "ids"):
                source = name
                if part == "context":
                    source = self.node("Slice", [name, zero, rows, zero], f"shared_{name}")
                ends = (0, at[name]) if part == "context" else (at[name], width[name])
                first, last = (
                    self.constant(f"{part}_{name}_{k}", np.array([end], np.int64))
                    for k, end in enumerate(ends)
                )
                columns[name] = self.node("Slice", [source, first, last, one], f"{part}.{name}")
            cut = slice(0, at["ids"]) if part == "context" else slice(at["ids"], None)
            mine = np.array(offsets[cut], np.int32)
            parts.append(self._features(part, columns["dense"], columns["ids"], mine))
        return parts

    def _features(self, part: str, dense: str, ids: str, offsets: np.ndarray) -> str:
        rows = self.node("Add", [ids, self.constant(f"{part}_offsets", offsets)], f"{part}_at")
        gathered = self.node("Gather", ["table", rows], f"{part}_gathered")
        shape = np.array([-1, len(offsets) * _EMBEDDING], np.int64)
        flat = self.node(
            "Reshape", [gathered, self.constant(f"{part}_shape", shape)], f"{part}_flat"
        )
        return self.node("Concat", [dense, flat], f"{part}_features", axis=1)

    def mlp(self, name: str, features: list[str], hidden: tuple[int, ...]) -> str:
        """(M, width) each -> (N,) logit."""
        layout = self.layout
        width = layout.num_dense + layout.ids_width * _EMBEDDING
        inner = layout.context_dense + layout.context_ids_width * _EMBEDDING
        for i, units in enumerate((*hidden, 1)):
            scale = np.float32(1.0 / np.sqrt(max(width, 1)))
            weight = self.rng.standard_normal((width, units)).astype(np.float32) * scale
            x = self.constant(f"{name}.b{i}", np.zeros(units, np.float32))
            blocks = np.split(weight, [inner]) if len(features) > 1 else [weight]
            for part, block in enumerate(blocks):
                w = self.constant(f"{name}.w{i}.{part}", np.ascontiguousarray(block))
                x = self.node("Gemm", [features[part], w, x], f"{name}.z{i}.{part}")
            if units != 1:
                x = self.node("Relu", [x], f"{name}.a{i}")
            features, width = [x], units
        shape = self.constant(f"{name}.shape", np.array([-1], np.int64))
        return self.node("Reshape", [x, shape], f"{name}.logit")

    def scaled(self, x: str, factor: float, output: str) -> str:
        return self.node("Mul", [x, self.constant(f"{output}.factor", np.float32(factor))], output)

    def save(self, path: Path, outputs: tuple[str, ...], *, student_logit: bool = False) -> Path:
        inputs = graph_inputs(self.layout)
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


@dataclass(frozen=True)
class ToySize:
    """How large a toy run is."""

    users: int = 300
    items: int = 400
    rows: int = 4000


def toy_dataset(directory: Path, size: ToySize = ToySize()) -> DatasetConfig:
    """Users, items and clicks of every field kind, with missing values and Unicode, as CSV."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    towns = np.array(["Łódź", "São Paulo", "東京", "Oslo", "", "naïve, town"])
    genres = np.array(["action", "drama", "comedy", "horror", "sci-fi"])
    users = pa.table(
        {
            "user_id": np.arange(1, size.users + 1),
            "town": towns[rng.integers(0, len(towns), size.users)],
            "age": _with_gaps(rng.integers(18, 80, size.users).astype(float), rng),
        }
    )
    counts = rng.integers(1, 4, size.items)
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(size.items)],
            "genres": ["|".join(rng.choice(genres, n, replace=False)) for n in counts],
            "price": _with_gaps(rng.lognormal(2, 1, size.items).round(2), rng),
            "brand": [f"b{n}" for n in rng.integers(0, 40, size.items)],
        }
    )
    user_ids = rng.integers(1, size.users + 1, size.rows)
    item_ids = np.minimum(rng.zipf(1.3, size.rows) - 1, size.items - 1)
    appeal = 0.5 * np.sin(user_ids) + 0.8 * np.cos(item_ids) - 0.5
    clicks = pa.table(
        {
            "user_id": user_ids,
            "item_id": [f"i{n}" for n in item_ids],
            "hour": rng.integers(0, 24, size.rows),
            "click": (rng.random(size.rows) < 1 / (1 + np.exp(-appeal))).astype(int),
        }
    )
    for name, table in (("users", users), ("items", items), ("clicks", clicks)):
        pq.write_table(table, directory / f"{name}.parquet")
    fields = (
        FieldSpec(name="user_id", entity="user"),
        FieldSpec(name="town", entity="user"),
        FieldSpec(name="age", entity="user", kind="numeric"),
        FieldSpec(name="hour"),
        FieldSpec(name="item_id", entity="item"),
        FieldSpec(name="genres", entity="item", kind="multi_valued", separator="|"),
        FieldSpec(name="price", entity="item", kind="numeric"),
        FieldSpec(name="brand", entity="item"),
    )
    return DatasetConfig(
        name="toy",
        files=(str(directory / "clicks.parquet"),),
        entities=(
            EntityTable(files=(str(directory / "users.parquet"),), entity="user", key="user_id"),
            EntityTable(files=(str(directory / "items.parquet"),), entity="item", key="item_id"),
        ),
        features=FeatureSchema(
            label=LabelRule(column="click"),
            fields=fields,
            group="user_id",
            user_key="user_id",
            item_key="item_id",
        ),
        split=SplitConfig(by="random"),
    )


def toy_run(
    directory: Path,
    *,
    size: ToySize = ToySize(),
    hard_fraction: float = 0.2,
    seed: int = 1,
    members: int = 3,
    hidden: tuple[int, ...] = (400, 300, 200),
) -> Path:
    """A run directory with prepared data and a bundle, nothing trained.

    The threshold is the quantile of the student's difficulty on the test split that makes
    `hard_fraction` of its rows hard.
    """
    data = directory / "data"
    if not data.exists():
        prepare(toy_dataset(directory / "source", size), data, seed=0)
    return write_toy_bundle(
        directory, hard_fraction=hard_fraction, seed=seed, members=members, hidden=hidden
    )


def write_toy_bundle(
    directory: Path,
    *,
    hard_fraction: float = 0.2,
    seed: int = 1,
    members: int = 3,
    hidden: tuple[int, ...] = (400, 300, 200),
    difficulty: str = "margin",
) -> Path:
    """(Re)write the bundle of a toy run; another seed makes another model."""
    prepared = open_prepared(directory / "data")
    layout = prepared.layout
    student = student_graph(directory / "student.onnx", layout, seed=seed)
    ensemble = ensemble_graph(
        directory / "ensemble.onnx", layout, members=members, hidden=hidden, seed=seed + 100
    )
    test = prepared.split("test")
    (scores,) = open_session(student).run_all(("difficulty",), test)
    ranking = directory / "ranking"
    shutil.rmtree(ranking, ignore_errors=True)
    graphs = {STUDENT: student, ENSEMBLE: ensemble}
    export_ranking(graphs, prepared.encoder, ranking, max_mb=100)
    write_bundle(
        directory / "bundle",
        dataset="toy",
        layout=layout,
        router=RouterSpec(
            threshold=float(np.quantile(scores, 1 - hard_fraction)),
            difficulty=difficulty,
            hard_fraction=hard_fraction,
        ),
        members=[f"member{i}" for i in range(members)],
        student=student,
        ensemble=ensemble,
        encoder=prepared.encoder,
        ranking=ranking,
    )
    return directory


def _with_gaps(values: np.ndarray, rng: np.random.Generator) -> pa.Array:
    return pa.array(values, mask=rng.random(len(values)) < 0.1)
