"""What a server refuses before it starts Ray, and how a start is stopped."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from dynens.config.serving import ServingConfig
from dynens.errors import BadInputError, ServingError
from serving import server
from serving.environment import Runtime, free_port
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_start_ends_at_the_first_signal_and_tidies_up_through_others(
    run: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    environment, handler = dict(os.environ), signal.getsignal(number)
    runtimes: list[Runtime] = []

    def start_ray(runtime: Runtime, config: ServingConfig) -> None:
        runtimes.append(runtime)
        signal.raise_signal(number)

    def end_leftovers(runtime: Runtime) -> None:
        runtimes.append(runtime)
        signal.raise_signal(number)

    monkeypatch.setattr(server, "_start_ray", start_ray)
    monkeypatch.setattr(server, "_start_serve", lambda *_: pytest.fail("the start went on"))
    monkeypatch.setattr(server, "end_leftovers", end_leftovers)
    with pytest.raises(KeyboardInterrupt):
        serve(run, port=free_port())
    assert len(runtimes) == 2
    assert not runtimes[0].directory.exists()
    assert (dict(os.environ), signal.getsignal(number)) == (environment, handler)


def test_rays_own_answer_to_a_signal_stops_the_start_too(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise SystemExit(signal.SIGTERM)

    ray = SimpleNamespace(init=init, is_initialized=lambda: False, shutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(KeyboardInterrupt):
        serve(run, port=free_port())


def test_haproxy_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: object) -> None:
        raise RayTaskError("ready", "Traceback:\nRuntimeError: HAProxy crashed: no memory\n", None)

    monkeypatch.setattr("ray.serve.start", start)
    with pytest.raises(
        ServingError, match=r"^HAProxy did not start: .*HAProxy crashed: no memory$"
    ):
        server._start_serve("127.0.0.1", free_port())
