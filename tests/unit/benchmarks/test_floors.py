"""What is timed of every layer, and in which order."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from benchmarks.floors import IN_PROCESS, SYSTEMS, Layers, time_round
from dynens.graph import Graph
from tests.bundles import toy_run

_CANDIDATES = [f"i{n}" for n in range(1, 41)]


def test_graphs_run_only_while_they_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[Graph] = []
    score = Graph.score

    def counted(self: Graph, *arguments: Any) -> Any:
        ran.append(self)
        return score(self, *arguments)

    monkeypatch.setattr(Graph, "score", counted)
    bodies = [orjson.dumps({"user_id": n, "candidates": _CANDIDATES}) for n in range(3)]
    layers = Layers(toy_run(tmp_path / "run", hard_fraction=0.9, hidden=(32,)), "/v1/rank", bodies)
    student, ensemble = layers.engine.student, layers.engine.ensemble
    expected = {"student": [student], "dynamic": [student, ensemble], "static": [ensemble]}
    ran.clear()
    for system in SYSTEMS:
        for index in range(len(bodies)):
            work = layers.work("onnx", system, index)
            assert not ran
            work()
            assert ran == expected[system]
            ran.clear()
    layers.loop.close()


def test_turns_change_places_and_all_come_as_often() -> None:
    order: list[tuple[str, str, int]] = []

    def work(layer: str, system: str, index: int) -> Callable[[], None]:
        return lambda: order.append((layer, system, index))

    fake: Any = SimpleNamespace(bodies=[b""] * 24, work=work)
    assert len(time_round(fake, 50)) == len(IN_PROCESS) * len(SYSTEMS)
    rounds = [order[i : i + 12] for i in range(0, len(order), 12)]
    assert all(len({turn[:2] for turn in taken}) == 12 for taken in rounds)
    assert all(len({index for *_, index in taken}) == 12 for taken in rounds)
    assert len({taken[0][:2] for taken in rounds}) == 12
