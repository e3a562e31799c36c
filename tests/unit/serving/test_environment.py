"""The private folder and the environment of a server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve._private.constants import HTTP_PROXY_TIMEOUT

from serving.environment import Runtime, create_runtime, ray_environment

_NODE_ID_CHARS = 56  # Ray scopes HAProxy's files by node
_SOCKET_CHARS = 107
_HAPROXY_SUFFIX = ".1234567.tmp"


def test_the_folder_is_private_and_sockets_fit_into_it(runtime: Runtime) -> None:
    assert runtime.directory.stat().st_mode & 0o777 == 0o700
    environment = ray_environment(runtime, drain_s=1)
    for name in ("RAY_SERVE_HAPROXY_SOCKET_PATH", "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH"):
        path = Path(environment[name])
        scoped = path.parent / ("n" * _NODE_ID_CHARS) / (path.name + _HAPROXY_SUFFIX)
        assert len(str(scoped)) <= _SOCKET_CHARS


def test_a_long_temporary_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    created = create_runtime()
    shutil.rmtree(created.directory)
    assert created.directory.parent == Path("/tmp")


def test_every_file_of_haproxy_lies_in_the_folder(runtime: Runtime) -> None:
    environment = ray_environment(runtime, drain_s=1)
    for name, value in environment.items():
        if "HAPROXY" in name and value.startswith("/") and name != "DYNENS_HAPROXY_BINARY":
            assert value.startswith(str(runtime.directory)), name


def test_ray_has_the_patience_for_haproxy_on_a_busy_machine(runtime: Runtime) -> None:
    patience_s = float(ray_environment(runtime, drain_s=1)["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"])
    assert patience_s >= HTTP_PROXY_TIMEOUT  # for which a start waits


def test_two_servers_share_neither_token_nor_port(runtime: Runtime) -> None:
    one, two = (ray_environment(runtime, drain_s=1) for _ in range(2))
    assert one["RAY_AUTH_TOKEN"] != two["RAY_AUTH_TOKEN"]
    assert len(one["RAY_AUTH_TOKEN"]) == 64


def test_the_shim_becomes_haproxy(runtime: Runtime, tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    timeouts = "  timeout client 1s\n  timeout server 1s\n"
    config.write_text(
        "global\n    maxconn 10\n"
        f"frontend http_frontend\n  bind *:2\n  mode http\n{timeouts}"
        f"listen stats\n  bind *:1\n  mode http\n  stats enable\n{timeouts}"
    )
    environment = os.environ | ray_environment(runtime, drain_s=1)
    check = subprocess.run(
        [str(runtime.haproxy_shim), "-c", "-f", str(config)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert f"bind unix@{runtime.directory}/haproxy-stats.sock mode 600" in config.read_text()
    assert "*:1" not in config.read_text()
    assert sys.executable in runtime.haproxy_shim.read_text()
