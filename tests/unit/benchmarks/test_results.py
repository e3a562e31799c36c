"""The results page, from JSON alone."""

import json
from pathlib import Path

import pytest

from benchmarks import distillation, results
from benchmarks.run_all import steps
from dynens.errors import BadInputError


def curve(rate: float) -> list[dict[str, float]]:
    return [
        {
            "offered_qps": rate * factor,
            "p50_ms": 1.0,
            "p99_ms": 2.0 * factor,
            "error_rate": 0.0,
            "granted_share": 1.0,
            "achieved_qps": rate * factor,
            "late": 8.0,
            "duration_s": 2.0,
        }
        for factor in (1, 10)
    ]


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "DOCS", tmp_path)
    return tmp_path


def test_what_was_not_measured_is_left_out_and_named(docs: Path, tmp_path: Path) -> None:
    data = {
        "run": "r",
        "bundle_version": "v",
        "budget_ms": 8.0,
        "rows_per_request": 100,
        "curves": {"student": curve(50), "dynamic": curve(20), "static": curve(5)},
        "knees_qps": {"student": 50.0, "dynamic": 20.0, "static": 0.0},
        "samples": {"student": [1, 2, 3]},
        "command": ["load_curve", "runs/one", "--short", "--out", "x.json"],
        "machine": {
            "cpu": "a processor",
            "cpu_count": 2,
            "date": "2026-01-02",
            "hostname": "secret",
        },
    }
    (tmp_path / "load_curve-short.json").write_text(json.dumps(data), encoding="utf-8")
    results.render(tmp_path)
    page = (docs / "RESULTS.md").read_text(encoding="utf-8")
    made = "`python -m benchmarks.load_curve RUN --short --out F`, on a processor, 2 cores"
    assert f"{made}, 2026-01-02." in page
    assert "| student alone | 50 | 500 | 1.00 | 2.00 |" in page
    assert "| static trio | 0 | 5 | – | – |" in page
    assert "| static trio | 50 | 46 | 4 | 100% |" in page
    assert "![Latency over offered rate](latency-over-rate.svg)" in page
    assert page.count("Not measured on this machine yet") == len(results.SECTIONS) - 1
    assert (docs / "latency-over-rate.svg").stat().st_size < 100_000
    kept = json.loads((docs / "results.json").read_text(encoding="utf-8"))
    assert set(kept) == {"load_curve"}
    assert not {"samples", "machine", "command"} & set(kept["load_curve"])


def test_what_was_not_measured_anew_keeps_its_section(docs: Path, tmp_path: Path) -> None:
    old = (
        "# Results\n\n## Memory under a constant load\n\nSteady, on a processor.\n\n## Serving\n\n"
    )
    (docs / "RESULTS.md").write_text(old + results.MISSING, encoding="utf-8")
    (docs / "results.json").write_text('{"soak": {"first_mb": 1}}', encoding="utf-8")
    (tmp_path / "empty").mkdir()
    results.render(tmp_path / "empty")
    page = (docs / "RESULTS.md").read_text(encoding="utf-8")
    assert "## Memory under a constant load\n\nSteady, on a processor.\n" in page
    assert page.count("Not measured on this machine yet") == len(results.SECTIONS) - 1
    assert json.loads((docs / "results.json").read_text(encoding="utf-8")) == {
        "soak": {"first_mb": 1}
    }
    results.render(tmp_path / "empty")
    assert (docs / "RESULTS.md").read_text(encoding="utf-8") == page


def test_a_section_names_the_module_that_made_it() -> None:
    command = ["benchmarks/soft_labels.py", "continual", "--seeds", "1", "--out", "x/y.json"]
    made = results.made_by("continual", "", {"command": command})
    assert made == "python -m benchmarks.soft_labels continual --seeds 1 --out F"


def test_raw_samples_go_at_every_depth() -> None:
    data = {"samples": 1, "a": {"trials": 2, "b": 3}, "latency": {"x": [1]}}
    assert results.without_raw(data) == {"a": {"b": 3}, "latency": {"x": [1]}}


# Only the full form has them: minutes of steps, and data that not every machine has.
FULL_ONLY = {"peer_accuracy", "routing", "training_speed", "epoch_scaling", "faults", "soak"}
FULL_ONLY |= {
    "distillation-demo",
    "out_of_fold",
    "stacking",
    "serving-kuairand",
    "serving-2",
    "serving-kuairand-2",
    "serving-kuairand-3",
    "load_curve-kuairand",
    "continual",
    "federated",
    "refit",
}
# The runs that the full form's students are made from, and those of two passes.
NO_SECTION = {"accuracy-sample", "accuracy-refit"}


@pytest.mark.parametrize("short", [True, False])
def test_every_section_of_the_page_is_run(short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DYNENS_DATA_HOME", "somewhere")
    written = {step.out.stem.removesuffix("-short").removesuffix("-full") for step in steps(short)}
    assert written - NO_SECTION == set(results.SECTIONS) - (FULL_ONLY if short else set())
    peers = [step for step in steps(short) if step.module == "benchmarks.peers"]
    assert ("--short" in peers[0].arguments) is short


def test_variants_are_compared_within_a_seed() -> None:
    def student(variant: str, seed: int, test: float) -> dict[str, object]:
        figures = {"route": 0.8, "test": test, "teacher_correlation": 0.99, "seconds": 30.0}
        return {"variant": variant, "seed": seed, **figures}

    table = distillation.summary(
        [
            student("as configured", 1, 0.80),
            student("as configured", 2, 0.90),
            {**student("hints", 1, 0.81), "seconds": 60.0},
            {**student("hints", 2, 0.91), "seconds": 60.0, "new_items": 0.7},
        ]
    )
    found = "| as configured | 0.9900 ± 0.0000 | 0.8000 ± 0.0000 | 0.8500 ± 0.0707 | – | – | 1 |"
    assert found in table
    assert "| 0.8600 ± 0.0707 | +0.0100 ± 0.0000 | 0.7000 | 2.0 ± 0.0 |" in table


def test_students_are_compared_with_those_of_their_commit_and_their_average_is_told() -> None:
    def student(variant: str, commit: str, test: float) -> dict[str, object]:
        figures = {"route": 0.8, "test": test, "teacher_correlation": 0.99, "seconds": 30.0}
        return {"variant": variant, "seed": 1, "commit": commit, **figures}

    students = [
        student("as configured", "a", 0.80),
        {**student("hints", "a", 0.81), "seconds": 45.0},
        student("as configured", "b", 0.90),
        {**student("exits", "b", 0.92), "seconds": 90.0},
        student("guard", "c", 0.93),
        student("as configured", "d", 0.95),
    ]
    together = {"students": 3, "alone": 0.85, "together": 0.8512}
    text = distillation.markdown({"results": students, "averaged": together})
    assert "| 0.8100 | +0.0100 | – | 1.5 |" in text
    assert "| 0.9200 | +0.0200 | – | 3.0 |" in text
    assert "+0.0300 | – | 1.0 |" in text  # the latest before it, not that of later pools
    assert "3 students as configured: test AUC 0.8512, alone 0.8500 on average" in text


def test_students_are_added_to_those_of_the_same_run_only(tmp_path: Path) -> None:
    out = tmp_path / "ablation.json"
    source = {"run": "a", "settings": []}
    assert distillation.earlier_results(out, source) == ([], {})
    out.write_text(json.dumps({**source, "results": [{"seed": 1}]}), encoding="utf-8")
    assert distillation.earlier_results(out, source) == ([{"seed": 1}], {})
    with pytest.raises(BadInputError, match="another run"):
        distillation.earlier_results(out, {"run": "b", "settings": []})
