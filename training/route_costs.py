"""What both routes cost on this machine: the student, and the ensemble by hard rows."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import numpy as np

from dynens.batch import EncodedBatch, FeatureLayout, as_one_request
from dynens.budget import CostModel
from dynens.bundle import ENSEMBLE, GRAPH_OUTPUTS, STUDENT
from dynens.config.serving import EngineConfig
from dynens.graph import Form, Graph

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
    seconds = np.empty((len(graphs), len(sizes), 1 + _REPEATS))
    taken = 0
    for repeat, (column, size) in itertools.product(range(1 + _REPEATS), enumerate(sizes)):
        # Other rows each time: the same ones again would be found in the caches.
        block = as_one_request(rows.take((taken + np.arange(size)) % len(rows)), layout)
        taken += size
        logit = np.zeros(size, np.float32)
        for row, (name, graph) in enumerate(graphs.items()):
            start = time.perf_counter()
            graph.score(GRAPH_OUTPUTS[name], block, form, logit)
            seconds[row, column, repeat] = time.perf_counter() - start
    easy, hard = np.median(seconds[:, :, 1:], axis=2).tolist()  # the first round warms up
    return CostModel.fit(sizes, easy), CostModel.fit(sizes, hard)
