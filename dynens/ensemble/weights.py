"""Member weights on calibrated logits: uniform, greedy selection, Bayesian optimisation, stacking.

All functions take `logits` (N, M) and return weights (M,) ≥ 0 that sum to one, except stacking,
whose weights are unconstrained regression coefficients. `choose_weights` compares them out of fold
and keeps the simplest one within noise of the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynens.bootstrap import auc_draws
from dynens.ensemble.blend import fit_logistic
from dynens.metrics import auc

Matrix = npt.NDArray[np.floating]
Vector = npt.NDArray[np.floating]
Weights = npt.NDArray[np.float64]
WeightFitter = Callable[[Matrix, Vector, Vector | None, int], Weights]

NUM_FOLDS = 3
MIN_PER_CLASS = 10  # fewer say nothing about weights, and may miss the rows of a whole fold
NOISE_DRAWS = 100


def uniform_weights(
    logits: Matrix, labels: Vector, sample_weight: Vector | None, seed: int
) -> Weights:
    """1/M each: nothing is fitted."""
    return np.full(logits.shape[1], 1.0 / logits.shape[1])


def greedy_weights(
    logits: Matrix, labels: Vector, sample_weight: Vector | None, seed: int, rounds: int = 15
) -> Weights:
    """Forward selection with replacement: each round adds the member that lifts the AUC most.

    The returned weights are the counts of the best round over their sum.

    References:
        Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004, section 2.1.
    """
    num_members = logits.shape[1]
    counts = np.zeros(num_members)
    total = np.zeros(len(logits))
    best_auc, best_counts = -1.0, counts
    for _ in range(rounds):
        scores = [auc(labels, total + logits[:, m], sample_weight) for m in range(num_members)]
        member = int(np.argmax(scores))
        counts = counts + np.eye(num_members)[member]
        total = total + logits[:, member]
        if scores[member] > best_auc:
            best_auc, best_counts = scores[member], counts
    return np.asarray(best_counts / best_counts.sum())


def bayesian_weights(
    logits: Matrix, labels: Vector, sample_weight: Vector | None, seed: int, trials: int = 40
) -> Weights:
    """Maximise the AUC over the simplex with Optuna's TPE, starting from uniform weights.

    The simplex is parametrised as -log(u) normalised, u uniform in (0, 1): uniform on the simplex.
    """
    import optuna  # fitting needs the train extra; reading a fitted blend does not

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    num_members = logits.shape[1]

    def weights_of(values: list[float]) -> Weights:
        raw = -np.log(np.asarray(values))
        return np.asarray(raw / raw.sum())

    def objective(trial: optuna.Trial) -> float:
        values = [trial.suggest_float(f"u{m}", 1e-3, 1 - 1e-3) for m in range(num_members)]
        return auc(labels, logits @ weights_of(values), sample_weight)

    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True)
    )
    study.enqueue_trial({f"u{m}": float(np.exp(-1.0)) for m in range(num_members)})
    study.optimize(objective, n_trials=trials)
    return weights_of([study.best_params[f"u{m}"] for m in range(num_members)])


def stacked_weights(
    logits: Matrix, labels: Vector, sample_weight: Vector | None, seed: int
) -> Weights:
    """Logistic regression on the members' logits, pulled towards uniform weights by ridge.

    References:
        Wolpert, "Stacked Generalization", Neural Networks 5(2), 1992.
    """
    prior = np.full(logits.shape[1], 1.0 / logits.shape[1])
    strength = 10.0 / len(logits)
    coefficients, _ = fit_logistic(
        logits, labels, sample_weight=sample_weight, prior_mean=prior, l2=strength
    )
    return coefficients


WEIGHTS: dict[str, WeightFitter] = {
    "uniform": uniform_weights,
    "greedy": greedy_weights,
    "bayes": bayesian_weights,
    "stacking": stacked_weights,
}
"""Simplest first: ties within noise go to the earlier entry."""


@dataclass(frozen=True)
class WeightChoice:
    """The chosen method, its weights on all rows, and every method's out-of-fold AUC."""

    method: str
    weights: Weights
    out_of_fold_auc: dict[str, float]


def choose_weights(
    logits: Matrix,
    labels: Vector,
    *,
    methods: tuple[str, ...],
    seed: int,
    sample_weight: Vector | None = None,
    floor: float = 0.0,
) -> WeightChoice:
    """Compare `methods` in cross-fitted folds; the simplest within one standard error wins.

    The standard error is the paired bootstrap one of (best method − this method). With a `floor`
    all weights, in the folds too, are raised to it and the sum is kept: a served member that has no
    say would cost time for nothing. Weights are uniform where a class has fewer than
    `MIN_PER_CLASS` rows, or where those found would reverse what the members say.
    """
    if min(np.sum(labels > 0), np.sum(labels <= 0)) < MIN_PER_CLASS:
        weights = uniform_weights(logits, labels, sample_weight, seed)
        return WeightChoice("uniform", _raised(weights, floor), {})
    if len(methods) == 1:
        weights = WEIGHTS[methods[0]](logits, labels, sample_weight, seed)
        return WeightChoice(methods[0], _raised(weights, floor), {})
    out_of_fold = {
        method: _out_of_fold(WEIGHTS[method], logits, labels, sample_weight, seed, floor)
        for method in methods
    }
    scores = {m: auc(labels, z, sample_weight) for m, z in out_of_fold.items()}
    method = _simplest_within_noise(out_of_fold, scores, labels, sample_weight, seed)
    weights = WEIGHTS[method](logits, labels, sample_weight, seed)
    return WeightChoice(method, _raised(weights, floor), scores)


def _raised(weights: Weights, floor: float) -> Weights:
    if weights.sum() <= 0:  # stacking, on rows that the pool happens to rank the wrong way round
        return np.full(len(weights), 1.0 / len(weights))
    raised = np.maximum(weights, floor)
    return np.asarray(raised * (weights.sum() / raised.sum()))


def _out_of_fold(
    fit: WeightFitter,
    logits: Matrix,
    labels: Vector,
    sample_weight: Vector | None,
    seed: int,
    floor: float,
) -> npt.NDArray[np.float64]:
    fold = np.random.default_rng(seed).permutation(len(labels)) % NUM_FOLDS
    blended = np.zeros(len(labels))
    for k in range(NUM_FOLDS):
        inside = fold != k
        weight = None if sample_weight is None else sample_weight[inside]
        weights = fit(logits[inside], labels[inside], weight, seed)
        blended[~inside] = logits[~inside] @ _raised(weights, floor)
    return blended


def _simplest_within_noise(
    blended: Mapping[str, npt.NDArray[np.float64]],
    scores: Mapping[str, float],
    labels: Vector,
    sample_weight: Vector | None,
    seed: int,
) -> str:
    best = max(scores, key=lambda m: scores[m])
    draws = auc_draws(labels, blended, draws=NOISE_DRAWS, seed=seed, sample_weight=sample_weight)
    for method in WEIGHTS:
        if method not in scores:
            continue
        gap = draws[best] - draws[method]
        if scores[best] - scores[method] <= float(np.nanstd(gap)):
            return method
    return best
