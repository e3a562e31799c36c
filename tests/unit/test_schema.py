from typing import Any

import pytest
from pydantic import ValidationError

from dynens.errors import ConfigError, SchemaError
from dynens.rules import Comparison, LabelRule
from dynens.schema import (
    DatasetConfig,
    FeatureSchema,
    FieldSpec,
    SourceOptions,
    SplitConfig,
    dump_dataset,
    load_dataset,
)

LABEL = LabelRule(column="y")


def sharing(of_b, of_c):
    """A schema of a number `a` and categories `b`, `c` and `d`."""
    b, c = FieldSpec(name="b", vocabulary_of=of_b), FieldSpec(name="c", vocabulary_of=of_c)
    fields = (FieldSpec(name="a", kind="numeric"), b, c, FieldSpec(name="d"))
    return FeatureSchema(label=LABEL, fields=fields)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rating >= 4", ("rating", ">=", "4")),
        (">= 4", ("y", ">=", "4")),
        ("event = 'buy'", ("event", "==", "buy")),
        ("Zip Code != 10", ("Zip Code", "!=", "10")),
        ("`a>b` == >50k", ("a>b", "==", ">50k")),
        ("y == \"'no'\"", ("y", "==", "'no'")),
        ("y == '=0'", ("y", "==", "=0")),
        ("y == men's", ("y", "==", "men's")),
    ],
)
def test_comparisons(text, parts):
    rule = Comparison.parse(text, "y")
    assert (rule.column, rule.op, rule.value) == parts


@pytest.mark.parametrize("text", ["rating", "", "> ", "== "])
def test_what_is_no_comparison(text):
    with pytest.raises(SchemaError, match="is not a comparison"):
        Comparison.parse(text, "y")


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: FeatureSchema(label=LABEL, fields=(FieldSpec(name="y"),)), "reads the label"),
        (lambda: sharing("x", "d"), "takes the vocabulary of 'x', which is no field"),
        (lambda: sharing("b", "d"), "takes, by way of others, its own vocabulary"),
        (lambda: sharing("c", "b"), r"one of \['b', 'c'\] must have its own"),
        (lambda: sharing("a", "d"), "'b' and 'a' share a vocabulary, which categorical and"),
        (
            lambda: FeatureSchema(
                label=LabelRule(column="y", positive="watch > 3"), fields=(FieldSpec(name="watch"),)
            ),
            "reads the label column 'watch'",
        ),
        (
            lambda: FeatureSchema(
                label=LabelRule(column="y", positive="> 3", negative="skipped == 1"),
                fields=(FieldSpec(name="s", column="skipped"),),
            ),
            "reads the label column 'skipped'",
        ),
        (
            lambda: FeatureSchema(label=LABEL, fields=(FieldSpec(name="a"), FieldSpec(name="a"))),
            "declared twice",
        ),
        (
            lambda: FeatureSchema(label=LABEL, fields=(FieldSpec(name="a"),), soft_label="a"),
            "soft_label column 'a', which no request has",
        ),
        (
            lambda: FeatureSchema(label=LABEL, fields=(FieldSpec(name="a"),), excluded=("a",)),
            "excluded column 'a'",
        ),
        (lambda: FieldSpec(name="v", kind="dense_vector"), "has no length"),
        (lambda: FieldSpec(name="t", kind="multi_valued", derive="hour"), "derives 'hour'"),
        (lambda: SourceOptions(header=False), "need the names"),
        (lambda: SplitConfig(fractions=(0.5, 0.1, 0.1)), "sum to 1"),
        (lambda: SplitConfig(valid_from=1), "both valid_from and test_from"),
        (lambda: SplitConfig(by="random", valid_from=1, test_from=2), "split is by 'random'"),
        (
            lambda: DatasetConfig(
                files=("a",), features=FeatureSchema(label=LABEL), split=SplitConfig(by="time")
            ),
            "needs features.timestamp",
        ),
        (
            lambda: DatasetConfig(
                files=("a",), features=FeatureSchema(label=LABEL), split=SplitConfig(by="group")
            ),
            "needs features.group",
        ),
    ],
)
def test_contradictions_are_named(build, says):
    with pytest.raises(ValidationError, match=says):
        build()


