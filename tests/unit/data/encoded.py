"""Encoders fitted on small tables, for tests of encoding and of ranking."""

import numpy as np
import pyarrow as pa

from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import RawEntity
from dynens.data.encoding.fitters import field_fitter
from dynens.data.encoding.pairs import sources_of, values_of
from dynens.data.parts import encode_entity
from dynens.schema import FieldSpec, VocabularyPolicy

KEEP_ALL = VocabularyPolicy(min_count=1)
SPECS = (
    FieldSpec(name="user_id", entity="user", vocabulary=KEEP_ALL),
    FieldSpec(name="country"),
    FieldSpec(name="price", kind="numeric", buckets=8),
    FieldSpec(name="age", kind="numeric", transform="standard"),
    FieldSpec(name="tags", kind="multi_valued", entity="item", vocabulary=KEEP_ALL),
    FieldSpec(name="hour", column="time", derive="hour"),
    FieldSpec(name="days", column="time", kind="numeric", derive="epoch_days"),
    FieldSpec(name="hashed", column="country", vocabulary=VocabularyPolicy(hash_buckets=7)),
)


def fit(specs, table, entities=(), **keys):
    encoders = []
    by_name = {spec.name: spec for spec in specs}
    for spec in specs:
        fitter = field_fitter(spec)
        joined = table
        for entity in entities:
            joined = entity.join(joined, sources_of(specs))
        fitter.add(values_of(joined, spec, by_name))
        encoders.append(fitter.finish())
    bare = RowEncoder(encoders)
    encoded = [encode_entity(bare, entity, table.column_names) for entity in entities]
    return RowEncoder(encoders, encoded, **keys)


def same(a, b):
    np.testing.assert_array_equal(a.ids, b.ids)
    np.testing.assert_allclose(a.dense, b.dense, atol=1e-6)


def fit_joined():
    """An encoder with user and item tables, the interactions and the tables."""
    users = pa.table({"user_id": ["1", "2", "3"], "age": [20.0, 30.0, None]})
    items = pa.table({"item": [10, 11, 12], "genre": ["x|y", "x", None], "price": [1.0, 2.0, 9.0]})
    entities = [RawEntity("user", "user_id", users), RawEntity("item", "item", items)]
    table = pa.table(
        {"user_id": [1, 2, 2, 9], "item": [10, 11, 12, 13], "slot": ["a", "b", "a", "b"]}
    )
    specs = [
        FieldSpec(name="user_id", entity="user", vocabulary=KEEP_ALL),
        FieldSpec(name="age", kind="numeric", entity="user"),
        FieldSpec(name="slot", vocabulary=KEEP_ALL),
        FieldSpec(name="item", entity="item", vocabulary=KEEP_ALL),
        FieldSpec(
            name="genre", kind="multi_valued", separator="|", entity="item", vocabulary=KEEP_ALL
        ),
        FieldSpec(name="price", kind="numeric", entity="item"),
    ]
    return fit(specs, table, entities, user_key="user_id", item_key="item"), table, entities
