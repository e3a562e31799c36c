"""The graphs of a bundle in ONNX Runtime, and the forms in which rows come to them."""

from __future__ import annotations

import enum
from pathlib import Path

import numpy as np

from dynens.batch import Candidates, EncodedBatch, FeatureLayout, FloatArray, IntArray, Rows
from dynens.config.serving import EngineConfig
from dynens.errors import BundleError
from dynens.session import GraphSession, row_arrays

ROW_INPUTS = frozenset({"dense", "ids", "context_rows", "student_logit"})
RANK_INPUTS = frozenset({"context_dense", "context_ids", "items", "student_logit"})


class Form(enum.Enum):
    """How rows come, from the cheapest to the dearest."""

    CANDIDATES = "items of the bundle's table beside one context"
    SHARED = "encoded rows that agree in their context columns"
    ANY = "encoded rows"


class Graph:
    """One function of a bundle: a session for encoded rows and perhaps one for candidates.

    Args:
        path: the graph for encoded rows.
        rank_path: the one for candidates, or None.
        outputs: what both must have.
        config: how sessions run.

    Raises:
        BundleError: not loadable, or without the outputs and inputs the engine needs.
    """

    def __init__(
        self, path: Path, rank_path: Path | None, outputs: tuple[str, ...], config: EngineConfig
    ) -> None:
        self._rows = _opened(path, ROW_INPUTS, outputs, config)
        self._ranking = None
        if rank_path is not None:
            self._ranking = _opened(rank_path, RANK_INPUTS, outputs, config)

    @property
    def ranks(self) -> bool:
        """Whether it takes candidates."""
        return self._ranking is not None

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
        arrays = row_arrays(dense, ids, student_logit, shares_context=shares_context)
        return self._rows.run_arrays(outputs, arrays)

    def run_all(self, outputs: tuple[str, ...], batch: EncodedBatch) -> list[FloatArray]:
        """As `run`, of any number of rows with any contexts, chunk by chunk."""
        return self._rows.run_all(outputs, batch)

    def score(
        self,
        outputs: tuple[str, ...],
        rows: Rows,
        form: Form,
        student_logit: FloatArray | None = None,
    ) -> list[FloatArray]:
        """As `run`, of rows in any form; without a graph for candidates they are written out."""
        if isinstance(rows, Candidates):
            if self._ranking is not None:
                arrays = {
                    "context_dense": rows.context_dense,
                    "context_ids": rows.context_ids,
                    "items": rows.items,
                    "student_logit": student_logit,
                }
                return self._ranking.run_arrays(outputs, arrays)
            rows, form = rows.encoded(), Form.SHARED
        shares = form is Form.SHARED
        return self.run(outputs, rows.dense, rows.ids, student_logit, shares_context=shares)


def _opened(
    path: Path, known: frozenset[str], outputs: tuple[str, ...], config: EngineConfig
) -> GraphSession:
    """A session of a graph that names known inputs only and has the outputs."""
    try:
        session = GraphSession(path, config.intra_op_threads)
    except Exception as e:  # onnxruntime raises its own unrelated classes
        raise BundleError(
            f"{path} cannot be loaded by onnxruntime; write it again with `dynens export RUN`."
        ) from e
    unknown = set(session.inputs) - known
    missing = set(outputs) - set(session.outputs)
    if unknown or missing:
        raise BundleError(
            f"{path} has unknown inputs {sorted(unknown)} or lacks outputs {sorted(missing)}; "
            "write it again with `dynens export RUN`."
        )
    return session


def form_of(layout: FeatureLayout, rows: Rows) -> Form:
    """In which form rows come."""
    if isinstance(rows, Candidates):
        return Form.CANDIDATES
    return Form.SHARED if shares_context(layout, rows) else Form.ANY


def shares_context(layout: FeatureLayout, batch: EncodedBatch) -> bool:
    """Whether all rows agree in the columns that the candidates of one request share."""
    if not layout.has_context or not len(batch):
        return False
    ids = batch.ids[:, : layout.context_ids_width]
    dense = batch.dense[:, : layout.context_dense]
    return bool((ids == ids[0]).all() and (dense == dense[0]).all())


def typical_rows(layout: FeatureLayout, rows: int, *, seed: int = 0) -> EncodedBatch:
    """Valid rows with ids spread over each field's range, so that warm-up touches real memory."""
    rng = np.random.default_rng(seed)
    ids = np.empty((rows, layout.ids_width), np.int32)
    for field, columns in layout.columns():
        ids[:, columns] = rng.integers(0, field.num_embeddings, (rows, field.width))
    dense = rng.standard_normal((rows, layout.num_dense)).astype(np.float32)
    return EncodedBatch(dense, ids)


def typical_candidates(
    layout: FeatureLayout, table: EncodedBatch, rows: int, *, seed: int = 0
) -> Candidates:
    """Random items of a table beside a random context."""
    context = typical_rows(layout, 1, seed=seed)
    items = np.random.default_rng(seed).integers(0, len(table), rows).astype(np.int32)
    return Candidates(context, table, items)