def test_yaml_round_trip_resolves_paths(tmp_path):
    text = """
files: data/*.csv
entities: [{files: users.csv, entity: user, key: uid}]
features:
  label: {column: stars, positive: stars >= 4, drop: stars == 3}
  fields:
  - {name: uid, entity: user, vocabulary: {min_count: 3, hash_buckets: 100}}
  - {name: price, kind: numeric, buckets: 10}
  negative_sampling_rate: 0.1
"""
    path = tmp_path / "shop.yaml"
    path.write_text(text)
    config = load_dataset(path)
    assert config.name == "shop"
    assert config.files == (str(tmp_path / "data/*.csv"),)
    assert config.entities[0].files == (str(tmp_path / "users.csv"),)
    assert config.features.field("uid").vocabulary.min_count == 3
    again = tmp_path / "again.yaml"
    again.write_text(dump_dataset(config, "two\nlines"))
    assert load_dataset(again) == config


def test_dates_without_quotes(tmp_path):
    path = tmp_path / "d.yaml"
    text = "files: a.csv\nfeatures: {{label: {{column: y}}, timestamp: t}}\n"
    text += "split: {{by: time, valid_from: {}, test_from: 2024-05-04 12:00:00}}\n"
    path.write_text(text.format("2024-05-03"))
    split = load_dataset(path).split
    assert (split.valid_from, split.test_from) == ("2024-05-03", "2024-05-04 12:00:00")
    path.write_text(text.format("2024-02-30"))
    with pytest.raises(ConfigError, match=r"d\.yaml is not valid YAML \(day .* out of range"):
        load_dataset(path)


def test_unknown_keys_and_fields(tmp_path):
    path = tmp_path / "d.yaml"
    path.write_text("files: a.csv\nfeatures: {label: {column: y}, colour: blue}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'features\.colour'"):
        load_dataset(path)
    schema = FeatureSchema(label=LABEL, fields=(FieldSpec(name="a"), FieldSpec(name="b")))
    with pytest.raises(SchemaError, match="no field 'c'; it has a, b"):
        schema.field("c")


def test_a_key_is_told_by_its_fields_and_by_pairs_with_them():
    fields = (
        FieldSpec(name="item", column="item_id", entity="item"),
        FieldSpec(name="item.size", column="item_id", kind="numeric", entity="item"),
        FieldSpec(name="brand", entity="item"),
        FieldSpec(name="hour"),
        FieldSpec(name="item × hour", crossed=("item", "hour"), entity="item"),
        FieldSpec(name="brand × hour", crossed=("brand", "hour"), entity="item"),
    )
    schema = FeatureSchema(label=LabelRule(column="y"), fields=fields, item_key="item_id")
    assert schema.key_fields("item_id") == {"item", "item.size", "item × hour"}
    assert schema.key_fields(None) == set()


@pytest.mark.parametrize("role", ["timestamp", "request_id", "group", "user_key", "item_key"])
def test_the_label_plays_no_other_part(role: str) -> None:
    with pytest.raises(ValueError, match=f"{role} names the label column 'y'"):
        FeatureSchema.model_validate({"label": {"column": "y"}, role: "y"})


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"watched_brands": {"vocabulary_of": "watched_brands"}}, "must have its own"),
        ({"watched_brands": {"through": ["watched", "brand"]}}, "looks 'brand' up by itself"),
        ({"watched_brands": {"max_len": 3}}, "values of 'watched' as 'brand' .* takes no max_len"),
        ({"watched_brands": {"separator": "|"}}, "takes no separator; give it to one of these"),
        ({"watched_brands": {"keep": "last"}}, "takes no keep"),
        ({"watched_brands": {"vocabulary": {"min_count": 9}}}, "takes no vocabulary"),
        (
            {"watched": {"vocabulary_of": "item"}, "item": {"vocabulary": {"hash_buckets": 9}}},
            "neither can hash values",
        ),
        (
            {"brand": {"vocabulary_of": "maker"}, "maker": {"vocabulary": {"hash_buckets": 9}}},
            "neither can hash values",
        ),
    ],
)
def test_a_look_up_that_would_find_nothing_or_something_else_is_refused(
    changes: dict[str, dict[str, Any]], rule: str
) -> None:
    fields: dict[str, dict[str, Any]] = {
        "item": {},
        "brand": {},
        "maker": {},
        "watched": {"kind": "multi_valued"},
        "watched_brands": {
            "kind": "multi_valued",
            "through": ["watched", "item"],
            "vocabulary_of": "brand",
        },
    }
    FeatureSchema.model_validate(_with_label(fields))
    for name, change in changes.items():
        fields[name] |= change
    with pytest.raises(ValueError, match=rule):
        FeatureSchema.model_validate(_with_label(fields))


def _with_label(fields: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {"label": {"column": "y"}, "fields": [{"name": n, **f} for n, f in fields.items()]}
