"""How ONNX Runtime runs graphs everywhere: on the CPU, with threads that do not spin."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session_of(graph: Path | bytes, num_threads: int = 1) -> onnxruntime.InferenceSession:
    """A session of an ONNX file, or of one in memory.

    What ONNX Runtime raises for a file that is none is left to the caller.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
