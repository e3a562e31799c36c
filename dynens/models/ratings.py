"""Rows put together by user and by item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dynens.batch import EncodedBatch, FieldPair, FloatArray
from dynens.models.base import positive_rate

Ids = npt.NDArray[np.int64]


class Ratings:
    """Rows of one side, put together by the id they belong to.

    Attributes:
        owner, column, grade, labels, weight: (n,) of each row; a row without a label has a grade of
            0 and NaN.
        count: (R,) rows of each id.
        scale: (R,) n_u.
    """

    def __init__(
        self,
        owner: Ids,
        column: Ids,
        grade: FloatArray,
        labels: FloatArray,
        weight: FloatArray | None,
        num_rows: int,
    ) -> None:
        order = np.argsort(owner, kind="stable")
        self.owner = torch.from_numpy(owner[order])
        self.column = torch.from_numpy(column[order])
        self.grade = torch.from_numpy(grade[order])
        self.labels = torch.from_numpy(labels[order])
        self.weight = None if weight is None else torch.from_numpy(weight[order])
        self.count = np.bincount(owner, minlength=num_rows)
        self.start = np.cumsum(self.count) - self.count
        mean = len(owner) / max(int(np.count_nonzero(self.count)), 1)
        self.scale = torch.from_numpy(np.sqrt(mean / np.maximum(self.count, 1)).astype(np.float32))

    def of(self, ids: Ids) -> SideBatch:
        """The rows of some ids, in their order."""
        count = self.count[ids]
        offsets = np.cumsum(count) - count
        own = np.repeat(np.arange(len(ids)), count)
        rows = torch.from_numpy((self.start[ids] - offsets)[own] + np.arange(count.sum()))
        return SideBatch(
            ids=torch.from_numpy(ids),
            offsets=torch.from_numpy(offsets),
            own=torch.from_numpy(own),
            column=self.column[rows],
            grade=self.grade[rows],
            labels=self.labels[rows],
            weight=None if self.weight is None else self.weight[rows],
            scale=self.scale[torch.from_numpy(ids)],
        )


@dataclass(frozen=True)
class SideBatch:
    """R ids of one side with their n rows: `own` (n,) tells whose each is, `offsets` (R,) where
    each id's begin."""

    ids: Tensor
    offsets: Tensor
    own: Tensor
    column: Tensor
    grade: Tensor
    labels: Tensor
    weight: Tensor | None
    scale: Tensor

    def to(self, device: torch.device) -> SideBatch:
        """The same on another device."""
        return SideBatch(
            ids=self.ids.to(device),
            offsets=self.offsets.to(device),
            own=self.own.to(device),
            column=self.column.to(device),
            grade=self.grade.to(device),
            labels=self.labels.to(device),
            weight=None if self.weight is None else self.weight.to(device),
            scale=self.scale.to(device),
        )


def pair_ratings(
    pair: FieldPair, rows: EncodedBatch, unlabelled: EncodedBatch | None = None
) -> tuple[Ratings, Ratings]:
    """Labelled rows and unlabelled ones by user and by item."""
    assert rows.labels is not None
    users, items = (np.asarray(rows.ids[:, column], np.int64) for column in pair.columns)
    grade, labels, weight = grades_or_signs(rows), np.asarray(rows.labels), rows.sample_weight
    if unlabelled is not None:
        more = (0, len(unlabelled))
        users, items = (
            np.concatenate([ids, unlabelled.ids[:, column]])
            for ids, column in zip((users, items), pair.columns, strict=True)
        )
        grade, labels = np.pad(grade, more), np.pad(labels, more, constant_values=np.nan)
        weight = None if weight is None else np.pad(weight, more, constant_values=1.0)
    return (
        Ratings(users, items, grade, labels, weight, pair.sizes[0]),
        Ratings(items, users, grade, labels, weight, pair.sizes[1]),
    )


def grades_or_signs(rows: EncodedBatch) -> FloatArray:
    """(n,) the grades of labelled rows, ±1 where the table has none."""
    if rows.grades is not None:
        return np.asarray(rows.grades)
    assert rows.labels is not None
    grades: FloatArray = np.asarray(rows.labels) * 2 - 1
    return grades


def unknown_rate(pair: FieldPair, rows: EncodedBatch) -> float:
    """Share of positive rows that an item nothing is known of is expected to have.

    The mean over items and not over rows, since those that are new are more like the rare ones;
    each item's share is drawn to the share of all rows by one row (of mean weight) of that.
    """
    assert rows.labels is not None
    weight = np.ones(len(rows)) if rows.sample_weight is None else rows.sample_weight
    weight = weight / weight.mean()
    items, overall = rows.ids[:, pair.columns[1]], positive_rate(rows.labels, rows.sample_weight)
    count = np.bincount(items, weight)
    positive = np.bincount(items, weight * rows.labels)
    known = count > 0
    return float(np.mean((positive[known] + overall) / (count[known] + 1)))
