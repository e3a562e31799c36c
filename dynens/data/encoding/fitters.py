"""The fitter of each field, and what fields are told of each other."""

from __future__ import annotations

from collections.abc import Sequence

from dynens.data.encoding.entities import RawEntity
from dynens.data.encoding.fitting import (
    CategoricalFitter,
    DenseVectorFitter,
    FieldFitter,
    MultiValuedFitter,
    NumericFitter,
    VocabularyFitter,
)
from dynens.data.encoding.lookups import LookUpFitter
from dynens.schema import FieldSpec

_FITTERS: dict[str, type[FieldFitter]] = {
    "categorical": CategoricalFitter,
    "multi_valued": MultiValuedFitter,
    "numeric": NumericFitter,
    "dense_vector": DenseVectorFitter,
}


def field_fitter(spec: FieldSpec, first_row: int = 0) -> FieldFitter:
    """The fitter for a field's kind."""
    fitter = _FITTERS[spec.kind] if spec.through is None else LookUpFitter
    return fitter(spec, first_row)


def tie_fields(fitters: Sequence[FieldFitter]) -> None:
    """Tell fields of those that theirs depend on, once all rows were added."""
    by_name = {fitter.spec.name: fitter for fitter in fitters}
    for fitter in fitters:
        owner = by_name.get(fitter.spec.vocabulary_of or "")
        if isinstance(owner, VocabularyFitter) and isinstance(fitter, VocabularyFitter):
            fitter.owner = owner
        other = by_name.get(fitter.spec.apart_from or "")
        if isinstance(other, NumericFitter) and isinstance(fitter, NumericFitter):
            fitter.owner = other
        if isinstance(fitter, LookUpFitter):
            fitter.tie(by_name)
        partner = by_name.get(fitter.spec.dot_with or "")
        if isinstance(partner, DenseVectorFitter) and isinstance(fitter, DenseVectorFitter):
            fitter.multiply_with(partner)


def look_at_items(fitters: Sequence[FieldFitter], entities: Sequence[RawEntity]) -> None:
    """Show fitters of looked-up fields the entity tables, which know more than training rows do."""
    by_name = {fitter.spec.name: fitter.spec for fitter in fitters}
    for fitter in fitters:
        if isinstance(fitter, LookUpFitter):
            for entity in entities:
                fitter.add_items(entity, by_name)
