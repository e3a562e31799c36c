"""What a row of a learner is said to cost."""

from pathlib import Path

import numpy as np
import pytest

from dynens import timing
from dynens.batch import EncodedBatch, FeatureLayout, SparseField
from dynens.ensemble import scorer
from dynens.ensemble.scorer import PoolScorer

LAYOUT = FeatureLayout(("user", "item"), (SparseField("a", 9),), context_dense=1)
CALL_S, COLD_S = 50e-6, 30e-6


class Machine:
    """Learners that take a known time, and longer where rows are not in the caches."""

    def __init__(self, row_s: dict[str, float]) -> None:
        self.row_s = row_s
        self.now = 0.0
        self.blocks: list[tuple[str, EncodedBatch]] = []

    def scorer(self, monkeypatch: pytest.MonkeyPatch) -> PoolScorer:
        machine = self

        class Session:
            def __init__(self, path: Path, num_threads: int) -> None:
                self.name = path.stem

            def run(self, outputs: object, batch: EncodedBatch, *, shares_context: bool) -> None:
                assert shares_context == bool((batch.dense[:, 0] == batch.dense[0, 0]).all())
                seen = [block for _, block in machine.blocks]
                cold = not any(np.array_equal(block.dense, batch.dense) for block in seen)
                machine.blocks.append((self.name, batch))
                machine.now += CALL_S + machine.row_s[self.name] * len(batch) + cold * COLD_S

        monkeypatch.setattr(scorer, "open_session", Session)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        return PoolScorer({name: Path(f"{name}.onnx") for name in self.row_s})


def rows(count: int) -> EncodedBatch:
    dense = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    return EncodedBatch(dense, np.zeros((count, 1), np.int32))


def test_a_learner_alone_meets_rows_that_it_has_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"a": 1e-6})
    cost = machine.scorer(monkeypatch).cost_us_per_row(rows(6000))
    assert cost == {"a": pytest.approx(1e6 * (CALL_S + COLD_S) / 100 + 1)}
    firsts = [block.dense[0, 1] for _, block in machine.blocks]
    assert len(set(firsts)) == len(firsts) == 55


def test_cold_rows_are_met_by_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine({"a": 1e-6, "b": 1e-6})
    machine.scorer(monkeypatch).cost_us_per_row(rows(6000), layout=LAYOUT, repeats=51)
    first = [name for name, _ in machine.blocks[::2]]
    assert first.count("a") == first.count("b") == 28


def test_few_rows_fill_a_request_of_as_many_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call costs, however many rows it has, is borne by 100 rows."""
    machine = Machine({"a": 1e-6, "b": 3e-6})
    cost = machine.scorer(monkeypatch).cost_us_per_row(rows(30), layout=LAYOUT)
    assert {len(block) for _, block in machine.blocks} == {100}
    assert cost["b"] - cost["a"] == pytest.approx(2)
    assert cost["a"] == pytest.approx(1e6 * CALL_S / 100 + 1)
