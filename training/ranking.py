"""Graphs for candidates from the item table, beside those for encoded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dynens.batch import EncodedBatch, FeatureLayout
from dynens.bundle import ENSEMBLE, STUDENT
from dynens.config.serving import EngineConfig
from dynens.data.encoders import RowEncoder
from dynens.errors import TrainingError
from dynens.graph import Form, Graph, typical_candidates
from dynens.models.rank_graph import NotSeparableError, TableTooLargeError, rank_graph

_CHECKED_ROWS, _CHECKED_CONTEXTS = 256, 8
_ABSOLUTE, _RELATIVE = 1e-5, 1e-4
OUTPUTS = {
    STUDENT: ("logit", "probability", "difficulty"),
    ENSEMBLE: ("probability", "trio_probability"),
}


def export_ranking(
    graphs: dict[str, Path], encoder: RowEncoder, directory: Path, *, max_mb: float
) -> dict[str, Any]:
    """Write the served graphs for candidates into `directory`, where that can be done.

    Args:
        graphs: the served graphs by the names that they have in a bundle.
        encoder: of their rows.
        directory: to be filled; left out where candidates will be written out as rows.
        max_mb: of both graphs' tables together.

    Returns:
        `size_mb` of the tables; or `refused` with the reason; or nothing, where the bundle cannot
        rank at all.

    Raises:
        TrainingError: a written graph does not agree with its original.
    """
    layout, table = encoder.layout, encoder.item_table()
    if not encoder.has_item_entity:
        return {}
    if table is None or not len(table):
        return {"refused": "the item table does not stand apart from user and context"}
    left = max_mb * 1e6
    models = {}
    for name, path in graphs.items():
        try:
            models[name] = rank_graph(onnx.load(str(path)), layout, table, max_bytes=left)
        except NotSeparableError as e:
            return {"refused": f"{name} does not keep item and context apart: {e}"}
        except TableTooLargeError as e:
            return {
                "refused": f"tables of {name} would take {e.size_bytes / 1e6:.0f} MB for "
                f"{len(table)} items, more than serving.item_tables_mb leaves"
            }
        left -= _size_bytes(models[name])
    directory.mkdir(parents=True)
    for name, model in models.items():
        onnx.checker.check_model(model)
        onnx.save(model, str(directory / name))
        _check(graphs[name], directory / name, layout, table)
    return {"size_mb": round(max_mb - left / 1e6, 1)}


def _size_bytes(model: onnx.ModelProto) -> float:
    """Of what is looked up by item."""
    tables = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    return sum(len(i.raw_data) for i in model.graph.initializer if i.name in tables)


def _check(original: Path, ranking: Path, layout: FeatureLayout, table: EncodedBatch) -> None:
    """Compare both on random contexts and items.

    Raises:
        TrainingError: they differ by more than rounding.
    """
    outputs = OUTPUTS[ranking.name]
    graph = Graph(original, ranking, outputs, EngineConfig())
    for seed in range(_CHECKED_CONTEXTS):
        candidates = typical_candidates(layout, table, _CHECKED_ROWS, seed=seed)
        logit = np.linspace(-3, 3, _CHECKED_ROWS, dtype=np.float32)
        found = graph.score(outputs, candidates, Form.CANDIDATES, logit)
        expected = graph.score(outputs, candidates.encoded(), Form.SHARED, logit)
        for name, ours, theirs in zip(outputs, found, expected, strict=True):
            if not np.allclose(ours, theirs, rtol=_RELATIVE, atol=_ABSOLUTE):
                raise TrainingError(
                    f"{ranking.name} for candidates gives another {name} than for rows, by up to "
                    f"{np.abs(ours - theirs).max():.2g}; please report this."
                )
