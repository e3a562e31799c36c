"""Graphs that are written again."""

import errno
from pathlib import Path

import pytest

from dynens.errors import BadInputError
from training import export


def test_a_run_that_must_not_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Learner:
        def export_onnx(self, path: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(export, "load_learner", lambda _: Learner())
    served = tmp_path / "model.onnx"
    served.write_bytes(b"as it was")
    with pytest.raises(BadInputError, match=r"cannot be written \(Permission denied\); make room"):
        export._export_anew(tmp_path, served)
    assert served.read_bytes() == b"as it was"
