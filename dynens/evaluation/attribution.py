"""Which fields the answers hang on: permutation importance of the student beside the ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dynens.batch import EncodedBatch
from dynens.config.serving import System
from dynens.data.encoding.encoders import FieldColumns
from dynens.evaluation.systems import Probabilities, RunSystems
from dynens.metrics import mean_ranks

# Each field costs two passes over the rows; a mean over so many is known to a few per cent. Many
# fields get fewer rows: wide rows cost more each.
ATTRIBUTION_ROWS, _FEWEST_ROWS = 2048, 256
_MANY_FIELDS = 50

Probability = Callable[[EncodedBatch], Probabilities]


def field_attribution(systems: RunSystems, batch: EncodedBatch, seed: int) -> dict[str, Any]:
    """How far student and static ensemble each move when a field's values are dealt out anew.

    Args:
        systems: of a finished run.
        batch: N rows; at most `ATTRIBUTION_ROWS` of them are drawn, fewer of many fields.
        seed: of the draw and of the permutations.

    Returns:
        `rows` used; `fields`, a list of {name, ensemble, student} with (weighted) mean |Δp|, the
        largest for the ensemble first; `agreement`, Spearman's ρ of the two columns (NaN where
        undefined).

    References:
        Breiman, "Random Forests", Machine Learning 45, 2001, section 10, with the change of the
        answers in the place of the change of the error: it is what student and ensemble should
        agree about, whatever the labels say.
    """
    engine = systems.engine
    columns = engine.encoder.field_columns()
    share = min(_MANY_FIELDS / max(len(columns), 1), 1.0)
    count = max(round(share * ATTRIBUTION_ROWS), _FEWEST_ROWS)
    generator = np.random.default_rng([seed, 0xA7])
    rows = batch.take(np.sort(generator.permutation(len(batch))[:count]))

    def shifts(system: System) -> dict[str, float]:
        return field_shifts(
            lambda some: engine.score(some, system=system).probability, rows, columns, seed
        )

    ensemble, student = shifts("ensemble"), shifts("student")
    order = sorted(columns, key=lambda name: -ensemble[name])
    return {
        "rows": len(rows),
        "agreement": _agreement(list(ensemble.values()), list(student.values())),
        "fields": [
            {"name": name, "ensemble": ensemble[name], "student": student[name]} for name in order
        ],
    }


def field_shifts(
    probability: Probability,
    batch: EncodedBatch,
    columns: Mapping[str, FieldColumns],
    seed: int,
) -> dict[str, float]:
    """(Weighted) mean |Δp| when one field's columns are permuted together, for every field.

    Args:
        probability: (N,) answers of a batch.
        batch: N rows, left as they are.
        columns: of each field.
        seed: of the permutations, the same ones for every `probability`.
    """
    before = probability(batch)
    weight = batch.sample_weight
    if weight is not None and not weight.any():
        weight = None  # of rows without weight there is no weighted mean
    shifts = {}
    for number, (name, (dense_at, ids_at)) in enumerate(columns.items()):
        order = np.random.default_rng([seed, number]).permutation(len(batch))
        dense, ids = batch.dense.copy(), batch.ids.copy()
        dense[:, dense_at] = batch.dense[order][:, dense_at]
        ids[:, ids_at] = batch.ids[order][:, ids_at]
        moved = np.abs(probability(EncodedBatch(dense, ids)) - before)
        shifts[name] = float(np.average(moved, weights=weight))
    return shifts


def _agreement(a: list[float], b: list[float]) -> float:
    if len(a) < 2 or len(set(a)) == 1 or len(set(b)) == 1:
        return float("nan")
    return float(np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1])
