"""Processes and folders of servers that ended, one way or another."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import psutil

from serving.environment import Runtime, is_alive, own_runtimes
from serving.haproxy_wrapper import DIRECTORY_VARIABLE

_STOP_TIMEOUT_S = 5.0


def end_leftovers(runtime: Runtime) -> None:
    """End processes of this server that outlived Ray, and their children.

    Ray's agents show no environment, and outlive their parent for a while.
    """
    left = _with_children(processes_of(runtime))
    for process in left:
        send_signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(left, timeout=_STOP_TIMEOUT_S)
    for process in alive:
        send_signal(process, signal.SIGKILL)


def remove_dead() -> None:
    """Tidy up after servers of this user that were killed: their processes and their folders."""
    for runtime in own_runtimes():
        if not is_alive(runtime):
            end_leftovers(runtime)
            shutil.rmtree(runtime.directory, ignore_errors=True)


def processes_of(runtime: Runtime) -> list[psutil.Process]:
    """Processes that were started with the server's private folder in their environment.

    Their command lines do not tell: an editor or `tail` may name a file of the folder, too.
    """
    marker = str(runtime.directory)
    return [
        process
        for process in psutil.process_iter(["name", "environ"])
        if process.pid != os.getpid()
        and (process.info["environ"] or {}).get(DIRECTORY_VARIABLE) == marker
    ]


def _with_children(processes: list[psutil.Process]) -> list[psutil.Process]:
    family = {process.pid: process for process in processes}
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            family |= {child.pid: child for child in process.children(recursive=True)}
    return list(family.values())


def send_signal(process: psutil.Process, number: int) -> None:
    """Send a signal, unless the process has ended by itself."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
