"""Asking a server of this machine, and waiting for one."""

import importlib
import itertools
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import faults, peers
from dynens import demo
from serving import client
from serving.client import open_directly, wait_ready
from serving.environment import free_port
from serving.loadcheck import check_server
from tests.answering import answering


def probed(url: str) -> None:
    with faults.probing(url) as answers:
        while not answers:
            time.sleep(0.01)
    assert None not in answers


ASKING: dict[str, Callable[[str, Path], object]] = {
    "a page": lambda url, _: open_directly(url, 10).close(),
    "the demo": lambda url, _: demo._ask(url, b"{}"),
    "a load test": lambda url, run: check_server(url, run, 5),
    "a peer": lambda url, _: peers._post(url, b"{}"),
    "health under faults": lambda url, _: probed(url),
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=list(ASKING))
def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    asking: Callable[[str, Path], object], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")  # nobody is there
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # openers remember the environment
    importlib.reload(client)
    with answering(lambda _: 200, b"{}") as url:
        with pytest.raises(urllib.error.URLError, match="refused"):
            urllib.request.urlopen(url)
        asking(url, run)


def test_a_server_is_ready_when_it_answers_that_all_is_well() -> None:
    statuses = itertools.chain([503, 404, 204], itertools.repeat(200))
    with answering(lambda _: next(statuses)) as url:
        assert wait_ready(url)
        assert wait_ready(urllib.request.Request(url, b"{}"), timeout_s=0)


def test_nobody_waits_for_a_server_that_has_ended_or_takes_too_long() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert not wait_ready(url, timeout_s=0)
    assert not wait_ready(url, subprocess.Popen([sys.executable, "-c", ""]), timeout_s=1e9)
