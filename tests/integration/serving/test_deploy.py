"""The same application from a Serve configuration file, on a cluster that is already there."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dynens.bundle import load_bundle
from serving.client import open_directly
from serving.environment import free_port, free_ports
from tests.bundles import toy_run
from tests.server_process import command_line

_ROOT = Path(__file__).resolve().parents[3]
_BIN = Path(sys.executable).parent
_WAIT_S = 90


@dataclass
class Cluster:
    """A Ray cluster of this test's own."""

    head: psutil.Process
    dashboard: int
    environment: dict[str, str]

    def deploy(self, config: dict[str, Any], path: Path) -> None:
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        address = f"http://127.0.0.1:{self.dashboard}"
        command = [str(_BIN / "serve"), "deploy", "-a", address, str(path)]
        done = subprocess.run(
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def replicas(self) -> list[int]:
        """Process numbers of the replicas."""
        family = self.head.children(recursive=True)
        return [p.pid for p in family if "ServeReplica" in command_line(p)]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    fallback, metrics, stats, dashboard, head_port, agent = free_ports(6)
    with tempfile.TemporaryDirectory(prefix="dyn-", dir="/tmp") as folder:
        environment = os.environ | {
            "PYTHONPATH": str(_ROOT),
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/h/haproxy.cfg",
            "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/h/a.sock",
            "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{folder}/h",
            "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/h/state",
            "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/h/m.sock",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        command = [str(_BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += [f"--port={head_port}", f"--dashboard-port={dashboard}"]
        command += [f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"]
        command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
        with open(f"{folder}/log", "w", encoding="utf-8") as log:
            head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _until(lambda: "block forever" in Path(f"{folder}/log").read_text())
            yield Cluster(psutil.Process(head.pid), dashboard, environment)
        finally:
            family = psutil.Process(head.pid).children(recursive=True)
            head.kill()  # a farewell takes Ray half a minute
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait(60)
            psutil.wait_procs(family, timeout=10)


def _until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.2)


def _version(port: int) -> str:
    body = json.dumps({"user_id": 3, "candidates": ["i1"], "latency_budget_ms": 30_000})
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/rank", body.encode())
    try:
        with open_directly(request, 30) as answer:
            return str(json.load(answer)["bundle_version"])
    except urllib.error.HTTPError as e:
        return f"status {e.code}"
    except OSError as e:
        return f"no answer: {e}"


def test_deploy_and_change_the_bundle_with_a_config_file(cluster: Cluster, tmp_path: Path) -> None:
    runs = [toy_run(tmp_path / name, seed=i, hidden=(32,)) for i, name in enumerate("ab")]
    port = free_port()
    application = {
        "name": "dynens",
        "route_prefix": "/",
        "import_path": "serving.app:build",
        "args": {"bundle": str(runs[0]), "serving": {"system": "dynamic"}},
    }
    config = {
        "proxy_location": "HeadOnly",
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [application],
    }
    cluster.deploy(config, tmp_path / "serve.yaml")
    _until(lambda: _version(port) == load_bundle(runs[0]).version)
    application["args"] = {**application["args"], "bundle": str(runs[1])}  # type: ignore[dict-item]
    cluster.deploy(config, tmp_path / "serve.yaml")
    _until(lambda: _version(port) == load_bundle(runs[1]).version)
    _until(lambda: len(cluster.replicas()) == 1)
    before = cluster.replicas()
    override = {"name": "dynens", "user_config": {"bundle": str(runs[0])}}
    application["deployments"] = [override]  # type: ignore[assignment]
    cluster.deploy(config, tmp_path / "serve.yaml")
    _until(lambda: _version(port) == load_bundle(runs[0]).version)
    assert cluster.replicas() == before
