"""What a server refuses before it starts Ray."""

import sys
from pathlib import Path

import pytest

from dynens.config.serving import ServingConfig
from dynens.errors import BadInputError
from serving.server import serve


@pytest.mark.parametrize(
    ("host", "variable", "sentence"),
    [
        ("", None, "--host is empty; give an address"),
        ("127.0.0.1", "NO_TOKEN", "the environment variable 'NO_TOKEN' is empty; put"),
    ],
)
def test_mistakes_are_one_sentence_of_the_driver(
    run: Path, monkeypatch: pytest.MonkeyPatch, host: str, variable: str | None, sentence: str
) -> None:
    monkeypatch.setenv("NO_TOKEN", "")
    monkeypatch.setitem(sys.modules, "ray", None)  # whoever starts it fails
    with pytest.raises(BadInputError, match=sentence):
        serve(run, host, config=ServingConfig(bearer_token_env=variable))
