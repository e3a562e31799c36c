"""The run directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dynens.errors import BadInputError, BundleError
from dynens.run import (
    RunDirectory,
    finite,
    no_empty_folders,
    read_json,
    replace_directory,
    write_json,
)


def test_a_run_is_not_overwritten_and_resumes_only_with_the_same_configuration(
    tmp_path: Path,
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.start({"seed": 1}, resume=False)
    assert run.read_config() == {"seed": 1}
    assert "versions" in json.loads(run.environment.read_text())
    with pytest.raises(BadInputError, match="already holds a run"):
        run.start({"seed": 1}, resume=False)
    run.start({"seed": 1}, resume=True)
    with pytest.raises(BadInputError, match="differs from the configuration given now in seed;"):
        run.start({"seed": 2}, resume=True)
    with pytest.raises(BadInputError, match="given now in router;"):
        run.start({"seed": 1, "router": {"size": 1}}, resume=True)


def test_the_setting_that_differs_is_named_with_its_section(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.start({"seed": 1, "ensemble": {"size": 3, "int8": "off"}}, resume=False)
    with pytest.raises(BadInputError, match=r"given now in ensemble\.int8;"):
        run.start({"seed": 1, "ensemble": {"size": 3, "int8": "auto"}}, resume=True)


def test_an_empty_configuration_is_that_of_no_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(BundleError, match=r"config\.yaml is empty; bring it back"):
        RunDirectory.open(tmp_path).read_config()


def test_one_process_at_a_time_works_on_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.locked(), pytest.raises(BadInputError, match="another dynens works on"), run.locked():
        pass
    with run.locked():
        assert tmp_path.is_dir()


def test_what_a_later_version_added_is_no_change(tmp_path: Path) -> None:
    def normalised(settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"added": 5, **settings}

    run = RunDirectory(tmp_path / "run")
    run.start({"seed": 1}, resume=False)
    run.start({"seed": 1, "added": 5}, resume=True, normalised=normalised)
    with pytest.raises(BadInputError, match="differs from the configuration"):
        run.start({"seed": 1, "added": 6}, resume=True, normalised=normalised)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match="not empty"):
        RunDirectory(tmp_path).start({}, resume=False)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("x" * 300, "file", "file/run"):
        with pytest.raises(BadInputError, match="choose another --out directory"):
            RunDirectory(tmp_path / name).start({}, resume=False)


def test_a_run_does_not_go_into_another(tmp_path: Path) -> None:
    RunDirectory(tmp_path / "run").start({}, resume=False)
    with pytest.raises(BadInputError, match=r"lies inside the run .*/run; choose an --out outside"):
        RunDirectory(tmp_path / "run" / "deep" / "sub").start({}, resume=False)
    (tmp_path / "config.yaml").touch()  # somebody else's
    RunDirectory(tmp_path / "second").start({}, resume=False)


def test_folders_of_what_came_to_nothing_go_again(tmp_path: Path) -> None:
    def fails(kept: Path | None) -> None:
        with no_empty_folders(tmp_path / "a" / "b"):
            (tmp_path / "a" / "b").mkdir(parents=True)
            if kept:
                kept.touch()
            raise KeyError

    with pytest.raises(KeyError):
        fails(None)
    assert not any(tmp_path.iterdir())
    with pytest.raises(KeyError):
        fails(tmp_path / "a" / "kept")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_directory_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is killed while the old one is deleted leaves none of its files in the place."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()

    def killed(path: Path, **_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_directory(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
    replace_directory(tmp_path / "old", tmp_path / "deep" / "place")
    assert [path.name for path in (tmp_path / "deep" / "place").iterdir()] == ["new"]


def test_open_names_the_directory_that_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(BundleError, match=r"is not a run directory"):
            RunDirectory.open(path)


def test_json_has_null_for_what_is_undefined(tmp_path: Path) -> None:
    data = {"a": float("nan"), "b": [np.float32(1.5), np.int64(2), float("inf")]}
    write_json(tmp_path / "x.json", data)
    assert read_json(tmp_path / "x.json") == {"a": None, "b": [1.5, 2, None]}
    assert finite({"c": (1,)}) == {"c": [1]}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(BundleError, match="--resume"):
        read_json(tmp_path / "y.json")
