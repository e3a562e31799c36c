"""Encoded rows: the one layout shared by training, evaluation and serving.

A row is `dense` (float32) and `ids` (int32). Every sparse field owns `width` consecutive columns of
`ids`: one for a categorical field, `max_len` for a multi-valued one, filled from the left and
padded with `PADDING`. The exported ONNX graphs take exactly these two arrays.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from dataclasses import field as attribute
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]
Array = TypeVar("Array", bound=npt.NDArray[Any])
Indexer = slice | npt.NDArray[np.int64] | npt.NDArray[np.int32] | npt.NDArray[np.bool_]

OUT_OF_VOCABULARY = 0
MISSING = 1
FIRST_VALUE_ID = 2
PADDING = -1
# The code of rows whose group is missing.
NO_GROUP = -1


@dataclass(frozen=True)
class SparseField:
    """One sparse field of the encoded row.

    `num_embeddings` counts the ids 0 (out of vocabulary), 1 (missing) and 2… (values);
    `width` is the number of columns of `ids` it owns (> 1 only for multi-valued fields);
    `vocabulary_of` is the field whose values have the same ids, if there is one.
    """

    name: str
    num_embeddings: int
    width: int = 1
    vocabulary_of: str | None = None


def field_offsets(fields: Sequence[SparseField]) -> list[int]:
    """Where each field's id 0 is in the flat table of all fields; one before it is padding's row.

    `row = id + offset`, for `PADDING` too.
    """
    offsets, start = [], 0
    for field in fields:
        offsets.append(start + 1)
        start += 1 + field.num_embeddings
    return offsets


def num_flat_rows(fields: Sequence[SparseField]) -> int:
    """Rows of the flat table."""
    return sum(1 + field.num_embeddings for field in fields)


@dataclass(frozen=True)
class DenseGap:
    """Two dense features on one scale, whose difference is an input too (`dynens.layers.gaps`).

    Attributes:
        taker, owner: their names.
        middle, scale: the difference around which the input resolves, and 1 / how wide.
    """

    taker: str
    owner: str
    middle: float
    scale: float


@dataclass(frozen=True)
class DenseDot:
    """Two dense vectors of one length, whose dot product is an input too (`dynens.layers.dots`).

    Attributes:
        taker, owner: the fields' names.
        length: components of each.
        middle, scale: the product around which the input resolves, and 1 / how wide.
    """

    taker: str
    owner: str
    length: int
    middle: float
    scale: float


@dataclass(frozen=True)
class FieldPair:
    """Two fields of one value each, as a rule the keys of user and item.

    Attributes:
        columns: of `ids`.
        sizes: how many ids each has.
        is_context: whether candidates of a ranking request share it.
    """

    columns: tuple[int, int]
    sizes: tuple[int, int]
    is_context: tuple[bool, bool]


def component_names(field: str, length: int) -> tuple[str, ...]:
    """The dense features of a vector."""
    return tuple(f"{field}[{i}]" for i in range(length))


@dataclass(frozen=True)
class FeatureLayout:
    """Names and positions of everything in an encoded row.

    Attributes:
        dense: names of the dense features.
        fields: the sparse fields.
        context_dense: how many of the first dense features describe the user and the situation,
            which the candidates of a ranking request share.
        context_fields: the same for the sparse fields. Both are zero where a table describes only
            one side.
        gaps: pairs of dense features whose differences are inputs too.
        dots: pairs of dense vectors whose products are inputs too.
        only_apart: dense features that are no inputs but by way of these differences.
        shares: lists of which the share that meets the field whose vocabulary they have is an
            input too.
        keys: fields that hold the user's or the item's key.
    """

    dense: tuple[str, ...]
    fields: tuple[SparseField, ...]
    context_dense: int = 0
    context_fields: int = 0
    gaps: tuple[DenseGap, ...] = ()
    dots: tuple[DenseDot, ...] = ()
    only_apart: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()
    keys: tuple[str, ...] = attribute(default=(), compare=False)

    @property
    def has_context(self) -> bool:
        """Whether candidates of one request have columns in common."""
        return self.context_dense + self.context_fields > 0

    @property
    def context_ids_width(self) -> int:
        """How many of the first columns of `ids` candidates have in common."""
        return sum(field.width for field in self.fields[: self.context_fields])

    @property
    def num_dense(self) -> int:
        return len(self.dense)

    @property
    def ids_width(self) -> int:
        return sum(field.width for field in self.fields)

    def columns(self) -> Iterator[tuple[SparseField, slice]]:
        """Each field with its columns of `ids`, in order."""
        start = 0
        for field in self.fields:
            yield field, slice(start, start + field.width)
            start += field.width

    def largest_pair(self, names: Container[str] | None = None) -> FieldPair | None:
        """The fields (of `names`) with the most ids, one of each side where the table has sides.

        Keys of user and item go before others; lists do not count. None where there are no two such
        fields.
        """
        context: list[tuple[SparseField, int]] = []
        rest: list[tuple[SparseField, int]] = []
        for number, (own, columns) in enumerate(self.columns()):
            if own.width == 1 and (names is None or own.name in names):
                (context if number < self.context_fields else rest).append((own, columns.start))

        def rank(found: tuple[SparseField, int]) -> tuple[bool, int]:
            return found[0].name in self.keys, found[0].num_embeddings

        if self.has_context and not (context and rest):
            return None
        if not self.has_context:
            both = sorted([*context, *rest], key=rank, reverse=True)
            context, rest = both[:1], both[1:]
        if not rest:
            return None
        (left, at), (right, beside) = (max(side, key=rank) for side in (context, rest))
        shared = self.context_ids_width
        return FieldPair(
            columns=(at, beside),
            sizes=(left.num_embeddings, right.num_embeddings),
            is_context=(at < shared, beside < shared),
        )

    def to_dict(self) -> dict[str, object]:
        pairs = {
            "gaps": [list(astuple(gap)) for gap in self.gaps],
            "dots": [list(astuple(dot)) for dot in self.dots],
            "only_apart": list(self.only_apart),
            "shares": list(self.shares),
            "keys": list(self.keys),
        }
        return {
            "dense": list(self.dense),
            "fields": [
                [f.name, f.num_embeddings, f.width, *([f.vocabulary_of] * bool(f.vocabulary_of))]
                for f in self.fields
            ],
            "context": [self.context_dense, self.context_fields],
        } | {name: values for name, values in pairs.items() if values}

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> FeatureLayout:
        dense, fields = data["dense"], data["fields"]
        assert isinstance(dense, list)
        assert isinstance(fields, list)
        context = data.get("context", [0, 0])
        assert isinstance(context, list)
        gaps, dots = data.get("gaps", []), data.get("dots", [])
        only_apart, shares = data.get("only_apart", []), data.get("shares", [])
        keys = data.get("keys", [])
        assert isinstance(gaps, list)
        assert isinstance(dots, list)
        assert isinstance(only_apart, list)
        assert isinstance(shares, list)
        assert isinstance(keys, list)
        return cls(
            tuple(dense),
            tuple(SparseField(*field) for field in fields),
            context_dense=context[0],
            context_fields=context[1],
            gaps=tuple(DenseGap(*gap) for gap in gaps),
            dots=tuple(DenseDot(*dot) for dot in dots),
            only_apart=tuple(only_apart),
            shares=tuple(shares),
            keys=tuple(keys),
        )


@dataclass(frozen=True)
class EncodedBatch:
    """Encoded rows, NumPy only.

    Attributes:
        dense: (B, num_dense) float32, finite.
        ids: (B, ids_width) int32, in [0, num_embeddings) or `PADDING` (multi-valued fields only).
        labels: (B,) float32 in {0, 1}, or None when unlabelled.
        sample_weight: (B,) float32 > 0, or None for ones.
        grades: (B,) float32, how far on either side of the label's threshold *training* rows are,
            the sign as the label has it, a mean size of 1 (`dynens/data/grades.py`); or None: the
            table only tells positive from negative.
        soft_labels: (B,) float32 in [0, 1], another model's probabilities, NaN where it gave none;
            or None.
        groups: (B,) int64 group codes for GAUC, `NO_GROUP` where missing; or None.
        stats: (B, num_stats) float32 leakage-free target and count encodings of *training* rows
            (out-of-fold or past-only), or None: then the frozen tables give them from `ids`.
    """

    dense: FloatArray
    ids: IntArray
    labels: FloatArray | None = None
    sample_weight: FloatArray | None = None
    grades: FloatArray | None = None
    soft_labels: FloatArray | None = None
    groups: npt.NDArray[np.int64] | None = None
    stats: FloatArray | None = None

    def __post_init__(self) -> None:
        if len(self.dense) != len(self.ids):
            raise ValueError(f"dense has {len(self.dense)} rows and ids {len(self.ids)}")

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Indexer) -> EncodedBatch:
        """The rows at `index` (a slice gives views, an array copies)."""

        def at(array: Array | None) -> Array | None:
            return None if array is None else cast(Array, array[index])

        return replace(
            self,
            dense=self.dense[index],
            ids=self.ids[index],
            labels=at(self.labels),
            sample_weight=at(self.sample_weight),
            grades=at(self.grades),
            soft_labels=at(self.soft_labels),
            groups=at(self.groups),
            stats=at(self.stats),
        )


@dataclass(frozen=True)
class Candidates:
    """Rows of one ranking request: a context beside items of the bundle's table.

    Attributes:
        context: one encoded row, whose item columns say nothing.
        table: (M, item columns): the last columns of an encoded row for every item.
        items: (N,) int32 rows of `table`.
    """

    context: EncodedBatch
    table: EncodedBatch
    items: IntArray

    def __len__(self) -> int:
        return len(self.items)

    def take(self, index: Indexer) -> Candidates:
        """The candidates at `index`."""
        return replace(self, items=self.items[index])

    @property
    def context_dense(self) -> FloatArray:
        """(1, D): the dense columns that all candidates share."""
        width = self.context.dense.shape[1] - self.table.dense.shape[1]
        return self.context.dense[:, :width]

    @property
    def context_ids(self) -> IntArray:
        """(1, W): the ids that all candidates share."""
        width = self.context.ids.shape[1] - self.table.ids.shape[1]
        return self.context.ids[:, :width]

    def encoded(self) -> EncodedBatch:
        """The same rows, written out."""
        own = self.table.take(self.items)
        dense = np.repeat(self.context_dense, len(self), axis=0)
        ids = np.repeat(self.context_ids, len(self), axis=0)
        return EncodedBatch(np.hstack([dense, own.dense]), np.hstack([ids, own.ids]))


Rows = EncodedBatch | Candidates


@dataclass(frozen=True)
class IdColumns:
    """Which columns of encoded ids belong to which field, for adding up per field.

    Attributes:
        names: the fields, in order.
        starts: first column of each.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, layout: FeatureLayout) -> IdColumns:
        columns = [(field.name, at.start) for field, at in layout.columns()]
        return cls(tuple(name for name, _ in columns), tuple(start for _, start in columns))

    def count_unknown(self, rows: Rows) -> list[int] | None:
        """How many of each field's values are outside the vocabulary; None for none at all."""
        if isinstance(rows, Candidates):
            shared = rows.context_ids[0] == OUT_OF_VOCABULARY
            own = rows.table.ids[rows.items] == OUT_OF_VOCABULARY
            if not (shared.any() or own.any()):
                return None
            counts = np.append(shared * len(rows), np.count_nonzero(own, axis=0))
        else:
            unknown = rows.ids == OUT_OF_VOCABULARY
            if not np.count_nonzero(unknown):
                return None
            counts = np.count_nonzero(unknown, axis=0)
        per_field: list[int] = np.add.reduceat(counts, self.starts).tolist()
        return per_field


def as_one_request(batch: EncodedBatch, layout: FeatureLayout) -> EncodedBatch:
    """The rows as candidates of one request: all take the context columns of the first row.

    Rows of a layout without context come back as they are.
    """
    if not layout.has_context or not len(batch):
        return batch
    dense, ids = np.array(batch.dense), np.array(batch.ids)
    dense[:, : layout.context_dense] = dense[0, : layout.context_dense]
    ids[:, : layout.context_ids_width] = ids[0, : layout.context_ids_width]
    return replace(batch, dense=dense, ids=ids)
