"""The configuration that Ray renders, confined; run on Ray's own template."""

import subprocess
from pathlib import Path

import pytest
from ray.serve._private.haproxy import HAProxyApi, HAProxyConfig

from serving.environment import haproxy_binary
from serving.haproxy_wrapper import (
    ARRIVAL_RULES,
    HOLDING_RULE,
    TIMEOUT_RULE,
    configuration_path,
    confine,
    leaks,
    main,
)


@pytest.fixture
def rendered(tmp_path: Path) -> str:
    config = HAProxyConfig(socket_path=str(tmp_path / "admin.sock"), enable_hap_optimization=False)
    HAProxyApi(config, config_file_path=str(tmp_path / "ray.cfg"))._generate_config_file_internal()
    return (tmp_path / "ray.cfg").read_text()


def binds(text: str) -> list[str]:
    return [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind ")]


def test_ray_still_binds_side_doors_everywhere(rendered: str) -> None:
    """If this fails, Ray has changed its template and the wrapper must be looked at again."""
    assert {":9101", "*:8404"} <= set(binds(rendered))
    assert "mode 666" in rendered


def test_only_the_public_port_is_left_open(rendered: str) -> None:
    confined = confine(rendered, "/tmp/private")
    tcp = [b for b in binds(confined) if not b.startswith("unix@/tmp/private/")]
    assert len(binds(confined)) == 3
    assert len(tcp) == 1
    assert tcp[0] in binds(rendered)
    assert "666" not in confined


def test_arrival_is_stamped_first_thing_and_never_by_the_client(rendered: str) -> None:
    lines = confine(rendered, "/tmp/private").splitlines()
    frontend = lines.index("frontend http_frontend")
    rules = [line for line in lines[frontend:] if line.strip().startswith("http-request")]
    assert tuple(rules[: len(ARRIVAL_RULES)]) == ARRIVAL_RULES
    assert rules[0].split() == ["http-request", "del-header", "x-request-start"]


def test_confining_twice_changes_nothing_more(rendered: str) -> None:
    once = confine(rendered + BACKEND, "/tmp/private")
    assert confine(once, "/tmp/private") == once


BACKEND = """
backend http-dynens
    http-reuse always
    server SERVE_REPLICA_a 127.0.0.1:30000 check observe layer4 error-limit 3 on-error mark-down
    server SERVE_PROXY_ACTOR-fallback-b 127.0.0.1:55799 check backup
"""


def test_rays_proxy_holds_requests_only_where_there_is_no_replica(rendered: str) -> None:
    text = confine(rendered + BACKEND, "/tmp/private")
    assert "SERVE_PROXY_ACTOR" not in text
    assert "mark-down on-marked-down shutdown-sessions\n" in text
    assert TIMEOUT_RULE in text
    assert HOLDING_RULE not in text
    alone = "\n".join(line for line in BACKEND.splitlines() if "SERVE_REPLICA" not in line)
    text = confine(rendered + alone, "/tmp/private")
    assert "check backup\n" in text.replace(" on-marked-down shutdown-sessions", "")
    assert {TIMEOUT_RULE, HOLDING_RULE} <= set(text.splitlines())


def test_before_there_is_an_application_the_answer_is_503(rendered: str) -> None:
    assert "return status 404" in rendered
    text = confine(rendered, "/tmp/private")
    assert "return status 404" not in text
    assert "return status 503 content-type application/json" in text


def test_haproxy_accepts_the_result(rendered: str, tmp_path: Path) -> None:
    text = confine(rendered + BACKEND, str(tmp_path))
    (tmp_path / "haproxy.cfg").write_text(text)
    check = subprocess.run(
        [haproxy_binary(), "-c", "-f", str(tmp_path / "haproxy.cfg")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert check.returncode == 0, check.stderr


def test_haproxy_is_not_started_with_a_side_door_open(rendered: str, tmp_path: Path) -> None:
    assert leaks(confine(rendered, "/tmp/private")) is None
    renamed = rendered.replace("frontend http_frontend", "frontend http_in")
    assert "stamped" in str(leaks(confine(renamed, "/tmp/private")))
    text = rendered.replace("listen stats", "listen statistics")
    assert "*:8404" in str(leaks(confine(text, "/tmp/private")))
    path = tmp_path / "haproxy.cfg"
    path.write_text(text)
    variables = {"DYNENS_HAPROXY_BINARY": "/bin/true", "DYNENS_RUNTIME_DIRECTORY": str(tmp_path)}
    with pytest.raises(SystemExit, match="not started"):
        main(["-f", str(path)], variables)
    assert path.read_text() == text


def test_the_configuration_is_found_among_the_arguments() -> None:
    assert configuration_path(["-db", "-f", "a.cfg", "-sf", "12"]) == "a.cfg"
    assert configuration_path(["-v"]) is None
