"""What the routes cost, which `router.mean_cost_us_per_row` is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynens import timing
from dynens.batch import EncodedBatch, FeatureLayout
from training import route_costs


def test_a_call_and_a_row_have_their_own_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    now, firsts = 0.0, []

    class FakeGraph:
        def __init__(self, path: Path, *_: object) -> None:
            self.call_s, self.row_s = (1e-4, 1e-6) if path.stem == "easy" else (5e-4, 2e-5)

        def score(self, outputs: object, rows: EncodedBatch, *_: object) -> None:
            nonlocal now
            now += self.call_s + self.row_s * len(rows)
            firsts.append(float(rows.dense[0, 0]))

    monkeypatch.setattr(route_costs, "Graph", FakeGraph)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now)
    rows = EncodedBatch(np.arange(1000, dtype=np.float32)[:, None], np.zeros((1000, 0), np.int32))
    easy, hard = route_costs.route_costs(
        Path("easy"), Path("hard"), rows, FeatureLayout(("x",), ())
    )
    assert (easy.fixed_s, easy.per_row_s) == pytest.approx((1e-4, 1e-6))
    assert (hard.fixed_s, hard.per_row_s) == pytest.approx((5e-4, 2e-5))
    assert len(set(firsts)) > 100  # other rows every time
