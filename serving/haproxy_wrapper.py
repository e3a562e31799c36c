"""Stands where Ray Serve expects the HAProxy binary: edits the configuration, then becomes it.

Ray renders HAProxy's configuration from a template of its own. That template stamps no arrival
time, which the latency budget needs, and binds the statistics and metrics listeners on every
interface. Before each start and reload this program rewrites the rendered file in place (Ray
recognises its HAProxy by that path) and then replaces itself with the real binary, so the process
keeps the pid that Ray knows.

It runs once per reload under `python -I -S`, so it imports nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence

BINARY_VARIABLE = "DYNENS_HAPROXY_BINARY"
DIRECTORY_VARIABLE = "DYNENS_RUNTIME_DIRECTORY"

# Rules at the head of the public frontend. A client's own values never get through. `date(0,us)`
# is microseconds since the epoch, read when the request's headers have arrived. Ray watches each
# request for disconnection with an extra task; the application does that itself, and only where
# work is long enough to be worth stopping.
ARRIVAL_RULES = (
    "    http-request del-header x-request-start",
    "    http-request set-header x-request-start t=%[date(0,us)]",
    "    http-request set-header x-request-disconnect-disabled ?1",
    "    http-request del-header x-request-timeout-seconds",
)

_PR_SET_PDEATHSIG = 1

# HAProxy's own answers, in the words of the HTTP contract: no replica could take the request.
_UNAVAILABLE = '{\\"error\\": \\"no replica can take this request now; try again\\"}'
_ANSWER = f'content-type application/json string "{_UNAVAILABLE}" hdr retry-after 1'
ERROR_RULES = tuple(f"    http-error status {status} {_ANSWER}" for status in (502, 503, 504))

# The replica keeps to budgets. One that hangs is given up a second after the budget that the client
# set in a header; without a header, when its health check fails. Where no replica is listed (at the
# start, while the only one changes its bundle or is replaced), Ray's own proxy holds requests until
# there is one, and they are given up as early.
_CLOSING = "on-marked-down shutdown-sessions"
_BUDGET = "req.hdr(x-latency-budget-ms)"
_HAS_BUDGET = f"{{ {_BUDGET} -m reg ^[0-9.]+$ }}"
TIMEOUT_RULE = f"    http-request set-timeout server {_BUDGET},add(1000) if {_HAS_BUDGET}"
HOLDING_RULE = f"    http-request set-timeout server 1s if !{_HAS_BUDGET}"


def confine(text: str, directory: str) -> str:
    """The configuration with arrival stamps and with every side door closed.

    Args:
        text: HAProxy configuration as Ray rendered it.
        directory: private folder for the statistics and metrics sockets.
    """
    lines: list[str] = []
    section = ""
    has_replica = re.search(r"^\s+server SERVE_REPLICA", text, re.MULTILINE) is not None
    waiting_rules = (TIMEOUT_RULE,) if has_replica else (TIMEOUT_RULE, HOLDING_RULE)
    for line in text.splitlines():
        if line and not line[0].isspace():
            section = " ".join(line.split())
        confined = _confine_line(line, section, directory, has_replica)
        if confined is not None:
            lines.append(confined)
        if section == "frontend http_frontend" and line.lstrip().startswith("bind "):
            lines.extend(rule for rule in ARRIVAL_RULES if rule not in text)
        if section.startswith("backend http-") and line.split() == ["http-reuse", "always"]:
            lines.extend(rule for rule in waiting_rules if rule not in text)
        if section == "defaults" and line.split() == ["mode", "http"]:
            lines.extend(rule for rule in ERROR_RULES if rule not in text)
    return "\n".join(lines) + "\n"


def leaks(text: str) -> str | None:
    """What a confined configuration still leaves open, or None.

    Another version of Ray may name its sections otherwise.
    """
    if not all(rule in text for rule in ARRIVAL_RULES):
        return "no section `frontend http_frontend` whose requests could be stamped"
    binds = [line.split()[1] for line in text.splitlines() if line.strip().startswith("bind ")]
    tcp = [address for address in binds if not address.startswith("unix@")]
    return f"listeners at {', '.join(tcp)}, of which one is meant" if len(tcp) > 1 else None


def _confine_line(line: str, section: str, directory: str, has_replica: bool) -> str | None:
    stripped = line.strip()
    if stripped.startswith("bind ") and section in ("frontend prometheus", "listen stats"):
        name = "metrics" if section == "frontend prometheus" else "stats"
        return f"    bind unix@{directory}/haproxy-{name}.sock mode 600"
    if stripped.startswith("stats socket "):
        return re.sub(r"\bmode \d+", "mode 600", line)
    if stripped.startswith("log ") and "127.0.0.1:514" in stripped:
        return None
    if re.match(r"errorfile 50[234] ", stripped):
        return None
    if section == "backend default_backend" and stripped.startswith("http-request return "):
        return f"    http-request return status 503 {_ANSWER}"  # no application yet
    if section.startswith("backend http-") and stripped.startswith("server "):
        if stripped.endswith(" backup"):  # Ray's own proxy
            return None if has_replica else line
        return line if stripped.endswith(_CLOSING) else f"{line} {_CLOSING}"
    return line


def configuration_path(arguments: Sequence[str]) -> str | None:
    """The file after `-f`, or None."""
    for flag, value in itertools.pairwise(arguments):
        if flag == "-f":
            return value
    return None


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Confine the configuration and become HAProxy."""
    binary = environment[BINARY_VARIABLE]
    path = configuration_path(arguments)
    if path is not None:
        with open(path, encoding="utf-8") as file:
            text = confine(file.read(), environment[DIRECTORY_VARIABLE])
        left_open = leaks(text)
        if left_open is not None:
            sys.exit(f"HAProxy is not started: its configuration has {left_open}.")
        staging = f"{path}.confined"
        with open(staging, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(staging, path)
    _die_with_parent()
    os.execv(binary, [binary, *arguments])


def _die_with_parent() -> None:
    """Have the kernel end HAProxy when Ray's process that started it dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1:], os.environ)
