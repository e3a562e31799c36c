"""What a log shows of a run."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from training.console import ConsoleWatcher
from training.plan import StageSpec


def test_a_stage_of_the_second_pass_has_only_its_own_note() -> None:
    page = io.StringIO()
    first = StageSpec("student", Path("student"), ())
    again = replace(first, again=True)
    with ConsoleWatcher(Console(file=page, width=200)) as watcher:
        watcher.started(first)
        watcher.progress(first, 1.0, "AUC 0.8012")
        watcher.finished(first, 2.0, False)
        watcher.started(again)
        watcher.finished(again, 3.0, False)
    said = [line.partition("] ")[2] for line in page.getvalue().splitlines()]
    assert said == ["student: 2.0 s (AUC 0.8012)", "student again: 3.0 s"]


def test_a_stage_is_one_line_of_a_narrow_log() -> None:
    page = io.StringIO()
    stage = StageSpec("student", Path("student"), ())
    with ConsoleWatcher(Console(file=page, width=40)) as watcher:
        watcher.started(stage)
        watcher.progress(stage, 1.0, "epoch 40, valid AUC 0.7119 ± 0.109, best 0.7140")
        watcher.finished(stage, 2.0, False)
    (line,) = page.getvalue().splitlines()
    assert line.endswith("best 0.7140)")
