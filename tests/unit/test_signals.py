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


def test_a_signal_while_ray_starts_is_heard_after_it_and_rays_handlers_are_undone() -> None:
    heard: list[int] = []
    steps: list[str] = []
    with handled_by(lambda number, _: heard.append(number)):
        with pytest.raises(KeyboardInterrupt):
            _start_and_be_stopped(steps)
        assert (steps, heard) == (["begun", "done"], [])
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]


def _start_and_be_stopped(steps: list[str]) -> None:
    with starting_ray():
        steps.append("begun")
        signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        steps.append("done")


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
