"""Graphs for candidates from the item table, beside those for encoded rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dynens.batch import EncodedBatch, FeatureLayout
from dynens.bundle import GRAPH_OUTPUTS, STUDENT
from dynens.config.serving import EngineConfig
from dynens.data.encoding.encoders import RowEncoder
from dynens.graph import Form, Graph, typical_candidates
from dynens.models.rank_graph import ITEMS, NotSeparableError, TableTooLargeError, rank_graph

_CHECKED_ROWS, _CHECKED_CONTEXTS = 256, 8
_ABSOLUTE, _RELATIVE = 1e-5, 1e-4


def export_ranking(
    graphs: dict[str, Path], encoder: RowEncoder, directory: Path, *, max_mb: float
) -> dict[str, Any]:
    """Write the served graphs for candidates into `directory`, where that can be done.

    Args:
        graphs: the served graphs by the names that they have in a bundle; those that come first are
            served first where there is not enough room for all.
        encoder: of their rows.
        directory: to be filled; candidates are written out as rows for a graph that is left out.
        max_mb: of all graphs' tables together.

    Returns:
        By graph, the tables' `size_mb` or, where it was left out, `refused` with the reason.
        Nothing where the bundle cannot rank at all.
    """
    if not encoder.has_item_entity:
        return {}
    table = encoder.item_table()
    left = max_mb * 1e6
    notes: dict[str, Any] = {}
    directory.mkdir(parents=True)
    for name, original in graphs.items():
        ranking = directory / name
        try:
            if table is None:
                raise NotSeparableError(
                    "not only the item's table and key fill the columns of the item "
                    "(fields crossed from both sides do)"
                )
            if not len(table):
                raise NotSeparableError("the item table is empty")
            if "refused" in notes.get(STUDENT, {}):
                raise NotSeparableError("candidates come to it through the student, which has none")
            model = rank_graph(onnx.load(str(original)), encoder.layout, table, max_bytes=left)
            onnx.checker.check_model(model)
            onnx.save(model, str(ranking))
            _compare(original, ranking, encoder.layout, table)
        except Exception as e:  # an unforeseen operator must not cost a finished training
            ranking.unlink(missing_ok=True)
            notes[name] = {"refused": _reason(e, len(table or ()))}
        else:
            size = _size_bytes(model)
            left -= size
            notes[name] = {"size_mb": round(size / 1e6, 1)}
    return notes


def _reason(error: Exception, items: int) -> str:
    if isinstance(error, TableTooLargeError):
        return (
            f"its tables would take {error.size_bytes / 1e6:.0f} MB for {items} items, more than "
            "serving.item_tables_mb leaves"
        )
    if isinstance(error, NotSeparableError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _size_bytes(model: onnx.ModelProto) -> float:
    """Of what is looked up by item."""
    tables = {node.input[0] for node in model.graph.node if ITEMS in node.input}
    return sum(len(i.raw_data) for i in model.graph.initializer if i.name in tables)


def _compare(original: Path, ranking: Path, layout: FeatureLayout, table: EncodedBatch) -> None:
    """Both on random contexts and items.

    Raises:
        NotSeparableError: they differ by more than rounding.
    """
    outputs = GRAPH_OUTPUTS[ranking.name]
    graph = Graph(original, ranking, outputs, EngineConfig())
    for seed in range(_CHECKED_CONTEXTS):
        candidates = typical_candidates(layout, table, _CHECKED_ROWS, seed=seed)
        logit = np.linspace(-3, 3, _CHECKED_ROWS, dtype=np.float32)
        found = graph.score(outputs, candidates, Form.CANDIDATES, logit)
        expected = graph.score(outputs, candidates.encoded(), Form.SHARED, logit)
        for name, ours, theirs in zip(outputs, found, expected, strict=True):
            if not np.allclose(ours, theirs, rtol=_RELATIVE, atol=_ABSOLUTE):
                gap = np.abs(ours - theirs).max()
                raise NotSeparableError(f"{name} would differ by {gap:.2g}")
