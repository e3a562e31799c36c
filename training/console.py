"""Showing a run's progress on a terminal, or as plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import TimeRemainingColumn as Eta

from training.passes import AGAIN
from training.pipeline import Watcher
from training.plan import LEARNER_PREFIX, StageSpec


class ConsoleWatcher(Watcher):
    """Bars with elapsed and remaining time on a terminal; one line per stage elsewhere.

    Use as a context manager around `training.pipeline.fit`.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._tasks: dict[str, TaskID] = {}
        self._notes: dict[str, str] = {}
        self._progress = Progress(
            TextColumn("{task.description:<18}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            Eta(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def started(self, stage: StageSpec) -> None:
        self._notes.pop(stage.name, None)  # of the first pass
        self._tasks[stage.name] = self._progress.add_task(label(stage), total=1.0, note="")

    def progress(self, stage: StageSpec, fraction: float, note: str) -> None:
        self._notes[stage.name] = note
        self._progress.update(self._tasks[stage.name], completed=fraction, note=note)

    def finished(self, stage: StageSpec, seconds: float, reused: bool) -> None:
        if stage.name in self._tasks:
            self._progress.update(self._tasks[stage.name], completed=1.0)
        if not self._console.is_terminal:
            note = "already done" if reused else f"{seconds:.1f} s"
            detail = self._notes.get(stage.name, "")
            self._console.print(
                f"[{time.monotonic() - self._started:6.1f} s] {label(stage)}: {note}"
                + (f" ({detail})" if detail else ""),
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def noted(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warned(self, text: str) -> None:
        self._console.print(f"warning: {text}", highlight=False, markup=False, soft_wrap=True)


def label(stage: StageSpec) -> str:
    """The stage's name as it is shown."""
    name = stage.name.replace(LEARNER_PREFIX, "learner ")
    return f"{name}{AGAIN}" if stage.again else name
