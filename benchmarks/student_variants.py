"""The students that `benchmarks.distillation` compares, as settings over the run's own."""

from __future__ import annotations

NONE = "distill.augmented_per_row=0"


def only(kind: str, probability: float = 0.5) -> str:
    """All made-up rows made in one way."""
    return f"distill.augmentations=[{{kind: {kind}, probability: {probability}}}]"


INT8 = "ensemble.int8=auto"


def further(epochs: int = 10, learning_rate: float = 0.001, mutual: float = 0) -> str:
    """Pruning of so little that no unit goes: what its further epochs give on their own."""
    how = f"mutual: {mutual}, epochs: {epochs}, learning_rate: {learning_rate}"
    return f"distill.pruning={{share: 0.001, {how}}}"


def pruned(share: float, mutual: float = 0.5) -> str:
    """Hidden units cut from the student, which recovers beside the whole one unless told not to."""
    return f"distill.pruning={{share: {share}, mutual: {mutual}}}"


# Each differs from the run's own settings in one respect.
CONFIGURED = "as configured"
VARIANTS: dict[str, list[str]] = {
    CONFIGURED: [],
    "labels only": ["distill.alpha.start=0", NONE],
    "no made-up rows": [NONE],
    "no rows without a label": ["distill.augmentations=[{kind: cutmix}, {kind: entity_swap}]"],
    "no inheritance": ["distill.inherit=false", "student.product_width=0"],
    "alpha 0.5": ["distill.alpha.start=0.5"],
    "alpha 0.9": ["distill.alpha.start=0.9"],
    "alpha 1": ["distill.alpha.start=1"],
    "alpha 0.5 to 1": ["distill.alpha={kind: linear, start: 0.5, end: 1}"],
    "hard labels first": ["distill.alpha={kind: step, start: 0, end: 1, every_epochs: 3}"],
    "temperature 2": ["distill.temperature.start=2"],
    "temperature 3": ["distill.temperature.start=3"],
    "temperature 4": ["distill.temperature.start=4"],
    "temperature 5": ["distill.temperature.start=5"],
    "temperature 5 to 1": ["distill.temperature={kind: linear, start: 5, end: 1}"],
    "temperature 20 halving": [
        "distill.temperature={kind: halving, start: 20, end: 1, every_epochs: 10}"
    ],
    "temperature 3 to 1 by certainty": ["distill.temperature={kind: adaptive, start: 3, end: 1}"],
    "teacher pool": ["distill.teacher=pool"],
    "teacher trio": ["distill.teacher=ensemble"],
    "stop on labels": ["distill.stop_on=labels"],
    "field swap": [only("field_swap")],
    "entity swap": [only("entity_swap")],
    "cutmix": [only("cutmix")],
    "field mask": [only("field_mask", 0.2)],
    "feature noise": [only("feature_noise", 0.2)],
    "id dropout": [only("id_dropout")],
    "rows without a label alone": [only("unlabelled")],
    "two made-up rows per row": ["distill.augmented_per_row=2"],
    "made-up rows used once": ["distill.reuse=1"],
    "two augmentations per made-up row": ["distill.augmentations_per_row=2"],
    "made-up rows follow weakness": ["distill.follow_weakness=true"],
    "hints": ["distill.hints.weight=0.1"],
    "hints at every depth": ["distill.hints.weight=0.1", "distill.hints.depths=all"],
    "hints at every depth, masked rows": [
        "distill.hints.weight=0.1",
        "distill.hints.depths=all",
        "distill.hints.noise=0.2",
    ],
    "exits": ["distill.exits=0.3"],
    "relations": ["distill.relations=10"],
    "ema teacher": ["distill.ema=0.5"],
    "memory": ["distill.memory.weight=0.5"],
    "born again": ["distill.generations=2"],
    "teacher assistant": ["distill.generations=2", "distill.assistant_width=3"],
    "born again, no made-up rows": ["distill.generations=2", NONE],
    "teacher assistant, no made-up rows": [
        "distill.generations=2",
        "distill.assistant_width=3",
        NONE,
    ],
    "two branches": ["student.branches=2"],
    "branches, diversity": ["student.branches=2", "distill.diversity=1"],
    "branches, mutual": ["student.branches=2", "distill.mutual=0.5"],
    "branches, loss of the average": ["student.branches=2", "distill.branch_loss=average"],
    "three branches": ["student.branches=3"],
    "two peers": ["distill.peers.count=2"],
    "gating": ["distill.gating=true"],
    "mixup": ["distill.mixup.weight=0.5"],
    "guard": ["distill.guard=0.5"],
    "views": ["distill.views=0.3"],
    "always faithful": ["distill.faithful.below=1000"],
    "never faithful": ["distill.faithful.below=0"],
    "dnn student": ["student.model=dnn"],
    "ipnn student": ["student.model=ipnn"],
    "deepfm student": ["student.model=deepfm"],
    "dcnv2 student": ["student.model=dcnv2", "student.cross_layers=1"],
    "searched, bayesian": ["student_search.trials=16"],
    "searched, genetic": ["student_search.trials=16", "student_search.method=genetic"],
    "quantisation aware": [INT8, "distill.quantisation_aware.weight=1"],
    "six further epochs at a low rate": [further(epochs=6, learning_rate=0.0001)],
    "pruned by half": [pruned(0.5)],
    "pruned by half, by magnitude": [pruned(0.5), "distill.pruning.criterion=magnitude"],
    "pruned by half, not mutual": [pruned(0.5, mutual=0)],
    "pruned by half, quantisation aware": [
        pruned(0.5),
        INT8,
        "distill.quantisation_aware.weight=1",
    ],
    "pruned by three quarters": [pruned(0.75)],
    "ten further epochs": [further()],
    "ten further epochs, mutual": [further(mutual=0.5)],
    "hidden 64-32, ten further epochs": ["student.hidden_units=[64, 32]", further()],
    "hidden 32-16, ten further epochs": ["student.hidden_units=[32, 16]", further()],
    "embedding 8": ["student.embedding_dim=8"],
    "hidden 64-32": ["student.hidden_units=[64, 32]"],
    "hidden 32-16": ["student.hidden_units=[32, 16]"],
    "no embedding l2": ["student.optimizer.embedding_l2=0"],
}
SHORT = (CONFIGURED, "labels only", "no made-up rows")
# How much soft labels weigh, with a pool that knows more than the labels; first students alone.
WEIGHED = (
    *("--seeds", "1", "--jobs", "2", "--set", "distill.faithful.below=0", "--only", CONFIGURED),
    *("no made-up rows", "temperature 2", "temperature 4", "temperature 5 to 1"),
    *("alpha 1", "alpha 0.5 to 1", "hard labels first"),
)
# Whose graphs are shown beside one another.
COMPRESSED = (
    CONFIGURED,
    "quantisation aware",
    "six further epochs at a low rate",
    "ten further epochs",
    "ten further epochs, mutual",
    "pruned by half",
    "pruned by half, by magnitude",
    "pruned by half, not mutual",
    "pruned by half, quantisation aware",
    "hidden 64-32",
    "hidden 64-32, ten further epochs",
    "pruned by three quarters",
    "hidden 32-16",
    "hidden 32-16, ten further epochs",
)
# Without --only: what the results page shows; the others take as long again.
REPORTED = (
    *SHORT,
    "no inheritance",
    "alpha 0.9",
    "alpha 1",
    "temperature 2",
    "temperature 3 to 1 by certainty",
    "stop on labels",
    "field swap",
    "two made-up rows per row",
    "made-up rows follow weakness",
    "hints",
    "hints at every depth",
    "hints at every depth, masked rows",
    "exits",
    "relations",
    "ema teacher",
    "memory",
    "born again",
    "teacher assistant",
    "gating",
    "mixup",
    "guard",
    "views",
    "always faithful",
    "two branches",
    "branches, diversity",
    "branches, mutual",
    "branches, loss of the average",
    "three branches",
    "two peers",
    "searched, bayesian",
    "searched, genetic",
    *COMPRESSED[1:],
)
