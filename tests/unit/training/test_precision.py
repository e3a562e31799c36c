"""The arithmetic of a run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from dynens.config.base import validate
from dynens.config.run import RunConfig
from dynens.errors import ConfigError
from dynens.models import defaults, optim
from dynens.run import RunDirectory
from training import precision
from training.precision import settle_precision

SETTINGS = {
    "learners": {
        "a": {"model": "dnn"},
        "b": {"model": "dcnv2", "optimizer": {"precision": "fp32"}},
        "c": {"model": "xgboost"},
    },
    "student": {"device": "cpu"},
}


def on_the_cpu() -> RunConfig:
    config = validate(RunConfig, SETTINGS, "test")
    cpu = {name: c.model_copy(update={"device": "cpu"}) for name, c in config.learners.items()}
    return config.model_copy(update={"learners": cpu})


def test_what_was_found_first_holds_for_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the stopwatch of another process would say."""
    answers = iter([True, True, False])
    for module in (defaults, precision):
        monkeypatch.setattr(module, "cpu_may_have_bf16", lambda: True)
    monkeypatch.setattr(optim, "bf16_is_fast", lambda: next(answers))
    measured = precision._measured._function  # what a worker of Ray would run
    monkeypatch.setattr(precision, "_measured", SimpleNamespace(remote=measured))
    monkeypatch.setattr(precision.ray, "get", lambda answer: answer)
    config = on_the_cpu()
    for _ in range(2):
        settled = settle_precision(RunDirectory(tmp_path), config)
        found = {name: c.optimizer.precision for name, c in settled.learners.items()}
        assert found == {"a": "bf16", "b": "fp32", "c": "auto"}
        assert settled.student.optimizer.precision == "bf16"


def test_no_worker_is_asked_where_the_processor_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would import torch for seconds before anything is trained."""
    for module in (defaults, precision):
        monkeypatch.setattr(module, "cpu_may_have_bf16", lambda: False)
    monkeypatch.setattr(precision, "_measured", None)
    settled = settle_precision(RunDirectory(tmp_path), on_the_cpu())
    found = {name: c.optimizer.precision for name, c in settled.learners.items()}
    assert found == {"a": "fp32", "b": "fp32", "c": "auto"}
    assert settled.student.optimizer.precision == "fp32"


def test_a_gpu_that_is_not_there_is_told_of_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its own words, although a worker finds it out."""
    failure = RayTaskError("_measured", "a traceback", ConfigError("torch finds no CUDA GPU"))

    def fails(_: object) -> None:
        raise failure.as_instanceof_cause()

    monkeypatch.setattr(precision, "_measured", SimpleNamespace(remote=lambda config: None))
    monkeypatch.setattr(precision.ray, "get", fails)
    student = on_the_cpu().student.model_copy(update={"device": "cuda"})
    config = on_the_cpu().model_copy(update={"student": student})
    with pytest.raises(ConfigError) as error:
        settle_precision(RunDirectory(tmp_path), config)
    assert str(error.value) == "torch finds no CUDA GPU"
