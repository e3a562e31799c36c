"""The demo's own requests."""

import http.server
import threading
from pathlib import Path

import pytest

from dynens.demo import _clear, _is_ready
from dynens.errors import BadInputError


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers every request with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_proxy_is_not_asked_for_a_server_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert _is_ready(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()


def test_only_a_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(BadInputError, match="is not a run"):
        _clear(tmp_path)
    (tmp_path / "environment.json").write_text("{}")
    _clear(tmp_path)
    assert not tmp_path.exists()
