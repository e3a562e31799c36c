"""Rows cut by time: validation settles everything, and then its rows train, too."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from dynens.data.prepared import open_prepared
from dynens.engine import Engine
from dynens.run import RunDirectory
from tests.integration.pipeline.conftest import dynens, start
from tests.integration.pipeline.test_resume import wait_for

NUM_ROWS, NUM_ITEMS = 6000, 60
FIT = ("fit", "--train", "log.csv", "--label", "bought", "--config", "fast.yaml")


def drifting(num_rows: int) -> pa.Table:
    """A log whose items come up one after the other: the last ones are new in validation rows."""
    rng = np.random.default_rng(5)
    when = np.sort(rng.integers(1_700_000_000, 1_702_000_000, num_rows))
    newest = 10 + (NUM_ITEMS - 10) * np.arange(num_rows) / num_rows
    item = (newest * rng.random(num_rows) ** 0.3).astype(int)
    user = rng.integers(0, 100, num_rows)
    z = 2.0 * rng.normal(size=NUM_ITEMS)[item] + rng.normal(size=100)[user]
    bought = (rng.random(num_rows) < 1 / (1 + np.exp(-z))).astype(int)
    return pa.table({"user_id": user, "item_id": item, "when": when, "bought": bought})


@pytest.fixture(scope="module")
def refitted(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on such a log, killed in its second pass and resumed."""
    folder = tmp_path_factory.mktemp("refit")
    pa_csv.write_csv(drifting(NUM_ROWS), str(folder / "log.csv"))
    (folder / "fast.yaml").write_bytes((workplace / "fast.yaml").read_bytes())
    out = folder / "run"
    arguments = ["--set", "router.hard_fraction=0.2", "--out", str(out)]
    process = start(*FIT, *arguments, folder=folder)
    marks = [out / "learners" / name / "stage.json" for name in ("dnn", "dcnv2", "trees")]
    wait_for(lambda: any(mark.exists() for mark in marks), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {mark: mark.read_bytes() for mark in [*out.rglob("stage.json")]}
    assert out / "first_pass" / "router" / "stage.json" in before
    assert not (out / "bundle").exists()
    given = [str(folder / part) if "." in part else part for part in FIT]
    resumed = dynens(*given, *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert {mark: mark.read_bytes() for mark in before} == before
    assert "900 validation rows" in resumed.stdout
    return out


def test_what_was_new_in_validation_rows_is_known_to_the_served_models(refitted: Path) -> None:
    run = RunDirectory.open(refitted)
    first, last = open_prepared(run.held_out.data), open_prepared(run.data)
    assert last.rows == first.rows
    assert len(last.split("train")) == first.rows["train"] + first.rows["valid"]
    unseen = [int((data.split("test").ids == 0).sum()) for data in (first, last)]
    assert unseen[1] < unseen[0]
    systems = json.loads((refitted / "report/metrics.json").read_text())
    assert systems["refit"]
    single = refitted.parent / "single"
    again = dynens("fit", "--reuse", refitted, "--set", "refit=false", "--out", single)
    assert again.returncode == 0, again.stderr
    assert "student: already done" in again.stdout
    before = json.loads((single / "report/metrics.json").read_text())
    assert not before["refit"]
    for name in ("baseline", "student", "static_ensemble", "dynamic"):
        gain = systems["systems"][name]["auc"] - before["systems"][name]["auc"]
        assert gain > 0.01, name


def test_another_threshold_needs_no_training_of_either_pass(refitted: Path) -> None:
    out = refitted.parent / "threshold"
    asked = ("--set", "router.hard_fraction=0.1")
    done = dynens("fit", "--reuse", refitted, *asked, "--out", out)
    assert done.returncode == 0, done.stderr
    for stage in ("learner dnn", "baseline", "student", "learner dnn again", "student again"):
        assert f"{stage}: already done" in done.stdout
    assert "router again: already done" not in done.stdout
    route = Engine.load(out).score(open_prepared(out / "data").split("valid")).route
    assert np.mean(route) == pytest.approx(0.1, abs=0.04)
    systems = [
        json.loads((run / "report/metrics.json").read_text())["systems"] for run in (out, refitted)
    ]
    for name in ("student", "static_ensemble", "baseline"):
        assert systems[0][name]["auc"] == pytest.approx(systems[1][name]["auc"], abs=1e-6)


def test_the_hard_share_is_the_one_that_was_asked_for(refitted: Path) -> None:
    data = open_prepared(RunDirectory.open(refitted).data)
    route = Engine.load(refitted).score(data.split("valid")).route
    assert np.mean(route) == pytest.approx(0.2, abs=0.05)


def test_as_many_positives_are_foretold_as_the_newest_rows_have(refitted: Path) -> None:
    """The first pass's calibration made up for drift that models trained on these rows know."""
    rows = open_prepared(RunDirectory.open(refitted).data).split("valid")
    engine = Engine.load(refitted)
    assert rows.labels is not None
    for system in ("student", "ensemble"):
        foretold = engine.score(rows, system=system).probability  # type: ignore[arg-type]
        assert foretold.mean() == pytest.approx(rows.labels.mean(), abs=1e-3), system


def test_it_is_exported_anew_and_reused_like_any_other(refitted: Path) -> None:
    rows = open_prepared(RunDirectory.open(refitted).data).split("test")
    before = Engine.load(refitted).score(rows)
    exported = dynens("export", refitted)
    assert exported.returncode == 0, exported.stderr
    after = Engine.load(refitted).score(rows)
    np.testing.assert_allclose(after.probability, before.probability, atol=1e-6)
    np.testing.assert_array_equal(after.route, before.route)
