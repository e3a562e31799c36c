"""Writing a report's folder; the evaluation is a stand-in."""

from pathlib import Path

import pytest

from dynens.errors import BadInputError, BundleError
from dynens.report import write
from dynens.run import RunDirectory


def test_a_folder_that_cannot_be_written_is_told_before_the_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(write, "evaluate_run", lambda run: pytest.fail("evaluated"))
    (tmp_path / "report").touch()
    with pytest.raises(BadInputError, match=r"report cannot be written .*; let it be a folder"):
        write.write_report(RunDirectory(tmp_path))


def test_a_damaged_run_gets_no_report_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        write.write_report(RunDirectory(tmp_path))
    assert not any(tmp_path.iterdir())
