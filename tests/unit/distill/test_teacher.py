"""Made-up rows come labelled, are used several times, and do not depend on interruptions."""

from itertools import islice

import numpy as np
import pytest

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray, IntArray, SparseField
from dynens.config.distill import AugmentationConfig, DistillConfig
from dynens.distill import teacher
from dynens.distill.augment import row_space
from dynens.distill.teacher import RowFactory
from tests.unit.distill.rows import missing_row, units

LAYOUT = FeatureLayout(("price",), (SparseField("user", 50), SparseField("item", 40)))
ROWS = 16


class SumTeacher:
    """Labels a row with the sum of its ids, and counts the rows it labels."""

    def __init__(self) -> None:
        self.labelled = 0

    def logits(self, batch: EncodedBatch) -> FloatArray:
        self.labelled += len(batch)
        return batch.ids.sum(axis=1).astype(np.float32)


class IdStats:
    def transform(self, ids: IntArray) -> FloatArray:
        return ids.astype(np.float32)


def factory(reuse: int) -> tuple[RowFactory, SumTeacher]:
    rng = np.random.default_rng(0)
    table = EncodedBatch(
        rng.normal(size=(500, 1)).astype(np.float32),
        rng.integers(2, 40, (500, 2)).astype(np.int32),
    )
    config = DistillConfig(reuse=reuse, augmentations=(AugmentationConfig(kind="cutmix"),))
    space = row_space(LAYOUT, units(LAYOUT), np.ones(92, np.int64), missing_row(LAYOUT))
    judge = SumTeacher()
    return RowFactory(judge, table, IdStats(), space, config, seed=3), judge


def test_every_row_carries_its_own_label_and_statistics() -> None:
    made, _ = factory(reuse=2)
    for batch in islice(made.batches(0, ROWS), 100):
        assert len(batch.rows) == ROWS
        assert np.array_equal(batch.logits, batch.rows.ids.sum(axis=1))
        assert np.array_equal(batch.rows.stats, batch.rows.ids)


@pytest.mark.parametrize("reuse", [1, 5])
def test_rows_are_labelled_once_per_reuse(reuse: int) -> None:
    made, judge = factory(reuse)
    batches = made.batches(0, ROWS)
    for _ in islice(batches, 50):
        pass
    batches.close()  # type: ignore[attr-defined]
    ahead = teacher.LOOKAHEAD_CHUNKS * ROWS
    assert 50 // reuse * ROWS <= judge.labelled <= 50 // reuse * ROWS + ahead


@pytest.mark.parametrize("step", [3, 70, 200])
def test_a_resumed_run_draws_the_same_rows(step: int) -> None:
    undisturbed = next(islice(factory(2)[0].batches(0, ROWS), step, None))
    resumed = next(factory(2)[0].batches(step, ROWS))
    assert np.array_equal(undisturbed.rows.ids, resumed.rows.ids)
    assert np.array_equal(undisturbed.logits, resumed.logits)
