"""What the demo puts its run in place of."""

from pathlib import Path

import pytest

from dynens.demo import _clear
from dynens.errors import BadInputError


def test_only_a_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(BadInputError, match="is not a run"):
        _clear(tmp_path)
    (tmp_path / "environment.json").write_text("{}")
    _clear(tmp_path)
    assert not tmp_path.exists()
