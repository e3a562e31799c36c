"""Fields tied to others: by a vocabulary, a scale, a product, pairs of values or a look-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dynens.schema import FieldSpec


# What is said of a looked-up field: all else is its list's, or that of the field it looks up.
_OF_LOOKED_UP = frozenset({"name", "kind", "entity", "through", "vocabulary_of", "why"})


def check_shared(fields: Sequence[FieldSpec]) -> None:
    """Vocabularies are those of other fields, the last of which has its own.

    Raises:
        ValueError: they are not.
    """
    by_name = {spec.name: spec for spec in fields}
    for spec in fields:
        if spec.vocabulary_of is None:
            continue
        owner = by_name.get(spec.vocabulary_of)
        if owner is None:
            raise ValueError(
                f"field {spec.name!r} takes the vocabulary of {spec.vocabulary_of!r}, which is no "
                "field"
            )
        circle = _circle(spec, by_name, "vocabulary_of")
        if circle:
            raise ValueError(
                f"field {spec.name!r} takes, by way of others, its own vocabulary; one of {circle} "
                "must have its own"
            )
        if owner.through is not None:
            raise ValueError(
                f"field {spec.name!r} takes the vocabulary of {owner.name!r}, which is looked up; "
                f"name {owner.vocabulary_of!r} instead"
            )
        if spec.vocabulary.hash_buckets is not None:
            raise ValueError(
                f"field {spec.name!r} takes the vocabulary of {owner.name!r} and cannot hash "
                "values itself; give hash_buckets there"
            )
        if {spec.kind, owner.kind} - {"categorical", "multi_valued"}:
            raise ValueError(
                f"fields {spec.name!r} and {owner.name!r} share a vocabulary, which categorical "
                "and multi-valued fields have"
            )


def check_apart(fields: Sequence[FieldSpec]) -> None:
    """Scales are those of other numeric fields, the last of which has its own.

    Raises:
        ValueError: they are not, or a field is nothing but apart, and from none.
    """
    by_name = {spec.name: spec for spec in fields}
    owners = {spec.apart_from for spec in fields}
    for spec in fields:
        if spec.only_apart and spec.apart_from is None and spec.name not in owners:
            raise ValueError(
                f"field {spec.name!r} is only_apart, but neither has it an apart_from nor is it "
                "another field's"
            )
        if spec.apart_from is None:
            continue
        owner = by_name.get(spec.apart_from)
        if owner is None:
            raise ValueError(
                f"field {spec.name!r} is apart from {spec.apart_from!r}, which is no field"
            )
        if {spec.kind, owner.kind} != {"numeric"}:
            raise ValueError(
                f"field {spec.name!r} is apart from {owner.name!r}, which numeric fields can be"
            )
        if spec.transform != owner.transform or spec.transform not in ("standard", "log"):
            raise ValueError(
                f"field {spec.name!r} is apart from {owner.name!r}, but their transforms are "
                f"{spec.transform!r} and {owner.transform!r}; make both standard or both log"
            )
        circle = _circle(spec, by_name, "apart_from")
        if circle:
            raise ValueError(
                f"field {spec.name!r} is, by way of others, apart from itself; one of {circle} "
                "must have its own scale"
            )


def check_dots(fields: Sequence[FieldSpec]) -> None:
    """Products are those of two dense vectors of one length, each said once.

    Raises:
        ValueError: they are not.
    """
    by_name = {spec.name: spec for spec in fields}
    for spec in fields:
        if spec.dot_with is None:
            continue
        owner = by_name.get(spec.dot_with)
        if owner is None:
            raise ValueError(
                f"field {spec.name!r} has a dot_with of {spec.dot_with!r}, which is no field"
            )
        if {spec.kind, owner.kind} != {"dense_vector"} or spec.length != owner.length:
            raise ValueError(
                f"field {spec.name!r} has a dot_with of {owner.name!r}; both must be dense vectors "
                "of one length"
            )
        if owner is spec or owner.dot_with == spec.name:
            raise ValueError(
                f"fields {spec.name!r} and {owner.name!r} name each other in dot_with; say it of "
                "one of two"
            )


def check_crossed(fields: Sequence[FieldSpec]) -> None:
    """Crossed fields are pairs of two other categorical fields, which have vocabularies.

    Raises:
        ValueError: they are not.
    """
    by_name = {spec.name: spec for spec in fields}
    for spec in fields:
        if spec.crossed is None:
            continue
        if {spec.kind} != {"categorical"} or spec.column or spec.derive or spec.vocabulary_of:
            raise ValueError(
                f"field {spec.name!r} is crossed; such fields are categorical and have no column, "
                "derive or vocabulary_of"
            )
        if spec.vocabulary.hash_buckets is not None:
            raise ValueError(f"field {spec.name!r} is crossed and cannot hash values")
        for name in spec.crossed:
            side = by_name.get(name)
            if side is None or side.kind != "categorical" or side.crossed is not None:
                raise ValueError(
                    f"field {spec.name!r} is crossed from {name!r}, which is no categorical field "
                    "with a column of its own"
                )
            if side.vocabulary.hash_buckets is not None:
                raise ValueError(
                    f"field {spec.name!r} is crossed from {name!r}, whose values are hashed; give "
                    "it a vocabulary"
                )
            if side.entity == "item" and spec.entity != "item":
                raise ValueError(
                    f"field {spec.name!r} is crossed from the item's {name!r}; its entity must be "
                    "item, too"
                )


def check_through(fields: Sequence[FieldSpec]) -> None:
    """Fields that are looked up by the values of a list are told what to look up, and by what.

    Raises:
        ValueError: they are not.
    """
    by_name = {spec.name: spec for spec in fields}
    for spec in fields:
        if spec.through is None:
            continue
        if spec.kind != "multi_valued" or spec.column or spec.vocabulary_of is None:
            raise ValueError(
                f"field {spec.name!r} goes through a list; such fields are multi_valued, have no "
                "column, and name what is looked up in vocabulary_of"
            )
        listed = by_name.get(spec.through[0])
        if listed is None or listed.kind != "multi_valued" or not listed.is_read:
            raise ValueError(
                f"field {spec.name!r} goes through {spec.through[0]!r}, which is no multi_valued "
                "field with a column of its own"
            )
        if spec.entity != listed.entity:
            raise ValueError(
                f"field {spec.name!r} goes through {listed.name!r}; its entity must be "
                f"{listed.entity}, too"
            )
        for name in (spec.through[1], spec.vocabulary_of):
            field = by_name.get(name)
            if field is None or field.kind != "categorical" or not field.is_read:
                raise ValueError(
                    f"field {spec.name!r} looks {spec.vocabulary_of!r} up by {spec.through[1]!r}; "
                    f"{name!r} is no categorical field with a column of its own"
                )
        if spec.through[1] == spec.vocabulary_of:
            raise ValueError(
                f"field {spec.name!r} looks {spec.vocabulary_of!r} up by itself; name the field "
                f"that the values of {listed.name!r} are of in through"
            )
        if taken := _settings_besides(spec, _OF_LOOKED_UP):
            raise ValueError(
                f"field {spec.name!r} is looked up for the values of {listed.name!r} as "
                f"{spec.vocabulary_of!r} has them, and takes no {taken[0]}; give it to one of "
                "these or leave it out"
            )
        hashed = (_first_owner(side, by_name) for side in (listed, by_name[spec.vocabulary_of]))
        if any(field.vocabulary.hash_buckets is not None for field in hashed):
            raise ValueError(
                f"field {spec.name!r} goes through {listed.name!r} to {spec.vocabulary_of!r}; "
                "neither can hash values, give them vocabularies"
            )


def _settings_besides(spec: FieldSpec, known: frozenset[str]) -> list[str]:
    """The other settings that are not as by default."""
    defaults = {name: field.default for name, field in type(spec).model_fields.items()}
    return [n for n, value in defaults.items() if n not in known and getattr(spec, n) != value]


def _first_owner(spec: FieldSpec, by_name: Mapping[str, FieldSpec]) -> FieldSpec:
    """The field whose vocabulary it takes in the end."""
    while spec.vocabulary_of is not None:
        spec = by_name[spec.vocabulary_of]
    return spec


def _circle(
    spec: FieldSpec, by_name: Mapping[str, FieldSpec], tie: Literal["vocabulary_of", "apart_from"]
) -> list[str]:
    """The fields that ties lead through from one, if they never end."""
    seen: set[str] = set()
    above: FieldSpec | None = spec
    while above is not None and above.name not in seen:
        seen.add(above.name)
        above = by_name.get(getattr(above, tie) or "")
    return [] if above is None else sorted(seen)
