"""The static trio behind Mosec; runs in Mosec's own environment, started by `benchmarks.peers`.

One worker, raw bytes in and out (Mosec's default JSON codec is replaced by dynens's), dynamic
batching where DYNENS_MAX_BATCH is above 1. Address, port and timeout come as MOSEC_… variables.
"""

from __future__ import annotations

from mosec import Server, Worker

from benchmarks.peer_trio import MAX_BATCH, MAX_WAIT_MS, PATH, Trio


class TrioWorker(Worker):  # type: ignore[misc]
    """One scoring process."""

    def __init__(self) -> None:
        super().__init__()
        self.trio = Trio()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes | list[bytes]) -> bytes | list[bytes]:
        """One body, or (with batching) several."""
        if isinstance(data, list):
            return self.trio.answer(data)
        return self.trio.answer([data])[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        TrioWorker, num=1, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS, route=PATH
    )
    server.run()
