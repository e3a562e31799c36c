"""The raw columns that requests may carry, and how they travel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.encoding.entities import EncodedEntity
from dynens.data.encoding.fields import CategoricalEncoder, FieldEncoder, NumericEncoder
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.split_dates import Dates
from dynens.data.reading.values import canonical_texts
from dynens.schema import Entity, FieldKind


@dataclass(frozen=True)
class InputField:
    """A raw column that requests may carry."""

    name: str
    kind: FieldKind
    entity: Entity


def inputs_of(
    encoders: Sequence[FieldEncoder], entities: Iterable[EncodedEntity], dates: Dates
) -> tuple[InputField, ...]:
    """What encoders read: columns, keys of entity tables and, of split dates, the parts."""
    inputs: dict[str, InputField] = {}
    for entity in entities:
        inputs[entity.key] = InputField(entity.key, "categorical", entity.entity)
    texts = {e.spec.source for e in encoders if _reads_texts(e)}
    numeric = {e.spec.source for e in encoders if e.spec.kind == "numeric"} - texts
    texts |= {e.spec.source for e in encoders if _spells_numbers(e, numeric)}
    for encoder in encoders:
        spec = encoder.spec
        if not spec.is_read:
            continue
        # Dates, and columns that several kinds of field read, travel as categories; numbers
        # that are categories too as numbers, which either field reads, unless texts stood
        # among them or the category is a spelling such as 07 that no number keeps. Lists that
        # are vectors too stay lists.
        kind: FieldKind = "categorical" if spec.derive else spec.kind
        known = inputs.get(spec.source)
        if known is not None and known.kind != kind:
            kind = _common_kind({known.kind, kind}, spec.source in texts)
        inputs[spec.source] = InputField(spec.source, kind, spec.entity)
    for name in [name for name in dates if name in inputs]:
        whole = inputs.pop(name)
        for part in dates[name]:
            inputs.setdefault(part, InputField(part, "categorical", whole.entity))
    return tuple(inputs.values())


def _common_kind(kinds: set[FieldKind], are_texts: bool) -> FieldKind:
    """How a column travels that fields of two kinds read."""
    if kinds == {"multi_valued", "dense_vector"}:
        return "multi_valued"
    return "numeric" if kinds == {"categorical", "numeric"} and not are_texts else "categorical"


def _reads_texts(encoder: FieldEncoder) -> bool:
    """Whether what it reads of a column is, or was in training, more than numbers."""
    if isinstance(encoder, NumericEncoder) and encoder.holds_texts:
        return True
    return encoder.spec.derive is not None or encoder.spec.kind == "multi_valued"


def _spells_numbers(encoder: FieldEncoder, columns: set[str]) -> bool:
    """Whether categories of one of `columns` are texts, or numbers that floats spell otherwise."""
    if encoder.spec.source not in columns or not isinstance(encoder, CategoricalEncoder):
        return False
    values = encoder.vocabulary.values
    spelled = canonical_texts(pa.array(to_numbers(values).values, from_pandas=True))
    return bool(pc.any(pc.not_equal(spelled, values).fill_null(True)).as_py())
