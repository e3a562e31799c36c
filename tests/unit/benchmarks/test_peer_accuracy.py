"""Rows for RecBole, and the page about its models."""

from pathlib import Path

import numpy as np

from benchmarks.peer_accuracy import OURS, markdown, write_rows
from dynens.batch import PADDING, EncodedBatch, FeatureLayout, SparseField


def test_rows_are_written_as_recbole_reads_them(tmp_path: Path) -> None:
    layout = FeatureLayout(("price",), (SparseField("user", 9), SparseField("tags", 9, 3)))
    ids = np.array([[4, 2, 3, PADDING], [0, PADDING, PADDING, PADDING]], np.int32)
    batch = EncodedBatch(np.array([[0.5], [-1.25]], np.float32), ids, np.array([1, 0], np.float32))
    write_rows(tmp_path / "rows.inter", batch, layout)
    assert (tmp_path / "rows.inter").read_text().splitlines() == [
        "row:float\tf0:token\tf1:token_seq\td0:float\tlabel:float",
        "0\t4\t2 3\t0.5\t1",
        "1\t0\t\t-1.25\t0",
    ]


def test_the_page_compares_with_the_best_on_validation() -> None:
    values = {"DeepFM": 0.70, "PNN": 0.72, **dict.fromkeys(OURS, 0.75)}
    difference = {"value": 0.03, "low": 0.02, "high": 0.04}
    run = {
        "dataset": "d",
        "seed": 1,
        "chosen": "PNN",
        "test_auc": values,
        "minus_chosen": dict.fromkeys(OURS, difference),
    }
    text = markdown({"runs": [run, {**run, "seed": 2}]})
    assert "| RecBole's DeepFM | 0.7000 ± 0.0000 |" in text
    assert "| static ensemble | 0.7500 ± 0.0000 |" in text
    assert "| 2 | PNN, 0.7200 | +0.0300 [+0.0200, +0.0400] |" in text
