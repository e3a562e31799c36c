"""Changing the bundle of a running server: a private socket, and the command that talks to it.

    python -m serving.control --port 8000 swap RUN
    python -m serving.control --port 8000 rollback
    python -m serving.control --port 8000 status

The socket lies in the server's private folder, so only its user can reach it; nothing of this is on
the network.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynens.errors import BadInputError, DynensError, ServingError
from serving.environment import Runtime, is_alive, own_runtimes

Handler = Callable[[dict[str, Any]], dict[str, Any]]
_MAX_MESSAGE_BYTES = 64 * 1024
_TIMEOUT_S = 180.0


@contextmanager
def listening(runtime: Runtime, port: int, handler: Handler) -> Iterator[None]:
    """Answer commands on the runtime's control socket, each in a thread of its own."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(runtime.control))
    runtime.control.chmod(0o600)
    server.listen(4)
    runtime.port_file.write_text(str(port), encoding="utf-8")
    threads: list[threading.Thread] = []

    def start(target: Callable[..., None], *arguments: object) -> None:
        threads[:] = [thread for thread in threads if thread.is_alive()]
        threads.append(threading.Thread(target=target, args=arguments, daemon=True))
        threads[-1].start()

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return  # closed
            start(_answer, connection, handler)

    start(accept)
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        for thread in threads:
            thread.join(timeout=5)


def _answer(connection: socket.socket, handler: Handler) -> None:
    with connection:
        try:
            connection.settimeout(5)
            command = json.loads(_read_line(connection))
            answer = handler(command)
        except DynensError as e:
            answer = {"error": str(e), "is_bad_input": isinstance(e, BadInputError)}
        except Exception as e:  # whatever it is, whoever asks must hear of it
            logging.getLogger("dynens.serving").exception("a command failed")
            answer = {"error": f"the command failed ({type(e).__name__})"}
        _send_quietly(connection, answer)


def _send_quietly(connection: socket.socket, answer: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(answer).encode() + b"\n")
    except OSError:
        return  # the client did not wait


def _read_line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _MAX_MESSAGE_BYTES:
        part = connection.recv(4096)
        if not part:
            break
        data += part
    return data


def find_runtime(port: int) -> Runtime:
    """The private folder of this user's server on `port`.

    Raises:
        BadInputError: there is none.
    """
    for runtime in own_runtimes():
        try:
            named = runtime.port_file.read_text(encoding="utf-8") == str(port)
        except OSError:
            continue
        if named and is_alive(runtime):
            return runtime
    raise BadInputError(
        f"no server of this user listens on port {port}; give the port of a running "
        "`dynens serve` with --port."
    )


def send_command(port: int, command: dict[str, Any]) -> dict[str, Any]:
    """Have the server on `port` carry out a command.

    Raises:
        BadInputError: there is no such server, or it refused what was given.
        ServingError: it failed; the message says why.
    """
    runtime = find_runtime(port)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(str(runtime.control))
            connection.sendall(json.dumps(command).encode() + b"\n")
            answer: dict[str, Any] = json.loads(_read_line(connection))
        except (OSError, ValueError) as e:
            raise ServingError(f"the server on port {port} does not answer commands.") from e
    if "error" in answer:
        refusal = BadInputError if answer.get("is_bad_input") else ServingError
        raise refusal(answer["error"])
    return answer


def main(arguments: list[str]) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m serving.control", description="Change the bundle of a running server."
    )
    parser.add_argument("--port", type=int, default=8000, help="the server's port (default 8000)")
    commands = parser.add_subparsers(dest="command", required=True)
    swap = commands.add_parser("swap", help="answer from another bundle, without a pause")
    swap.add_argument("bundle", type=Path, help="a run directory or a bundle")
    commands.add_parser("rollback", help="go back to the bundle before")
    commands.add_parser("status", help="show the bundle that answers and the one before")
    options = parser.parse_args(arguments)
    command = {"command": options.command}
    if options.command == "swap":
        command["bundle"] = str(options.bundle.resolve())
    try:
        answer = send_command(options.port, command)
    except DynensError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
