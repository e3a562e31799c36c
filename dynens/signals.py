"""What a process does when it is told to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Undo what the block does to the stop signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def handled_by(
    handler: Handler, numbers: Sequence[signal.Signals] = STOP_SIGNALS
) -> Iterator[None]:
    """In the block the signals are the handler's; in other threads than the main one nobody's."""
    with _handlers_kept():
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                signal.signal(number, handler)
        yield


@contextmanager
def starting_ray() -> Iterator[None]:
    """A block in which Ray starts; a signal that comes meanwhile raises KeyboardInterrupt after it.

    A process whose connection to Ray was left half made may crash when it ends. Ray's driver has
    handlers of its own, which are undone, and exits at once.
    """
    heard: list[int] = []
    with handled_by(lambda number, _: heard.append(number)):
        try:
            yield
        except SystemExit as e:
            raise KeyboardInterrupt from e
    if heard:
        raise KeyboardInterrupt


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """In the block SIGTERM raises KeyboardInterrupt, as Ctrl-C does."""
    with handled_by(signal.default_int_handler, (signal.SIGTERM,)):
        yield
