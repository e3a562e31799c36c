"""What a column alone tells of the label on rows it has not seen."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from dynens.data.inference.evidence import halves, held_out_auc

SMOOTHING = 10.0


@pytest.mark.parametrize("num_codes", [2, 40, 900])
def test_held_out_auc_is_that_of_the_other_halfs_rates(num_codes):
    rng = np.random.default_rng(num_codes)
    codes = rng.integers(0, num_codes, 1000)
    labels = (rng.random(1000) < 0.1 + 0.3 * (codes % 2)).astype(np.float32)
    half = halves(1000)
    expected = []
    for mine in (half, ~half):
        there = {c: labels[~mine][codes[~mine] == c] for c in range(num_codes)}
        prior = SMOOTHING * float(labels.mean())
        scores = [(there[c].sum() + prior) / (len(there[c]) + SMOOTHING) for c in codes[mine]]
        expected.append(roc_auc_score(labels[mine], scores))
    assert held_out_auc(codes, labels, half) == pytest.approx(np.mean(expected), abs=1e-9)


def test_labels_of_one_class_have_no_order():
    assert held_out_auc(np.arange(9) % 3, np.ones(9, np.float32), halves(9)) == 0.5
