"""A whole run through the command line, and everything that reads it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from dynens.data.prepared import open_prepared
from dynens.engine import Engine
from dynens.report.html import render
from dynens.report.write import evaluate_run
from dynens.run import RunDirectory
from tests.integration.pipeline.conftest import dynens

SYSTEM_KEYS = {
    "auc",
    "gauc",
    "logloss",
    "normalized_entropy",
    "ece",
    "calibration_ratio",
    "cost_us_per_row",
    "candidate_cost_us_per_row",
}


def test_run_directory_and_metrics_keep_the_contract(finished: Path) -> None:
    for name in ("config.yaml", "environment.json", "bundle/manifest.json", "report/report.html"):
        assert (finished / name).is_file(), name
    assert {p.name for p in (finished / "learners").iterdir()} == {"dnn", "dcnv2", "trees"}
    assert list((finished / "report").glob("*.png"))
    assert not (finished / ".work").exists()
    metrics = json.loads((finished / "report/metrics.json").read_text())
    assert set(metrics["rows"]) == {"train", "valid", "test"}
    assert sum(metrics["rows"].values()) == 6000
    systems = metrics["systems"]
    assert set(systems) == {
        "baseline",
        "best_single",
        "student",
        "static_ensemble",
        "static_ensemble_with_student",
        "full_pool",
        "dynamic",
        "random_route",
    }
    for system in systems.values():
        assert set(system) >= SYSTEM_KEYS
    assert systems["best_single"]["name"] in {"dnn", "dcnv2", "trees"}
    assert len(systems["static_ensemble"]["members"]) == 3
    assert 0 <= systems["dynamic"]["hard_fraction"] <= 0.35
    assert systems["static_ensemble"]["auc"] > 0.65
    assert set(metrics["auc_cost_curve"]) >= {"router", "random"}
    assert set(metrics["transfer_efficiency"]) == {
        "gain_share",
        "logit_correlation",
        "mean_abs_dp",
    }
    attribution = metrics["attribution"]
    shifts = [field["ensemble"] for field in attribution["fields"]]
    assert shifts == sorted(shifts, reverse=True)
    assert shifts[0] > 0.01
    assert -1 <= attribution["agreement"] <= 1
    shares = [m["variance_share"] for m in metrics["redundancy"].values()]
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)


def test_a_report_of_nothing_but_undefined_figures_has_dashes(
    finished: Path, tmp_path: Path
) -> None:
    """A single class, no groups, no gain: whichever of them a table lacks, the page is there."""

    def undefined(value: object) -> object:
        if isinstance(value, dict):
            kept = ("rows", "seed", "hard_fraction", "cost_us_per_row")
            return {k: v if k in kept else undefined(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(undefined(v) for v in value)
        return float("nan") if isinstance(value, float) else value

    run = RunDirectory(tmp_path / "run")
    shutil.copytree(finished, run.root)
    metrics, scored, batch = evaluate_run(run)
    blank = undefined(metrics)
    assert isinstance(blank, dict)
    render(run, blank, scored, batch, open_prepared(run.data))
    page = (run.report / "report.html").read_text(encoding="utf-8")
    assert page.count("–") > 30
    assert ">nan" not in page


def test_curve_ends_are_the_student_and_the_full_hard_route(finished: Path) -> None:
    metrics = json.loads((finished / "report/metrics.json").read_text())
    systems, curve = metrics["systems"], metrics["auc_cost_curve"]["router"]
    assert curve[0]["hard_fraction"] == 0
    assert curve[0]["auc"] == pytest.approx(systems["student"]["auc"], abs=1e-6)
    assert curve[-1]["hard_fraction"] == 1
    ceiling = systems["static_ensemble_with_student"]["auc"]
    assert curve[-1]["auc"] == pytest.approx(ceiling, abs=1e-6)


def test_evaluate_repeats_the_reported_figures(finished: Path) -> None:
    done = dynens("evaluate", finished, "--format", "json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    reported = json.loads((finished / "report/metrics.json").read_text())
    for name, system in reported["systems"].items():
        for key in SYSTEM_KEYS - {"cost_us_per_row", "candidate_cost_us_per_row"}:
            assert again["systems"][name][key] == pytest.approx(system[key]), (name, key)


def test_predict_gives_the_evaluated_probabilities(finished: Path, workplace: Path) -> None:
    raw = open_prepared(finished / "data").raw_test()
    source = workplace / "test.parquet"
    pq.write_table(raw, source)
    done = dynens("predict", finished, source, "--out", workplace / "scored.csv")
    assert done.returncode == 0, done.stderr
    scored = pa_csv.read_csv(workplace / "scored.csv")
    assert scored.num_rows == raw.num_rows
    labels = np.array(raw["bought"].to_pylist()) == "yes"
    metrics = json.loads((finished / "report/metrics.json").read_text())
    found = roc_auc_score(labels, scored["probability"].to_numpy())
    assert found == pytest.approx(metrics["systems"]["dynamic"]["auc"], abs=1e-6)
    engine = Engine.load(finished)
    online = engine.score(engine.encoder.encode_columns(raw.slice(0, 50).to_pydict()))
    assert scored["probability"].to_numpy()[:50] == pytest.approx(online.probability, abs=1e-5)
    assert np.array_equal(scored["route"].to_numpy()[:50], online.route)


def test_predict_systems_route_as_named(finished: Path, workplace: Path) -> None:
    source = workplace / "clicks.csv"
    for system, route in (("student", 0), ("ensemble", 1)):
        out = workplace / f"{system}.parquet"
        assert dynens("predict", finished, source, "--out", out, "--system", system).returncode == 0
        assert set(pq.read_table(out)["route"].to_pylist()) == {route}


def test_rows_without_known_values_still_get_an_answer(finished: Path, workplace: Path) -> None:
    odd = pa.table({"user_id": ["never seen"], "price": pa.array([None], pa.float64())})
    pq.write_table(odd, workplace / "odd.parquet")
    out = workplace / "odd.csv"
    assert dynens("predict", finished, workplace / "odd.parquet", "--out", out).returncode == 0
    assert 0 < pa_csv.read_csv(out)["probability"][0].as_py() < 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("evaluate", "{run}", "--data", "{dir}/none.csv"), "does not exist"),
        (("predict", "{run}", "{dir}/clicks.csv", "--out", "{dir}/x.txt"), "use .csv or .parquet"),
        (("predict", "{run}", "{dir}/other.csv", "--out", "{dir}/x.csv"), "none of the model's"),
        (("predict", "{run}", "{dir}/lists.parquet", "--out", "{dir}/x.csv"), "ends in .parquet"),
        (("evaluate", "{run}", "--data", "{dir}/labels.csv"), "neither positive"),
        (
            ("schema", "infer", "{dir}/clicks.csv", "--label", "bought", "--out", "{dir}"),
            "directory",
        ),
        (("evaluate", "{dir}"), "is not a run directory"),
        (("serve", "{dir}"), "is not a run directory"),
        (("report", "{dir}"), "is not a run directory"),
        (("fit", "--data", "synthetic", "--train", "x.csv", "--out", "{dir}/o"), "give either"),
        (("fit", "--train", "{dir}/clicks.csv", "--out", "{dir}/o"), "needs --label"),
        (("fit", "--train", "{dir}/clicks.csv", "--label", "sold", "--out", "{dir}/o"), "'sold'"),
        (
            ("fit", "--train", "{dir}/clicks.csv", "--label", "bought", "--out", "{dir}/run"),
            "already holds a run",
        ),
        (("fit", "--data", "nowhere", "--out", "{dir}/o"), "nowhere"),
        (("serve", "{run}", "--port", "99999"), "port"),
        (("fly",), "No such command"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_two(
    arguments: tuple[str, ...], sentence: str, finished: Path, workplace: Path
) -> None:
    (workplace / "other.csv").write_text("alpha,beta\n1,2\n")
    (workplace / "labels.csv").write_text("user_id,item_id,shop,price,bought\n1,2,north,3.5,1\n")
    pq.write_table(pa.table({"user_id": [1], "tags": [["a"]]}), workplace / "lists.parquet")
    given = [a.format(run=finished, dir=workplace) for a in arguments]
    done = dynens(*given)
    assert done.returncode == 2, done.stdout + done.stderr
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (workplace / "o").exists()


def test_a_damaged_run_is_refused_in_one_line(finished: Path, workplace: Path) -> None:
    broken = workplace / "broken"
    shutil.copytree(finished, broken)
    model = broken / "bundle" / "student.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    done = dynens("evaluate", broken)
    assert done.returncode == 2
    assert "corrupt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
