"""Hyper-parameters that depend on the table. docs/LEARNERS.md holds the study behind the rules."""

from __future__ import annotations

import functools
import math
from pathlib import Path

from dynens.batch import FeatureLayout, num_flat_rows
from dynens.config.learner import (
    Device,
    LearnerConfig,
    OptimizerConfig,
    Pooling,
    Precision,
    TreesConfig,
)
from dynens.errors import ConfigError

_STRONGEST_L2 = 3e-3
_ROWS_PER_ID, _KNOWN_ROWS_PER_ID = 30, 10
_SMALL_TABLE_ROWS, _SMALL_TABLE_STD, _LARGE_TABLE_STD = 100_000, 0.14, 0.01
_SHALLOW_TREE_ROWS = 10_000
_SMALL_STEP_ROWS = 20_000
_FEW_STEPS_ROWS = 25_000
AUTOREC_L2_ROWS = 8.0
AUTOREC_ROWS_PER_STEP = 65_536
_FEWEST_AUTOREC_STEPS = 24  # 12 and 48 came to the same
_WIDE_INPUT, _LOW_RANK = 512, 64
_LARGE_TABLE_WEIGHTS = 20_000_000


def resolve_config(config: LearnerConfig, layout: FeatureLayout, num_rows: int) -> LearnerConfig:
    """`config` with every None replaced by a value chosen from the table's size.

    Args:
        config: as the user gave it.
        layout: the table's features and vocabularies.
        num_rows: training rows.

    Raises:
        ConfigError: a GPU is asked for and torch finds none.
    """
    if config.model == "autorec":
        config = _autorec_defaults(config, num_rows)
    optimizer = config.optimizer
    device = resolve_device(config)
    updates: dict[str, object] = {"precision": resolve_precision(config)}
    if optimizer.batch_size is None:
        updates["batch_size"] = default_batch_size(num_rows)
    if optimizer.embedding_l2 is None:
        updates["embedding_l2"] = default_embedding_l2(num_rows)
    if optimizer.embedding_rate_factor is None:
        updates["embedding_rate_factor"] = default_embedding_rate_factor(layout, num_rows)
    if optimizer.ema_decay is None:
        batch_size = optimizer.batch_size or default_batch_size(num_rows)
        updates["ema_decay"] = default_ema_decay(math.ceil(num_rows / batch_size))
    if optimizer.embedding_optimizer == "auto":
        chosen = default_embedding_optimizer(layout, config.embedding_dim)
        updates["embedding_optimizer"] = chosen if device == "cpu" else "adam"
    resolved: OptimizerConfig = optimizer.model_copy(update=updates)
    std = config.embedding_std or default_embedding_std(layout, num_rows)
    dropout = default_dropout(num_rows) if config.dropout is None else config.dropout
    rank = default_rank(layout, config.embedding_dim) if config.rank is None else config.rank
    use_stats = (
        default_use_stats(layout, num_rows) if config.use_stats is None else config.use_stats
    )
    return config.model_copy(
        update={
            "device": device,
            "optimizer": resolved,
            "dropout": dropout,
            "embedding_std": std,
            "list_pooling": config.list_pooling or default_list_pooling(num_rows),
            "use_stats": use_stats,
            "rank": rank,
            "trees": resolve_trees(config.trees, num_rows),
        }
    )


