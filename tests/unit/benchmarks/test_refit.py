"""What a second pass gains."""

import json
from typing import Any

from benchmarks.refit import SYSTEMS, markdown


def result(seed: int) -> dict[str, Any]:
    system = {
        "auc": (0.7, 0.71),
        "logloss": (0.5, 0.49),
        "calibration_ratio": (0.9, 0.99),
        "gain": {"value": 0.01, "low": 0.005, "high": 0.015},
    }
    return {
        "dataset": "clicks",
        "seed": seed,
        "rows": {"train": 9000, "valid": 1000, "test": 1000},
        "hard_fraction": (0.1, 0.12),
        "minutes": (2.0, 1.5),
        "systems": dict.fromkeys(SYSTEMS, system),
    }


def test_every_seed_has_its_line() -> None:
    text = markdown(json.loads(json.dumps({"results": [result(1), result(2)]})))
    line = "0.7000 | 0.7100 | +0.0100 [+0.0050, +0.0150] | 0.5000 → 0.4900 | 0.900 → 0.990 |"
    for seed in (1, 2):
        assert f"| best single | {seed} | {line}" in text
    assert "9,000 training rows, in the second pass 1,000 validation rows as well" in text
    assert "Hard rows: 10.0% → 12.0%, 10.0% → 12.0%" in text
    assert "Minutes of all stages: 2.0 + 1.5, 2.0 + 1.5" in text
