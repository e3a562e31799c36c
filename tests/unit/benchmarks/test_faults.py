"""Faults: what is injected ends with its phase, and what was seen is told."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import faults
from benchmarks.common import write_result
from tests.answering import answering

SLEEPER = "import time; time.sleep(60)"


def test_a_stopped_process_goes_on_when_the_phase_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", SLEEPER]) as child:
        try:
            process = psutil.Process(child.pid)
            monkeypatch.setattr(faults, "replicas", lambda _: [process])
            seen = set()
            with faults.injected(faults.duty_cycle(0.001, 0.05)):
                until = time.monotonic() + 10
                while psutil.STATUS_STOPPED not in seen and time.monotonic() < until:
                    seen.add(process.status())
            assert psutil.STATUS_STOPPED in seen
            assert process.status() != psutil.STATUS_STOPPED
        finally:
            child.kill()


@pytest.mark.parametrize(("status", "failing"), [(200, False), (503, True)])
def test_health_is_asked_all_the_while(status: int, failing: bool) -> None:
    with answering(lambda _: status) as url, faults.probing(url) as answers:
        until = time.monotonic() + 10
        while len(answers) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    summary = faults.health_summary(answers)
    assert summary["probes"] == len(answers) >= 3
    assert summary["failed"] == (len(answers) if failing else 0)


def test_a_row_tells_answers_errors_and_health() -> None:
    phase = {
        "requests": 100,
        "errors": {"504": 3, "503": 1},
        "not_sent": 2,
        "late": 1,
        "p50_ms": 1.0,
        "p99_ms": 7.5,
        "max_ms": 21.0,
        "granted_share": 0.5,
        "health": {"probes": 40, "failed": 1, "p99_ms": 3.0, "max_ms": 12.4},
    }
    table = faults.markdown({"phases": {"slow": phase}, "rate_qps": 10.0, "budget_ms": 8.0})
    row = (
        "| slow | 96 | 3 × 504, 1 × 503, 2 not sent | 1 | 1.00 / 7.50 / 21 | 50% | 1 of 40, 12 ms |"
    )
    assert row in table


def test_what_nobody_answered_is_null_in_the_file_and_a_dash_in_the_table(tmp_path: Path) -> None:
    health = faults.health_summary([None, None])
    assert health == {"probes": 2, "failed": 2, "p99_ms": None, "max_ms": None}
    phase = {"requests": 1, "errors": {"timeout": 1}, "not_sent": 0, "late": 0, "health": health}
    phase |= dict.fromkeys(("p50_ms", "p99_ms", "max_ms"), math.nan) | {"granted_share": 1.0}
    write_result(tmp_path / "f.json", {"phases": {"kill": phase}, "rate_qps": 1, "budget_ms": 8})
    data = json.loads((tmp_path / "f.json").read_text(), parse_constant=pytest.fail)
    assert "| – / – / – | 100% | 2 of 2, – ms |" in faults.markdown(data)
