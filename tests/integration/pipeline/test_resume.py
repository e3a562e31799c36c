"""A killed run continues and ends as an undisturbed one."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import psutil
import pytest

from tests.integration.pipeline.conftest import dynens, start

DEADLINE_S = 240
# Sums of floats may differ in their last bits between processes, and one row may change route.
SAME_AUC = 5e-4


def fit(workplace: Path, out: Path) -> list[object]:
    """The arguments of a run on the small table."""
    table = ["--train", workplace / "clicks.csv", "--label", "bought"]
    return ["fit", *table, "--config", workplace / "fast.yaml", "--out", out]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Until `condition` holds; the run must still be going on then."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        try:
            process.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError("the run ended before it could be disturbed")


def figures(run: Path) -> dict[str, float]:
    systems = json.loads((run / "report/metrics.json").read_text())["systems"]
    return {name: system["auc"] for name, system in systems.items()}


def test_a_killed_run_resumes_without_repeating_stages(workplace: Path, finished: Path) -> None:
    out = workplace / "killed"
    process = start(*fit(workplace, out))
    marks = [out / "learners" / name / "stage.json" for name in ("dnn", "dcnv2", "trees")]
    wait_for(lambda: any(mark.exists() for mark in marks), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done_before = {mark: mark.read_bytes() for mark in marks if mark.exists()}
    assert not (out / "bundle").exists()
    resumed = dynens(*fit(workplace, out), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "already done" in resumed.stdout
    for mark, content in done_before.items():
        assert mark.read_bytes() == content, "a finished stage was trained again"
    assert figures(out) == pytest.approx(figures(finished), abs=SAME_AUC)


def test_a_killed_worker_is_started_again(workplace: Path, finished: Path) -> None:
    out = workplace / "worker"
    process = start(*fit(workplace, out))
    victims: list[psutil.Process] = []

    def worker_runs() -> bool:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                if child.name().startswith("ray::learner") or "ray::learner" in " ".join(
                    child.cmdline()
                ):
                    victims.append(child)
            except psutil.NoSuchProcess:
                continue
        return bool(victims)

    wait_for(worker_runs, process)
    victims[0].kill()
    assert process.wait(timeout=DEADLINE_S) == 0
    assert figures(out) == pytest.approx(figures(finished), abs=SAME_AUC)


def test_a_time_limit_ends_trainings_and_a_run_goes_on_without_it(workplace: Path) -> None:
    out = workplace / "limited"
    limited = dynens(*fit(workplace, out), "--set", "time_limit_min=0.01")
    assert limited.returncode == 0, limited.stderr
    for name in ("learner dnn", "learner trees", "baseline", "student"):
        (line,) = (line for line in limited.stdout.splitlines() if f"] {name}:" in line)
        assert line.endswith("cut by the time limit)")
    assert (
        "The time limit ended the training of dcnv2, dnn"
        in (out / "report/report.html").read_text()
    )
    shutil.rmtree(out / "student")
    resumed = dynens(*fit(workplace, out), "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("already done") >= 4
    assert "cut by" not in resumed.stdout


def test_a_run_can_be_exported_again_without_training(finished: Path, workplace: Path) -> None:
    again = workplace / "exported"
    shutil.copytree(finished, again)
    trained = [path.read_bytes() for path in sorted(again.glob("learners/*/stage.json"))]
    shutil.rmtree(again / "bundle")
    shutil.rmtree(again / "report")
    (again / "learners/dnn/model.onnx").write_bytes(b"damaged")
    done = dynens("export", again)
    assert done.returncode == 0, done.stderr
    assert [path.read_bytes() for path in sorted(again.glob("learners/*/stage.json"))] == trained
    expected = json.loads((finished / "bundle/manifest.json").read_text())
    found = json.loads((again / "bundle/manifest.json").read_text())
    for name in ("router", "layout", "members"):
        assert found[name] == expected[name], name
    onnx.checker.check_model(onnx.load(str(again / "learners/dnn/model.onnx")))
    for system, auc in figures(finished).items():
        assert figures(again)[system] == pytest.approx(auc, abs=SAME_AUC), system


def test_an_unfinished_run_is_not_exported(finished: Path, workplace: Path) -> None:
    half = workplace / "half"
    shutil.copytree(finished, half)
    shutil.rmtree(half / "student")
    done = dynens("export", half)
    assert done.returncode == 2
    assert f"{half} lacks the stages student; finish the run" in done.stderr
    assert (half / "bundle/manifest.json").exists()


def test_a_folder_with_another_configuration_is_no_run(workplace: Path) -> None:
    other = workplace / "other"
    other.mkdir()
    (other / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    done = dynens("export", other)
    assert done.returncode == 2
    assert f"{other / 'config.yaml'}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
