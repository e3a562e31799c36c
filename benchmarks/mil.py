"""A Core ML package evaluated without Apple's systems.

coremltools has every operator in NumPy, too, since it folds constants: a program whose inputs are
constants is evaluated while it is built again. That is slow, and it says nothing of Core ML itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def run_package(path: Path, feeds: Mapping[str, Array]) -> Array:
    """The first output of the package's program as it lies on disk."""
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.converters.mil.mil import Function

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    program = load(spec, spec.specificationVersion, str(weights)).functions["main"]
    assert set(program.inputs) == set(feeds)
    with Function({}, opset_version=ct.target.iOS16):
        known = {name: Builder.const(val=array) for name, array in feeds.items()}
        for operation in program.operations:
            if operation.op_type != "const":
                outputs = _evaluate(Builder, operation, known)
                for old, new in zip(operation.outputs, outputs, strict=True):
                    assert new.val is not None, operation.op_type
                    known[old.name] = new
        return np.asarray(known[program.outputs[0].name].val)


def _evaluate(builder: Any, operation: Any, known: Mapping[str, Any]) -> list[Any]:
    inputs = {name: _value(x, known) for name, x in operation.inputs.items() if x is not None}
    kind = operation.op_type
    if kind in ("reduce_sum", "reduce_mean"):  # coremltools 9.0 gives NumPy 2 a bool it refuses
        x = getattr(inputs["x"], "val", inputs["x"])
        reduced = getattr(np, kind.removeprefix("reduce_"))(
            x, axis=tuple(inputs["axes"]), keepdims=bool(inputs["keep_dims"])
        )
        return [builder.const(val=reduced)]
    result = getattr(builder, kind)(**inputs)
    return list(result) if isinstance(result, list | tuple) else [result]


def _value(given: Any, known: Mapping[str, Any]) -> Any:
    """A known variable, or the constant that stands there; of lists, each."""
    if isinstance(given, list | tuple):
        return [_value(part, known) for part in given]
    return known.get(given.name, given.val)
