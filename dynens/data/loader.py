"""Batches of encoded rows: shuffled, and fetched ahead of the consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

import numpy as np

from dynens.batch import EncodedBatch, Indexer


class BatchLoader:
    """Iterates over a split, one pass per `epoch` call.

    Shuffling is complete for data that fit `shuffle_rows`; beyond that, contiguous blocks of
    `shuffle_rows` rows are taken in random order and shuffled inside, so that a memory-mapped split
    is read in long runs. The order depends on `seed` and the epoch alone.

    Args:
        data: the rows (memory-mapped is fine).
        batch_size: rows per batch; the last one of an epoch may be smaller.
        shuffle: whether to shuffle.
        seed: of the order.
        prefetch: batches made ahead by a thread; 0: none.
        shuffle_rows: rows shuffled together.
        drop_last: leave out a last batch that is smaller.
    """

    def __init__(
        self,
        data: EncodedBatch,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        prefetch: int = 2,
        shuffle_rows: int = 4_000_000,
        drop_last: bool = False,
    ) -> None:
        self._data, self._batch_size = data, batch_size
        self._shuffle, self._seed = shuffle, seed
        self._prefetch, self._drop_last = prefetch, drop_last
        self._shuffle_rows = max(shuffle_rows, batch_size)

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self._data), self._batch_size)
        return full + (1 if rest and not self._drop_last else 0)

    def epoch(self, number: int) -> Iterator[EncodedBatch]:
        """The batches of one pass."""
        batches = self._batches(number)
        return _fetched_ahead(batches, self._prefetch) if self._prefetch else batches

    def _batches(self, number: int) -> Iterator[EncodedBatch]:
        for i, rows in enumerate(self._row_numbers(number)):
            if i >= len(self):
                return
            yield self._data.take(rows)

    def _row_numbers(self, number: int) -> Iterator[Indexer]:
        num_rows, size = len(self._data), self._batch_size
        if not self._shuffle:
            for start in range(0, num_rows, size):
                yield slice(start, min(start + size, num_rows))
            return
        rng = np.random.default_rng((self._seed, number))
        starts = rng.permutation(np.arange(0, num_rows, self._shuffle_rows))
        left = np.zeros(0, np.int64)
        for start in starts:
            block = np.arange(start, min(start + self._shuffle_rows, num_rows))
            rows = np.concatenate([left, rng.permutation(block)])
            whole = len(rows) // size * size
            for first in range(0, whole, size):
                yield rows[first : first + size]
            left = rows[whole:]
        if len(left):
            yield left


def _fetched_ahead(batches: Iterator[EncodedBatch], count: int) -> Iterator[EncodedBatch]:
    """The same batches, made by a thread up to `count` ahead; its errors are raised here."""
    ready: queue.Queue[EncodedBatch | BaseException | None] = queue.Queue(count)
    stopped = threading.Event()

    def put(item: EncodedBatch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=work, name="batch-loader", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
