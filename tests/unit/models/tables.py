"""Small synthetic tables with planted structure, for tests of learners."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynens.batch import (
    MISSING,
    PADDING,
    DenseDot,
    DenseGap,
    EncodedBatch,
    FeatureLayout,
    SparseField,
    component_names,
)
from dynens.config.learner import LearnerConfig, OptimizerConfig


@dataclass(frozen=True)
class TinyStats:
    """Frozen encodings in the flat-table layout."""

    table: np.ndarray
    columns: tuple[str, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class TinyTable:
    layout: FeatureLayout
    stats: TinyStats
    train: EncodedBatch
    valid: EncodedBatch


def tiny_table(
    *,
    num_dense: int = 2,
    num_fields: int = 3,
    multi_valued: bool = False,
    rows: int = 600,
    seed: int = 0,
    context: tuple[int, int] = (0, 0),
    shared: int | None = None,
    apart: tuple[tuple[int, int], ...] = (),
    only_apart: tuple[int, ...] = (),
    vectors: int = 0,
) -> TinyTable:
    """Rows whose click rate depends on dense features and on an effect of every id.

    The first `context` dense features and fields are what candidates of a request share; with
    `multi_valued` the last field holds lists, and the first one too where it is shared. With
    `shared` all fields have the vocabulary of that one, and a value in common makes clicks; of
    lists among them the share of such values is an input, too. Pairs
    of dense features that are `apart` nearly agree, and how far they do not makes clicks, too;
    those that are `only_apart` make none by themselves. With `vectors` there are two of so many
    components, one before and one behind the other dense features, whose product makes clicks.
    """
    rng = np.random.default_rng(seed)
    lists = {num_fields - 1} | ({0} if context[1] else set())
    fields = tuple(
        SparseField(f"c{i}", 6 + 3 * i, 3 if multi_valued and i in lists else 1)
        for i in range(num_fields)
    )
    if shared is not None:
        owner = fields[shared]
        takers = (SparseField(f.name, 9 + i, f.width, owner.name) for i, f in enumerate(fields))
        fields = tuple(owner if f.name == owner.name else f for f in takers)
    looks = [(0.1, 5.0), (-0.2, 8.0)] if only_apart else [(0.1, 5.0)]
    gaps = tuple(DenseGap(f"x{i}", f"x{j}", *look) for i, j in apart for look in looks)
    names = tuple(f"x{i}" for i in range(num_dense))
    hidden = tuple(names[i] for i in only_apart)
    dots = (DenseDot("v", "u", vectors, 0.1, 0.6),) if vectors else ()
    names = (*component_names("u", vectors), *names, *component_names("v", vectors))
    num_dense = len(names)
    shares = tuple(f.name for f in fields if f.vocabulary_of and f.width > 1)
    layout = FeatureLayout(names, fields, *context, gaps, dots, hidden, shares)
    dense = rng.normal(size=(2 * rows, num_dense)).astype(np.float32)
    for i, j in apart:
        dense[:, i] = dense[:, j] + 0.2 * dense[:, i]
    ids, logit = _random_ids(layout, 2 * rows, rng)
    logit = logit + np.delete(dense, only_apart, axis=1).sum(axis=1)
    for i, j in apart:
        logit += 10 * (dense[:, i] - dense[:, j])
    if vectors:
        logit += 2 * (dense[:, :vectors] * dense[:, -vectors:]).sum(axis=1)
    if shared is not None:
        columns = [ids[:, at] for _, at in layout.columns()]
        owners = columns.pop(shared)
        logit += 6 * sum(meets(values, owners) for values in columns)
    labels = (rng.random(2 * rows) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    stats = _statistics(layout, ids[:rows], labels[:rows])
    train_stats = lookup(layout, stats, ids[:rows])
    train = EncodedBatch(dense[:rows], ids[:rows], labels[:rows], stats=train_stats)
    valid = EncodedBatch(dense[rows:], ids[rows:], labels[rows:])
    return TinyTable(layout, stats, train, valid)


def meets(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which rows have a known value of (B, V) `first` in (B, W) `second`, too."""
    equal = (first[:, :, None] == second[:, None, :]) & (first > MISSING)[:, :, None]
    return np.asarray(equal.any(axis=(1, 2)))


def _random_ids(
    layout: FeatureLayout, rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    ids = np.full((rows, layout.ids_width), PADDING, dtype=np.int32)
    logit = np.zeros(rows)
    for field, columns in layout.columns():
        effect = rng.normal(size=field.num_embeddings)
        lengths = rng.integers(1, field.width + 1, rows)
        for k, column in enumerate(range(columns.start, columns.stop)):
            present = k < lengths
            ids[present, column] = rng.integers(0, field.num_embeddings, present.sum())
            logit += np.where(present, effect[ids[:, column]] / lengths, 0)
    return ids, logit


def _statistics(layout: FeatureLayout, ids: np.ndarray, labels: np.ndarray) -> TinyStats:
    parts, offsets, start = [], [], 0
    for field, columns in layout.columns():
        flat = ids[:, columns].ravel()
        clicks = np.repeat(labels, field.width)[flat >= 0]
        flat = flat[flat >= 0]
        count = np.bincount(flat, minlength=field.num_embeddings)
        rate = (np.bincount(flat, clicks, field.num_embeddings) + 1) / (count + 2)
        values = np.stack([np.log(rate / (1 - rate)), np.log1p(count)], axis=1)
        parts += [np.zeros((1, 2)), values]
        offsets.append(start + 1)
        start += 1 + field.num_embeddings
    table = np.concatenate([np.zeros((0, 2)), *parts]).astype(np.float32)
    names = tuple(f"{f.name}:{kind}" for kind in ("target", "count") for f in layout.fields)
    return TinyStats(table, names, tuple(offsets))


def lookup(layout: FeatureLayout, stats: TinyStats, ids: np.ndarray) -> np.ndarray:
    """(B, 2F): means over the values present, all target encodings before all counts."""
    result = np.zeros((len(ids), 2 * len(layout.fields)), np.float32)
    for i, (_, columns) in enumerate(layout.columns()):
        block = ids[:, columns]
        values = stats.table[block + stats.offsets[i]].sum(axis=1)
        result[:, [i, i + len(layout.fields)]] = (
            values / np.maximum((block >= 0).sum(axis=1), 1)[:, None]
        )
    return result


def config_of(**optimizer: object) -> LearnerConfig:
    """A tiny network and a short training, at ten times the default rate, tables included."""
    options = {
        "batch_size": 64,
        "learning_rate": 0.01,
        "embedding_rate_factor": 1.0,
        "max_epochs": 4,
        **optimizer,
    }
    return LearnerConfig(
        embedding_dim=4, hidden_units=(8,), optimizer=OptimizerConfig.model_validate(options)
    )
