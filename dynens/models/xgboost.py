"""Gradient-boosted trees on target and count encodings beside the dense features (XGBoost).

`logit(x) = logit(rate) + Σ_t f_t(x)` over trees `f_t`, with
`x = [dense, pairs, target and count encoding of every sparse field]`. Training rows bring
leakage-free encodings; every other row reads the frozen tables, which the exported graph holds as
Gathers in front of its `TreeEnsembleRegressor`.

References:
    Chen & Guestrin, "XGBoost: A Scalable Tree Boosting System", KDD 2016, eq. 1.
    Micci-Barreca, "A Preprocessing Scheme for High-Cardinality Categorical Attributes in
    Classification and Prediction Problems", SIGKDD Explorations 3(1), 2001.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import torch
import xgboost
from onnx import helper
from torch import Tensor, nn

from dynens.batch import EncodedBatch, FeatureLayout, FloatArray
from dynens.config.learner import LearnerConfig
from dynens.errors import TrainingError
from dynens.models.base import (
    PLAINLY,
    BaseLearner,
    CurvePoint,
    FitOptions,
    FitProgress,
    FitReport,
    StatSource,
    bootstrap_rows,
    is_time_up,
    positive_rate,
    validation_score,
)
from dynens.models.batches import prediction_batches
from dynens.models.defaults import resolve_config
from dynens.models.net_learner import SavedStats
from dynens.models.onnx_export import IR_VERSION, ML_OPSET, OPSET, export_module, save_model
from dynens.models.selection import FeatureSelection, select_features
from dynens.models.settings import load_settings, save_settings
from dynens.models.twin import GroupInputs, group_tables, in_order, pair_kinds, stat_kinds
from dynens.run import intact

BOOSTER_FILE = "booster.json"
TABLE_FILE = "stats.npy"
_FEATURES = "tree_inputs"


def exact_sums(table: FloatArray, max_values: int) -> FloatArray:
    """Round each column to a power-of-two grid on which sums of `max_values` entries are exact.

    Trees compare inputs with thresholds, so the mean of a multi-valued field must come out the same
    to the last bit in every runtime, whatever the order of its additions.
    """
    if max_values <= 1 or len(table) == 0:
        return table
    largest = np.abs(table).max(axis=0).astype(np.float64) * max_values
    step = 2.0 ** (np.ceil(np.log2(np.maximum(largest, 1e-12))) - 23)
    rounded: FloatArray = (np.round(table / step) * step).astype(np.float32)
    return rounded


class TreeInputs(nn.Module):
    """Encoded rows to the trees' inputs: (N, D), (N, W) → (N, D' + P + 2F) float32.

    D' selected dense features, what P pairs of fields that belong together say of each other, then
    the encodings, which training rows bring along (`stats`).
    """

    def __init__(self, selection: FeatureSelection, table: FloatArray) -> None:
        super().__init__()
        widest = max((field.width for field in selection.fields), default=1)
        self.selection = selection
        self.feature_groups = selection.groups()
        tables = group_tables(selection, torch.from_numpy(exact_sums(table, widest)))
        self.groups = nn.ModuleList(
            GroupInputs(group, rows, num_summed=0)
            for group, rows in zip(self.feature_groups, tables, strict=True)
        )

    def forward(
        self,
        dense: Tensor,
        ids: Tensor,
        context_rows: Tensor | None = None,
        stats: Tensor | None = None,
    ) -> Tensor:
        denses, vectors = zip(
            *(group(dense, ids, context_rows) for group in self.groups), strict=True
        )
        kinds = [denses, *pair_kinds(self.selection, denses, dense, ids, context_rows)]
        if stats is None:
            return in_order(self.feature_groups, [*kinds, *stat_kinds(vectors)]).whole()
        inputs = in_order(self.feature_groups, kinds).whole()
        return torch.cat([inputs, stats], dim=1)


class XGBoostLearner(BaseLearner):
    """A `BaseLearner` of gradient-boosted trees."""

    def __init__(
        self, config: LearnerConfig, layout: FeatureLayout, stats: StatSource, seed: int
    ) -> None:
        self.config = config
        self.layout = layout
        self.stats = stats
        self.seed = seed
        self.selection = select_features(layout, config.fields)
        self.inputs = TreeInputs(self.selection, self.selection.table(stats))
        self.booster_: xgboost.Booster | None = None

    def fit(self, train: EncodedBatch, valid: EncodedBatch, how: FitOptions = PLAINLY) -> FitReport:
        started, follow = time.monotonic(), how.follow
        self.config = resolve_config(self.config, self.layout, len(train))
        options = self.config.trees
        inputs, labels, weight = self._training_inputs(train)
        matrices = [
            xgboost.QuantileDMatrix(inputs, labels, weight=weight, nthread=self.config.num_threads)
        ]
        matrices.append(
            xgboost.QuantileDMatrix(
                self.tree_inputs(valid),
                valid.labels,
                weight=valid.sample_weight,
                ref=matrices[0],
                nthread=self.config.num_threads,
            )
        )
        num_trees = options.num_trees if follow is None else follow.best_index + 1
        callback = _Progress(self.config.display_name, num_trees, how)
        self.booster_ = xgboost.train(
            self._parameters(positive_rate(labels, weight), valid),
            matrices[0],
            num_boost_round=num_trees,
            evals=[(matrices[0], "train"), (matrices[1], "valid")],
            early_stopping_rounds=None if follow else options.early_stopping_rounds,
            verbose_eval=False,
            callbacks=[callback],
        )
        best = num_trees - 1 if follow else callback.best
        self.booster_ = self.booster_[: best + 1]
        return callback.report(best, time.monotonic() - started)

    def _training_inputs(
        self, train: EncodedBatch
    ) -> tuple[FloatArray, FloatArray, FloatArray | None]:
        """Inputs, labels and weights of the training rows, with leakage-free encodings.

        Weights are 1 in the mean, as sums of them are compared with `min_child_weight` and
        `reg_lambda`.
        """
        assert train.labels is not None
        if train.stats is None and self.selection.fields:
            raise TrainingError(
                f"{self.config.display_name}: training rows carry no leakage-free statistics; "
                "prepare the table again."
            )
        inputs, weight = self.tree_inputs(train), train.sample_weight
        if weight is not None:
            weight = weight / weight.mean()
        if not self.config.bootstrap:
            return inputs, train.labels, weight
        rows = bootstrap_rows(len(train), self.seed)
        return inputs[rows], train.labels[rows], None if weight is None else weight[rows]

    def _parameters(self, rate: float, valid: EncodedBatch) -> dict[str, Any]:
        options = self.config.trees
        # The last metric stops training; AUC cannot where validation has a single class.
        single_class = valid.labels is None or valid.labels.min() == valid.labels.max()
        return {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": options.max_depth,
            "eta": options.learning_rate,
            "min_child_weight": options.min_child_weight,
            "subsample": options.subsample,
            "colsample_bytree": options.colsample_bytree,
            "lambda": options.reg_lambda,
            "base_score": rate,
            "eval_metric": ["auc", "logloss"] if single_class else ["logloss", "auc"],
            "seed": self.seed,
            "nthread": self.config.num_threads,
        }

    def tree_inputs(self, batch: EncodedBatch) -> FloatArray:
        """(B, D' + P + 2F) inputs; the encodings are the batch's own where it brings them."""
        selection = self.selection
        num_inputs = len(selection.dense_columns) + selection.num_pairs
        num_inputs += len(selection.stat_columns)
        inputs = np.empty((len(batch), num_inputs), dtype=np.float32)
        columns = list(selection.stat_columns)
        for rows, dense, ids in prediction_batches(batch):
            own = None if batch.stats is None else torch.from_numpy(batch.stats[rows][:, columns])
            inputs[rows] = self.inputs(dense, ids, stats=own).numpy()
        return inputs

    def predict_logits(self, batch: EncodedBatch) -> FloatArray:
        booster = self._booster()
        if len(batch) == 0:
            return np.zeros(0, dtype=np.float32)
        booster.set_param({"nthread": self.config.num_threads})
        inputs = self.tree_inputs(replace(batch, stats=None))
        logits = booster.inplace_predict(inputs, predict_type="margin")
        return np.asarray(logits, dtype=np.float32).reshape(-1)

    def save(self, directory: Path) -> None:
        save_settings(self, directory, stats_columns=list(self.stats.columns))
        # Written by Python: a full disk then shows as the `OSError` it is.
        (directory / BOOSTER_FILE).write_bytes(self._booster().save_raw("json"))
        np.save(directory / TABLE_FILE, np.asarray(self.stats.table), allow_pickle=False)

    @classmethod
    def load(cls, directory: Path) -> Self:
        said = load_settings(directory)
        with intact(directory / TABLE_FILE):
            table = np.load(directory / TABLE_FILE, allow_pickle=False)
        stats = SavedStats(table, tuple(said.more["stats_columns"]))
        learner = cls(said.config, said.layout, stats, said.seed)
        with intact(directory / BOOSTER_FILE):
            learner.booster_ = xgboost.Booster(model_file=directory / BOOSTER_FILE)
        return learner

    def export_onnx(self, path: Path) -> None:
        export_module(self.inputs, self.layout, path, outputs=(_FEATURES,))
        model = onnx.load(path)
        append_trees(model, json.loads(bytes(self._booster().save_raw("json"))))
        save_model(model, path)

    def _booster(self) -> xgboost.Booster:
        if self.booster_ is None:
            raise TrainingError(f"{self.config.display_name} is not fitted; call fit first.")
        return self.booster_


class _Progress(xgboost.callback.TrainingCallback):  # type: ignore[misc]
    """Collects the curve and reports every tenth tree."""

    def __init__(self, learner: str, num_trees: int, how: FitOptions) -> None:
        super().__init__()
        self.how = how
        self.is_cut = False
        self.learner = learner
        self.num_trees = num_trees
        self.curve: list[CurvePoint] = []

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        train, valid = evals_log["train"], evals_log["valid"]
        point = CurvePoint(
            epoch=epoch + 1,
            train_loss=train["logloss"][-1],
            valid_auc=valid["auc"][-1],
            valid_logloss=valid["logloss"][-1],
            learning_rate=0.0,
        )
        if self.how.follow is not None:
            point = self.how.follow.followed(epoch, point)
        self.curve.append(point)
        if self.how.progress is not None and (epoch + 1) % 10 == 0:
            fraction = (epoch + 1) / self.num_trees
            self.how.progress(FitProgress(self.learner, fraction, point))
        self.is_cut = is_time_up(self.how.ends_at)
        return self.is_cut

    @property
    def best(self) -> int:
        """Position in the curve of the first best point; time may be up before any is settled."""
        return max(range(len(self.curve)), key=lambda i: validation_score(self.curve[i]))

    def report(self, best: int, seconds: float) -> FitReport:
        auc = self.curve[best].valid_auc
        return FitReport(tuple(self.curve), seconds, best + 1, auc, is_cut=self.is_cut)


def append_trees(model: onnx.ModelProto, booster: dict[str, Any]) -> None:
    """Feed the graph's output into the booster's trees and make `logit` (N,) the output.

    XGBoost goes left when `x < threshold` in float32, which is `BRANCH_LT` on float32 inputs.
    """
    learner = booster["learner"]
    rate = float(learner["learner_model_param"]["base_score"].strip("[]"))
    attributes = tree_attributes(learner["gradient_booster"]["model"]["trees"])
    graph = model.graph
    graph.node.append(
        helper.make_node(
            "TreeEnsembleRegressor",
            [_FEATURES],
            ["tree_logit"],
            domain="ai.onnx.ml",
            n_targets=1,
            aggregate_function="SUM",
            base_values=[math.log(rate / (1 - rate))],
            **attributes,
        )
    )
    graph.initializer.append(helper.make_tensor("flat_shape", onnx.TensorProto.INT64, [1], [-1]))
    graph.node.append(helper.make_node("Reshape", ["tree_logit", "flat_shape"], ["logit"]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("logit", onnx.TensorProto.FLOAT, ["rows"]))
    del model.opset_import[:]
    model.opset_import.extend(
        [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    )
    model.ir_version = IR_VERSION


def tree_attributes(trees: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Attributes of ONNX's `TreeEnsembleRegressor` from XGBoost's JSON trees."""
    names = ("treeids", "nodeids", "featureids", "values", "truenodeids", "falsenodeids", "modes")
    nodes: dict[str, list[Any]] = {f"nodes_{name}": [] for name in names}
    nodes["nodes_missing_value_tracks_true"] = []
    targets: dict[str, list[Any]] = {
        f"target_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")
    }
    for tree_id, tree in enumerate(trees):
        for node, left in enumerate(tree["left_children"]):
            leaf = left == -1
            nodes["nodes_treeids"].append(tree_id)
            nodes["nodes_nodeids"].append(node)
            nodes["nodes_featureids"].append(0 if leaf else tree["split_indices"][node])
            nodes["nodes_values"].append(0.0 if leaf else tree["split_conditions"][node])
            nodes["nodes_truenodeids"].append(0 if leaf else left)
            nodes["nodes_falsenodeids"].append(0 if leaf else tree["right_children"][node])
            nodes["nodes_modes"].append("LEAF" if leaf else "BRANCH_LT")
            nodes["nodes_missing_value_tracks_true"].append(
                0 if leaf else int(tree["default_left"][node])
            )
            if leaf:
                targets["target_treeids"].append(tree_id)
                targets["target_nodeids"].append(node)
                targets["target_ids"].append(0)
                targets["target_weights"].append(tree["split_conditions"][node])
    return nodes | targets
