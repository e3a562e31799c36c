"""The student's files for devices against its ONNX graph.

    python -m benchmarks.devices RUN --out FILE.json

Both converters must be installed here (docs/SERVING.md, "On devices"). Probabilities of test rows
are compared with the engine's: the TFLite file's in LiteRT's interpreter, the Core ML package's by
coremltools' own NumPy operators, since only Apple's systems can run it. Times are of blocks of
encoded rows on one thread of this machine, ONNX Runtime and LiteRT taking turns in rounds; they say
nothing of a device.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import one_sentence, write_result
from benchmarks.mil import run_package
from dynens.batch import EncodedBatch
from dynens.data.prepared import open_prepared
from dynens.engine import Engine
from dynens.run import RunDirectory
from dynens.timing import in_turns
from training.device_formats import DEVICE_FORMATS, PROBABILITY, device_feeds
from training.devices import export_device

BLOCK_ROWS = (1, 10, 100)
COMPARED_ROWS = 1000
ROUNDS = 9
REPEATS = 200

Work = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    run = RunDirectory.open(arguments.run)
    data, engine = open_prepared(run.data), Engine.load(run.root)
    rows = data.split("test").take(slice(0, COMPARED_ROWS))
    expected = engine.score(rows, system="student").probability
    with tempfile.TemporaryDirectory() as folder:
        report: dict[str, Any] = {
            "dataset": data.name,
            "rows_compared": len(rows),
            "size_bytes": {"onnx": engine.bundle.student.stat().st_size},
            "largest_difference": {},
            "milliseconds": {},
        }
        for name, answers in {"tflite": tflite_answers, "coreml": coreml_answers}.items():
            path = Path(folder) / f"student{DEVICE_FORMATS[name].suffix}"
            export_device(run, name, path, 100)
            found = answers(path, rows)
            report["size_bytes"][name] = size_bytes(path)
            report["largest_difference"][name] = float(np.abs(found - expected).max())
        for count in BLOCK_ROWS:
            path = Path(folder) / f"student-{count}.tflite"
            export_device(run, "tflite", path, count)
            works = {
                "onnx": onnx_work(engine, rows.take(slice(0, count))),
                "tflite": tflite_work(path, rows.take(slice(0, count))),
            }
            report["milliseconds"][str(count)] = time_in_turns(works)
    write_result(arguments.out, report)
    print(describe(report))


def size_bytes(path: Path) -> int:
    """Of a file, or of all files of a package."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path), num_threads=1)


def tflite_answers(path: Path, rows: EncodedBatch) -> np.ndarray:
    """Probabilities, as many rows at a time as the file takes; the last block is filled up."""
    run = interpreter(path).get_signature_runner()
    blocks = []
    for start in range(0, len(rows), 100):
        block = np.minimum(np.arange(start, start + 100), len(rows) - 1)
        blocks.append(run(**device_feeds(rows.take(block)))[PROBABILITY])
    return np.concatenate(blocks)[: len(rows)]


def coreml_answers(path: Path, rows: EncodedBatch) -> np.ndarray:
    return run_package(path, device_feeds(rows))


def onnx_work(engine: Engine, rows: EncodedBatch) -> Work:
    return lambda: engine.student.run((PROBABILITY,), rows.dense, rows.ids)


def tflite_work(path: Path, rows: EncodedBatch) -> Work:
    """Inputs copied in, the graph, the answer copied out."""
    graph = interpreter(path)
    graph.allocate_tensors()
    feeds = device_feeds(rows)
    details = graph.get_signature_runner().get_input_details()
    inputs = {details[name]["index"]: array for name, array in feeds.items()}
    output = graph.get_output_details()[0]["index"]

    def work() -> object:
        for index, array in inputs.items():
            graph.set_tensor(index, array)
        graph.invoke()
        return graph.get_tensor(output)

    return work


def time_in_turns(works: dict[str, Work]) -> dict[str, list[float]]:
    """Milliseconds of a call: the median of each round."""
    rounds: dict[str, list[float]] = {name: [] for name in works}
    for turn in in_turns(lambda _: works, ROUNDS, warm_up=1, calls=REPEATS):
        rounds[turn.key].append(1e3 * turn.seconds)
    return rounds


def describe(report: dict[str, Any]) -> str:
    """A few lines for people."""
    lines = [
        f"{name}: {size / 1000:.0f} KB"
        + (
            f", at most {report['largest_difference'][name]:.1g} from the engine"
            if name in report["largest_difference"]
            else ""
        )
        for name, size in report["size_bytes"].items()
    ]
    for count, rounds in report["milliseconds"].items():
        times = [
            f"{name} {np.median(values):.3f} ms ({min(values):.3f}-{max(values):.3f})"
            for name, values in rounds.items()
        ]
        lines.append(f"{count} rows: {', '.join(times)}")
    return "\n".join(lines)


if __name__ == "__main__":
    with one_sentence():
        main()