def autorec_steps(num_rows: int) -> int:
    """In how many steps all users (and as many more in which all items) are gone through."""
    return max(_FEWEST_AUTOREC_STEPS, -(-num_rows // AUTOREC_ROWS_PER_STEP))


def _autorec_defaults(config: LearnerConfig, num_rows: int) -> LearnerConfig:
    """What an autoencoder of ids wants else than a network over rows.

    Half of the inputs left out; shrinkage by 8 rows' worth, as every step passes over all tables;
    weights averaged over two epochs of its own.
    """
    optimizer = config.optimizer
    given = optimizer.embedding_l2, optimizer.ema_decay
    l2 = AUTOREC_L2_ROWS / max(num_rows, 1)
    decay = default_ema_decay(2 * config.branches * autorec_steps(num_rows))
    updates = {
        "embedding_l2": l2 if given[0] is None else given[0],
        "ema_decay": decay if given[1] is None else given[1],
    }
    return config.model_copy(
        update={
            "optimizer": optimizer.model_copy(update=updates),
            "dropout": 0.5 if config.dropout is None else config.dropout,
        }
    )


def resolve_device(config: LearnerConfig) -> Device:
    """The GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and torch finds none.
    """
    import torch  # here: the rules for trees need none of it

    if config.device == "cpu" or config.model in ("xgboost", "bmf"):
        return "cpu"
    is_there = torch.cuda.is_available()
    if config.device == "cuda" and not is_there:
        raise ConfigError(
            f"{config.display_name}: device is cuda but torch {torch.__version__} finds no CUDA "
            "GPU; set device to cpu or auto, or install a CUDA build of torch."
        )
    return "cuda" if is_there else "cpu"


def resolve_precision(config: LearnerConfig) -> Precision:
    """The arithmetic that is given, or bfloat16 on a CPU that is clearly faster in it.

    A GPU's step is bound by the launches of its kernels, not by products
    (`benchmarks/training_speed.py`: 3.1 ms in float32, 3.3 in bfloat16 on an H200).
    """
    given = config.optimizer.precision
    if given != "auto" or not config.is_neural:
        return given
    if config.device != "cuda" and not cpu_may_have_bf16():  # a GPU that is not there is told of
        return "fp32"
    from dynens.models.optim import bf16_is_fast  # here, as above

    return "bf16" if resolve_device(config) == "cpu" and bf16_is_fast() else "fp32"


@functools.cache
def cpu_may_have_bf16() -> bool:
    """Whether this machine's CPU has instructions for bfloat16; True where it does not tell."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return "avx512_bf16" in told or "amx_tile" in told or "flags" not in told


def resolve_trees(trees: TreesConfig, num_rows: int) -> TreesConfig:
    """`trees` with every None replaced: few rows ask for shallower trees and smaller steps."""
    is_small = num_rows < _SMALL_STEP_ROWS
    defaults = {
        "max_depth": 4 if num_rows < _SHALLOW_TREE_ROWS else 6,
        "learning_rate": 0.05 if is_small else 0.1,
        "early_stopping_rounds": 50 if is_small else 30,
        "min_child_weight": default_child_weight(num_rows),
    }
    given = {name: value for name in defaults if (value := getattr(trees, name)) is not None}
    return trees.model_copy(update=defaults | given)


def default_batch_size(num_rows: int) -> int:
    """1024 from 50 thousand to a million rows, 4096 from four million, 64 on the smallest."""
    if num_rows > 1_000_000:
        return 2048 if num_rows < 4_000_000 else 4096
    power = int(2 ** round(math.log2(max(num_rows, 1) / 64)))
    return min(max(power, 64), 1024)


def default_embedding_std(layout: FeatureLayout, num_rows: int) -> float:
    """0.14 below 100,000 rows, ten of them per id of the largest vocabulary, else 0.01.

    Products of small embeddings have gradients as small: where an epoch has a few dozen steps, what
    users and items have in common is not found before validation stops training. Of an id with
    few rows a large embedding stays what it was drawn as, which is noise.
    """
    is_small = num_rows < _SMALL_TABLE_ROWS
    is_known = num_rows >= _KNOWN_ROWS_PER_ID * _largest_vocabulary(layout)
    return _SMALL_TABLE_STD if is_small and is_known else _LARGE_TABLE_STD


def default_embedding_rate_factor(layout: FeatureLayout, num_rows: int) -> float:
    """10 below 25,000 rows; 3 below 100,000, or where ids have 30 rows each; else 1.

    A row of a table moves in the few steps that read it, other weights in all of them. Larger steps
    find what ids have in common while there are few; of ids with few rows they keep noise.
    """
    if num_rows < _FEW_STEPS_ROWS:
        return 10.0
    is_known = num_rows >= _ROWS_PER_ID * _largest_vocabulary(layout)
    return 3.0 if is_known or num_rows < _SMALL_TABLE_ROWS else 1.0


def default_list_pooling(num_rows: int) -> Pooling:
    """Sums below 100,000 rows, means above.

    In a mean of n values each weighs an n-th, so that it learns more slowly and L2 holds it n²
    times as strongly, which few rows never make up for; with many the two are alike.
    """
    return "sum" if num_rows < _SMALL_TABLE_ROWS else "mean"


def _largest_vocabulary(layout: FeatureLayout) -> int:
    return max((field.num_embeddings for field in layout.fields), default=1)


def default_embedding_l2(num_rows: int) -> float:
    """600 rows' worth of shrinkage, spread over the table.

    The loss is a mean over rows, so a prior of fixed strength weighs 1/rows.
    """
    return min(600.0 / max(num_rows, 1), _STRONGEST_L2)


def default_ema_decay(steps_per_epoch: int) -> float:
    """An average over about two epochs, at least 20 and at most 1000 steps."""
    return 1.0 - 1.0 / min(max(2 * steps_per_epoch, 20), 1000)


def default_embedding_optimizer(layout: FeatureLayout, embedding_dim: int) -> str:
    """Lazy above 20 million weights: Adam passes over the whole table each step.

    A step of `dcnv2` with 1024 rows of 39 fields takes 58 ms with 2 million weights on one core of
    an EPYC, either way, and with 40 million 67 ms where Adam is lazy and 168 ms where it is not.
    """
    weights = num_flat_rows(layout.fields) * embedding_dim
    return "lazy_adam" if weights > _LARGE_TABLE_WEIGHTS else "adam"


def default_dropout(num_rows: int) -> float:
    """A tenth on large tables, more on small ones."""
    return 0.1 if num_rows >= 200_000 else 0.2


def default_use_stats(layout: FeatureLayout, num_rows: int) -> bool:
    """Where the largest vocabulary has fewer than 30 rows per id.

    There, embeddings learn too little about an id, and its smoothed click rate says more.
    """
    return num_rows < _ROWS_PER_ID * _largest_vocabulary(layout)


def default_rank(layout: FeatureLayout, embedding_dim: int) -> int:
    """Full matrices below 512 inputs, else 64.

    A full matrix over D inputs costs D² per row; those of wide tables cost more than all the rest
    of the network and gain nothing (docs/LEARNERS.md).
    """
    width = len(layout.dense) + len(layout.fields) * embedding_dim
    return _LOW_RANK if width >= _WIDE_INPUT else 0


def default_child_weight(num_rows: int) -> float:
    """20 from 100,000 rows, down to 1 below 5,000."""
    return min(max(num_rows / 5000, 1.0), 20.0)
