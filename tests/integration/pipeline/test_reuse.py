"""A run that takes over what another one has finished."""

import json
import shutil
from pathlib import Path

from tests.integration.pipeline.conftest import dynens


def stage(run: Path, name: str) -> bytes:
    return (run / name / "stage.json").read_bytes()


def test_another_router_needs_no_training(workplace: Path, finished: Path) -> None:
    out = workplace / "reused"
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    done = dynens("fit", "--reuse", finished, "--out", out, "--set", "router.hard_fraction=0.2")
    assert done.returncode == 0, done.stderr
    assert "student: already done" in done.stdout
    for name in ("data", "learners/dnn", "ensemble", "architecture", "baseline", "student"):
        assert stage(out, name) == stage(finished, name)
    assert stage(out, "router") != stage(finished, "router")
    router = json.loads((out / "router/router.json").read_text())
    assert router["hard_fraction"] == 0.2
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before
    alike = ("student", "static_ensemble", "full_pool")
    ours, theirs = (
        json.loads((run / "report/metrics.json").read_text())["systems"] for run in (out, finished)
    )
    assert [ours[n]["auc"] for n in alike] == [theirs[n]["auc"] for n in alike]


def test_what_cannot_be_taken_over_leaves_nothing(workplace: Path, finished: Path) -> None:
    out, damaged = workplace / "refused", workplace / "damaged"
    shutil.copytree(finished, damaged)
    (damaged / "data/prepared.json").write_text("no JSON")
    for arguments, message in (
        (["--reuse", workplace], "is not a run directory"),
        (["--reuse", finished, "--set", "seed=99"], "which decides on everything"),
        (["--reuse", finished, "--set", "distill.peers.count=3"], "is 3 but Ray has 2 cores"),
        (["--reuse", damaged], "holds no prepared data"),
        (["--reuse", finished, "--train", workplace / "clicks.csv"], "leave out what names"),
    ):
        refused = dynens("fit", *arguments, "--out", out)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
        assert not out.exists()


def test_other_rows_than_those_encoded_are_not_taken_over(workplace: Path, tmp_path: Path) -> None:
    table = tmp_path / "clicks.csv"
    table.write_bytes((workplace / "clicks.csv").read_bytes())
    old, new = tmp_path / "old", tmp_path / "new"
    fast = ("--config", workplace / "fast.yaml")
    done = dynens("fit", "--train", table, "--label", "bought", "--out", old, *fast)
    assert done.returncode == 0, done.stderr
    table.write_text(table.read_text() + table.read_text().splitlines()[-1] + "\n")
    refused = dynens("fit", "--reuse", old, "--out", new)
    assert refused.returncode == 2
    assert "have changed since" in refused.stderr
    assert not new.exists()
