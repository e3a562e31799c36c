"""What ends the waiting of a request before its work is done: time, or a client that leaves."""

from __future__ import annotations

import asyncio

from serving.errors import ClientGoneError
from serving.http import Receive


class Alarm:
    """Cancels the current task after a time; a tenth of the cost of `asyncio.timeout`."""

    def __init__(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._rang = False
        self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def rang(self) -> bool:
        """Whether a cancellation came from this alarm; then it counts no further."""
        if self._rang:
            self._task.uncancel()
        return self._rang

    def stop(self) -> None:
        """Switch the alarm off."""
        self._timer.cancel()

    def _ring(self) -> None:
        self._rang = True
        self._task.cancel()


class DisconnectWatch:
    """Cancels the current task when the client leaves.

    Watching costs a task, so it starts only when work is about to take long.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[None] | None = None
        self._gone = False

    def start(self) -> None:
        """Watch on behalf of the task that calls this."""
        owner = asyncio.current_task()
        assert owner is not None
        self._task = asyncio.create_task(self._watch(owner))

    def stop(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()

    def raise_if_gone(self) -> None:
        """Turn a cancellation by this watch into `ClientGoneError`."""
        if self._gone:
            owner = asyncio.current_task()
            assert owner is not None
            owner.uncancel()
            raise ClientGoneError

    async def _watch(self, owner: asyncio.Task[object]) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone = True
            owner.cancel()
