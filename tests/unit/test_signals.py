"""Being told to stop."""

import signal
import threading

import pytest

from dynens.signals import handled_by, starting_ray, terminated_as_interrupted


def test_sigterm_is_as_ctrl_c_in_the_block_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminated_as_interrupted():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_library_makes_of_the_handlers_is_undone() -> None:
    heard: list[int] = []
    with handled_by(lambda number, _: heard.append(number)):
        with starting_ray():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert heard == [signal.SIGTERM, signal.SIGINT]


def test_other_threads_have_no_handlers_to_set() -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with terminated_as_interrupted():
                pass
        except BaseException as e:
            failures.append(e)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
