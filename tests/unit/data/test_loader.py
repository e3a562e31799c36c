import numpy as np
import pytest

from dynens.batch import EncodedBatch
from dynens.data.loader import BatchLoader


def rows(num_rows=1000):
    ids = np.arange(num_rows, dtype=np.int32)[:, None]
    return EncodedBatch(
        np.zeros((num_rows, 0), np.float32), ids, labels=ids[:, 0].astype(np.float32)
    )


def order(loader, epoch):
    return np.concatenate([batch.ids[:, 0] for batch in loader.epoch(epoch)])


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("shuffle_rows", [10_000, 150, 64])
def test_every_row_once_in_seeded_order(prefetch, shuffle_rows):
    loader = BatchLoader(rows(), 64, seed=1, prefetch=prefetch, shuffle_rows=shuffle_rows)
    first, second = order(loader, 0), order(loader, 1)
    np.testing.assert_array_equal(np.sort(first), np.arange(1000))
    assert (first != second).any()
    np.testing.assert_array_equal(first, order(loader, 0))
    sizes = [len(batch) for batch in loader.epoch(0)]
    assert sizes == [64] * 15 + [40]
    assert len(loader) == 16


def test_without_shuffling_and_without_the_rest():
    loader = BatchLoader(rows(), 300, shuffle=False, drop_last=True)
    np.testing.assert_array_equal(order(loader, 0), np.arange(900))
    assert len(loader) == 3


def test_labels_follow_their_rows():
    for batch in BatchLoader(rows(), 128).epoch(0):
        np.testing.assert_array_equal(batch.labels, batch.ids[:, 0])


def test_errors_of_the_thread_reach_the_consumer(monkeypatch):
    def fail(self, index):
        raise RuntimeError("disk gone")

    loader = BatchLoader(rows(), 64)
    monkeypatch.setattr(EncodedBatch, "take", fail)
    with pytest.raises(RuntimeError, match="disk gone"):
        list(loader.epoch(0))


def test_leaving_early_ends_the_thread():
    import threading

    before = threading.active_count()
    for _ in BatchLoader(rows(), 8, prefetch=2).epoch(0):
        break
    assert threading.active_count() == before
