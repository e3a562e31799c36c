"""Graphs for candidates: written where they can be, refused with a reason, compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from dynens.bundle import ENSEMBLE, STUDENT, write_bundle
from dynens.data.prepared import open_prepared
from dynens.engine import Engine
from tests.bundles import toy_run
from training import ranking
from training.ranking import export_ranking


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_run(tmp_path_factory.mktemp("toy") / "run", hidden=(16,))


def graphs(toy: Path) -> dict[str, Path]:
    return {name: toy / name for name in (STUDENT, ENSEMBLE)}


def test_tables_share_one_limit_and_the_student_comes_first(toy: Path, tmp_path: Path) -> None:
    encoder = open_prepared(toy / "data").encoder
    notes = export_ranking(graphs(toy), encoder, tmp_path / "both", max_mb=100)
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == [ENSEMBLE, STUDENT]
    sizes = {name: note["size_mb"] for name, note in notes.items()}
    assert 0 < sizes[STUDENT] <= sizes[ENSEMBLE] < 5
    small = export_ranking(
        graphs(toy), encoder, tmp_path / "one", max_mb=sizes[STUDENT] + 0.5 * sizes[ENSEMBLE]
    )
    assert [path.name for path in (tmp_path / "one").iterdir()] == [STUDENT]
    assert "size_mb" in small[STUDENT]
    assert small[ENSEMBLE]["refused"].startswith("its tables would take ")


def test_an_engine_may_have_one_graph_for_candidates_only(toy: Path, tmp_path: Path) -> None:
    whole = Engine.load(toy)
    ranking = tmp_path / "ranking"
    ranking.mkdir()
    shutil.copy(toy / "bundle/ranking" / STUDENT, ranking / STUDENT)
    manifest = whole.bundle.manifest
    write_bundle(
        tmp_path / "bundle",
        dataset="toy",
        layout=whole.layout,
        router=manifest.router,
        members=manifest.members,
        student=whole.bundle.student,
        ensemble=whole.bundle.ensemble,
        encoder=whole.encoder,
        ranking=ranking,
    )
    half = Engine.load(tmp_path / "bundle")
    assert (half.student.ranks, half.ensemble.ranks) == (True, False)
    keys = [f"i{n}" for n in range(50)]
    for system in ("dynamic", "student", "ensemble"):
        found, expected = (
            engine.score(engine.encode_rank(5, {"hour": 3}, keys), system=system)  # type: ignore[arg-type]
            for engine in (half, whole)
        )
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-6)
        np.testing.assert_array_equal(found.route, expected.route)


def test_without_an_item_table_there_is_nothing_to_do(toy: Path, tmp_path: Path) -> None:
    class Plain:
        has_item_entity = False

    assert export_ranking(graphs(toy), Plain(), tmp_path / "x", max_mb=1) == {}  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()


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

    def broken(*args: object, **options: object) -> None:
        raise KeyError("an operator of tomorrow")

    original = ranking.rank_graph
    encoder = open_prepared(toy / "data").encoder
    for spoil, words in ((wrong, "logit would differ by "), (broken, "KeyError: 'an operator of")):
        monkeypatch.setattr(ranking, "rank_graph", spoil)
        notes = export_ranking(graphs(toy), encoder, tmp_path / words, max_mb=100)
        assert notes[STUDENT]["refused"].startswith(words)
        assert not list((tmp_path / words).iterdir())
