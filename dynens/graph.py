"""One graph of a bundle in ONNX Runtime, and what its inputs say about a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray, IntArray
from dynens.config.serving import EngineConfig
from dynens.errors import BundleError


class Graph:
    """One ONNX session that takes whatever subset of the engine's inputs its graph names."""

    def __init__(self, path: Path, outputs: tuple[str, ...], config: EngineConfig) -> None:
        """Open the graph.

        Raises:
            BundleError: not loadable, or without the outputs and inputs the engine needs.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = config.intra_op_threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as e:  # onnxruntime raises its own unrelated classes
            raise BundleError(
                f"{path} cannot be loaded by onnxruntime; export the bundle again."
            ) from e
        self._inputs = frozenset(i.name for i in self._session.get_inputs())
        unknown = self._inputs - {"dense", "ids", "context_rows", "student_logit"}
        missing = set(outputs) - {o.name for o in self._session.get_outputs()}
        if unknown or missing:
            raise BundleError(
                f"{path} has unknown inputs {sorted(unknown)} or lacks outputs {sorted(missing)}; "
                "export the bundle with the installed dynens."
            )

    def run(
        self,
        outputs: tuple[str, ...],
        dense: FloatArray,
        ids: IntArray,
        student_logit: FloatArray | None = None,
        *,
        shares_context: bool = False,
    ) -> list[FloatArray]:
        """The named outputs, each (N,) float32.

        Args:
            outputs: their names.
            dense: (N, num_dense).
            ids: (N, ids_width).
            student_logit: (N,), where the graph asks for it.
            shares_context: whether all rows agree in the layout's context columns.
        """
        feeds: dict[str, Any] = {
            "dense": dense,
            "ids": ids,
            "context_rows": np.array(1 if shares_context else len(ids), np.int64),
            "student_logit": student_logit,
        }
        used = {name: feeds[name] for name in self._inputs}
        result: list[FloatArray] = self._session.run(outputs, used)
        return result


def shares_context(layout: FeatureLayout, batch: EncodedBatch) -> bool:
    """Whether all rows agree in the columns that the candidates of one request share."""
    if not layout.has_context or not len(batch):
        return False
    ids = batch.ids[:, : layout.context_ids_width]
    dense = batch.dense[:, : layout.context_dense]
    return bool((ids == ids[0]).all() and (dense == dense[0]).all())


def typical_rows(layout: FeatureLayout, rows: int, shares: bool) -> EncodedBatch:
    """Valid rows with ids spread over each field's range, so that warm-up touches real memory."""
    rng = np.random.default_rng(0)
    ids = np.empty((rows, layout.ids_width), np.int32)
    for field, columns in layout.columns():
        ids[:, columns] = rng.integers(0, field.num_embeddings, (rows, field.width))
    dense = rng.standard_normal((rows, layout.num_dense)).astype(np.float32)
    if shares:
        ids[:, : layout.context_ids_width] = ids[0, : layout.context_ids_width]
        dense[:, : layout.context_dense] = dense[0, : layout.context_dense]
    return EncodedBatch(dense, ids)
