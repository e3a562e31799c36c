"""What both routes cost on this machine: the student, and the ensemble by hard rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from dynens.batch import EncodedBatch, FeatureLayout, as_one_request
from dynens.budget import CostModel
from dynens.bundle import ENSEMBLE, GRAPH_OUTPUTS, STUDENT
from dynens.config.serving import EngineConfig
from dynens.graph import Form, Graph
from dynens.timing import in_turns, median_seconds, other_rows

_REPEATS = 30


def route_costs(
    student: Path, ensemble: Path, rows: EncodedBatch, layout: FeatureLayout
) -> tuple[CostModel, CostModel]:
    """Cost models of the exported student and ensemble, fitted as the engine fits its own.

    Args:
        student, ensemble: graphs for encoded rows.
        rows: at least one; they are made candidates of one request.
        layout: of the rows.
    """
    config = EngineConfig()
    graphs = {
        STUDENT: Graph(student, None, GRAPH_OUTPUTS[STUDENT], config),
        ENSEMBLE: Graph(ensemble, None, GRAPH_OUTPUTS[ENSEMBLE], config),
    }
    form = Form.SHARED if layout.has_context else Form.ANY
    sizes = config.warm_up_rows

    def works(repeat: int) -> dict[tuple[str, int], Callable[[], object]]:
        found: dict[tuple[str, int], Callable[[], object]] = {}
        start = repeat * sum(sizes)
        for size in sizes:
            block = as_one_request(other_rows(rows, start, size), layout)
            start += size
            logit = np.zeros(size, np.float32)
            for name, graph in graphs.items():
                found[name, size] = partial(graph.score, GRAPH_OUTPUTS[name], block, form, logit)
        return found

    seconds = median_seconds(in_turns(works, _REPEATS, warm_up=1))
    easy, hard = (CostModel.fit(sizes, [seconds[name, size] for size in sizes]) for name in graphs)
    return easy, hard
