"""Graphs for candidates: written where they can be, refused with a reason, compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dynens.bundle import ENSEMBLE, STUDENT
from dynens.data.prepared import open_prepared
from dynens.errors import TrainingError
from tests.bundles import toy_run
from training import ranking
from training.ranking import export_ranking


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("toy") / "run", hidden=(16,))


def graphs(toy: Path) -> dict[str, Path]:
    return {name: toy / name for name in (STUDENT, ENSEMBLE)}


def test_tables_share_one_limit_and_nothing_is_written_beyond_it(toy: Path, tmp_path: Path) -> None:
    encoder = open_prepared(toy / "data").encoder
    note = export_ranking(graphs(toy), encoder, tmp_path / "both", max_mb=100)
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == [ENSEMBLE, STUDENT]
    assert 0 < note["size_mb"] < 5
    # Enough for the student's tables, which come first, and not for the ensemble's.
    small = export_ranking(graphs(toy), encoder, tmp_path / "x", max_mb=0.6 * note["size_mb"])
    assert small["refused"].startswith("tables of ensemble.onnx would take")
    assert not (tmp_path / "x").exists()


def test_without_an_item_table_there_is_nothing_to_do(toy: Path, tmp_path: Path) -> None:
    class Plain:
        layout = None
        has_item_entity = False

        def item_table(self) -> None:
            return None

    assert export_ranking(graphs(toy), Plain(), tmp_path / "x", max_mb=1) == {}  # type: ignore[arg-type]


def test_a_graph_that_answers_otherwise_is_never_served(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: onnx.ModelProto, *args: object, **options: object) -> onnx.ModelProto:
        made = original(model, *args, **options)  # type: ignore[arg-type]
        for entry in made.graph.initializer:
            if entry.name.endswith("_table"):
                spoilt = numpy_helper.to_array(entry) + np.float32(0.01)
                entry.CopyFrom(numpy_helper.from_array(spoilt, entry.name))
        return made

    original = ranking.rank_graph
    monkeypatch.setattr(ranking, "rank_graph", wrong)
    encoder = open_prepared(toy / "data").encoder
    with pytest.raises(TrainingError, match="gives another"):
        export_ranking(graphs(toy), encoder, tmp_path / "x", max_mb=100)
