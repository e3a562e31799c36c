"""How ONNX Runtime runs graphs everywhere: on the CPU, with threads that do not spin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from dynens.batch import EncodedBatch, FloatArray, IntArray

CHUNK_ROWS = 4096


class GraphSession:
    """One graph, which is offered arrays and takes those that it names.

    What ONNX Runtime raises for a file that is none is left to the caller.

    Args:
        graph: an ONNX file, or one in memory.
        num_threads: ONNX Runtime threads.
    """

    def __init__(self, graph: Path | bytes, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        source = graph if isinstance(graph, bytes) else str(graph)
        self._session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        self.outputs = tuple(entry.name for entry in self._session.get_outputs())

    def run_arrays(self, outputs: Sequence[str], arrays: Mapping[str, Any]) -> list[FloatArray]:
        """The named outputs of arrays by input; there may be more of these than the graph takes."""
        feeds = {name: arrays[name] for name in self.inputs}
        result: list[FloatArray] = self._session.run(outputs, feeds)
        return result

    def run(
        self, outputs: Sequence[str], batch: EncodedBatch, *, shares_context: bool = False
    ) -> list[FloatArray]:
        """The named outputs of encoded rows (at least one) in one call.

        Args:
            outputs: their names.
            batch: the rows.
            shares_context: whether all rows agree in the layout's context columns.
        """
        arrays = row_arrays(batch.dense, batch.ids, shares_context=shares_context)
        return self.run_arrays(outputs, arrays)

    def run_all(
        self, outputs: Sequence[str], batch: EncodedBatch, *, shares_context: bool = False
    ) -> list[FloatArray]:
        """As `run`, of any number of rows, chunk by chunk."""
        chunks = chunks_of(batch, CHUNK_ROWS)
        parts = [self.run(outputs, chunk, shares_context=shares_context) for chunk in chunks]
        return joined(parts, len(outputs))


def row_arrays(
    dense: FloatArray,
    ids: IntArray,
    student_logit: FloatArray | None = None,
    *,
    shares_context: bool,
) -> dict[str, npt.NDArray[Any] | None]:
    """All that a graph for encoded rows may ask for."""
    return {
        "dense": dense,
        "ids": ids,
        "context_rows": np.array(1 if shares_context else len(ids), np.int64),
        "student_logit": student_logit,
    }


def chunks_of(batch: EncodedBatch, rows: int) -> Iterator[EncodedBatch]:
    """The batch in pieces of at most so many rows: none of an empty one, and a small one itself."""
    if 0 < len(batch) <= rows:
        yield batch
        return
    for start in range(0, len(batch), rows):
        yield batch.take(slice(start, start + rows))


def joined(parts: Sequence[list[FloatArray]], outputs: int) -> list[FloatArray]:
    """The outputs of consecutive chunks put together; without any chunk, so many empty arrays."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return [np.zeros(0, np.float32) for _ in range(outputs)]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
