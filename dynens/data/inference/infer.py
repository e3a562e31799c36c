"""Schema inference: what each column is, decided on evidence and explained."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.agreement import check_types
from dynens.data.columns import check_roles, unusable_type
from dynens.data.encoding.entities import RawEntity
from dynens.data.inference.amounts import inexact_ids, told_currencies, told_inexact
from dynens.data.inference.decide import TEXT_WORDS, decide
from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.evidence import Labels
from dynens.data.inference.inferred import InferredSchema
from dynens.data.inference.leaks import find_leak, named_after_leaks
from dynens.data.inference.passes import tied
from dynens.data.inference.passing import why_passing
from dynens.data.inference.profile import ColumnProfile, profile_column
from dynens.data.inference.roles import Roles, find_copies, find_roles, find_weight, may_be_time
from dynens.data.inference.time_fields import (
    age_fields,
    date_fields,
    maybe_row_times,
    row_time_field,
    row_time_fields,
    row_times,
    with_times,
)
from dynens.data.names import NUMBERING, is_id_name, unused_name
from dynens.data.reading.decimals import comma_columns, fields_with_commas, points_in, settled
from dynens.data.reading.labels import LabelReader
from dynens.data.reading.layouts import with_layout
from dynens.data.reading.lists import prefix_lengths
from dynens.data.reading.sources import read_sample, table_name
from dynens.data.reading.times import text_format
from dynens.errors import DataError, SchemaError
from dynens.rules import Comparison, LabelRule
from dynens.schema import (
    DEFAULT_SOURCE,
    DatasetConfig,
    Entity,
    FeatureSchema,
    FieldSpec,
    SourceOptions,
)

SAMPLE_ROWS = 100_000
_MAX_BUCKETED = 60  # numeric fields with a sparse twin; more would swamp the rest
_MANY_LINES, _MANY_VALUES = 20, 50
_NAMED = 5  # columns in one warning


def infer_schema(
    path: Path | str, label: str, options: SourceOptions = DEFAULT_SOURCE
) -> InferredSchema:
    """Look at a table and describe it.

    Args:
        path: a file or glob.
        label: the label column, or a rule such as `rating >= 4`.
        options: layout of text files.

    Raises:
        DataError: the file is bad, the label is absent or not binary, or no column is usable.
    """
    options, commas = with_layout([str(path)], options)
    sample, distance = read_sample([str(path)], options, SAMPLE_ROWS)
    rule = label_rule(label, sample.column_names)
    draft = DatasetConfig(
        name=table_name(str(path)),
        files=(os.path.abspath(path),),
        features=FeatureSchema(label=rule),
        source=options,
    )
    return infer_fields(draft, sample, distance=distance).with_notes(draft.files, commas)


def label_rule(text: str, columns: Sequence[str] = ()) -> LabelRule:
    """A label option: the name of one of the `columns`, or a comparison true of positive rows."""
    if text in columns:
        return LabelRule(column=text)
    try:
        rule = Comparison.parse(text)
    except SchemaError:
        return LabelRule(column=text)
    return LabelRule(column=rule.column, positive=f"{rule.column} {rule.op} {rule.value}")


def with_fields(config: DatasetConfig, entities: Sequence[RawEntity] = ()) -> InferredSchema:
    """`config`, its fields inferred when it declares none."""
    if config.features.fields:
        return InferredSchema(fields_with_commas(config)).with_notes(config.files)
    source, commas = with_layout(config.files, config.source)
    config = config.model_copy(update={"source": source})
    check_types(config)
    sample, distance = read_sample(config.files, config.source, SAMPLE_ROWS)
    for entity in entities:
        sample = entity.join(sample, entity.columns.column_names)
    check_roles(config, sample)
    inferred = infer_fields(config, sample, entities, distance)
    return inferred.with_notes(config.files, commas)


def infer_fields(
    config: DatasetConfig,
    sample: pa.Table,
    entities: Sequence[RawEntity] = (),
    distance: float = 1.0,
) -> InferredSchema:
    """Choose fields, keys and timestamp for `config` from a sample of its (joined) rows.

    Args:
        config: without fields.
        sample: rows.
        entities: the tables that were joined.
        distance: rows of the whole table per row of the sample.

    Raises:
        DataError: the label is absent or not binary, or no column is usable.
    """
    reader = LabelReader(config.features.label)
    config, commas = settled(config, sample)
    commas += comma_columns(sample.drop_columns(commas), cents=True)
    sample = points_in(sample, commas)
    try:
        codes = reader.read(sample)
        kept = codes >= 0
        sample = sample.filter(pa.array(kept))
        labels = reader.labels_by_code()[codes[kept]]
        inferred = _Inference(config, sample, labels, entities, distance, commas).run()
    except pa.ArrowException as e:
        raise DataError(unusable_type(e)) from e
    if guess := reader.guess():
        inferred.warnings.insert(0, guess)
    return inferred


class _Inference:
    def __init__(
        self,
        config: DatasetConfig,
        sample: pa.Table,
        labels: Labels,
        entities: Sequence[RawEntity],
        distance: float,
        commas: Collection[str],
    ) -> None:
        self._commas = frozenset(commas)
        self._config, self._sample, self._labels = config, sample, labels
        self._distance = distance
        self._items = {entity.key: entity.table() for entity in entities}
        self._entity_of: dict[str, Entity] = {}
        for entity in entities:
            self._entity_of |= dict.fromkeys(entity.table().column_names, entity.entity)
        self._result = InferredSchema(config)
        self._fields: list[FieldSpec] = []
        self._times: npt.NDArray[np.float64] | None = None  # of the rows

    def run(self) -> InferredSchema:
        features = self._config.features
        names = [n for n in self._sample.column_names if n not in self._skipped()]
        of_events = [n for n in names if n not in self._entity_of]
        rows, warnings = self._sample.select(of_events), self._result.warnings
        weight = features.sample_weight or find_weight(rows, warnings)
        names = [n for n in names if n != weight]
        profiles = {
            n: profile_column(n, self._sample[n], self._labels, self._distance) for n in names
        }
        self._strength = {n: p.label.auc_by_bucket for n, p in profiles.items()}
        roles = find_roles(features, self._sample, profiles)
        if roles.timestamp is not None:
            self._times = row_times(self._sample, roles.timestamp, roles.time_format)
        own = {n: p for n, p in profiles.items() if n in of_events and p.num_distinct > 1}
        self._copies = find_copies(self._sample, own)
        for name, profile in profiles.items():
            self._decide(name, profile, roles)
        self._look_at_texts(profiles)
        used, outcome = [f.source for f in self._fields], features.label.column
        self._result.warnings += named_after_leaks(profiles, used, outcome)
        self._result.warnings += map(told_inexact, inexact_ids(self._sample, self._fields))
        amounts = {name: one.numbers for name, one in profiles.items() if name in used}
        self._result.warnings += told_currencies(amounts)
        self._limit_buckets()
        if roles.timestamp is None:
            self._result.warnings += maybe_row_times(self._fields)
        if not self._fields:
            raise DataError(
                f"{self._config.files[0]} has no column to predict the label from: "
                + ("; ".join(f"{k}: {v}" for k, v in list(self._result.excluded.items())[:5]))
                + ("" if self._result.excluded else "the label is all it has")
                + "."
            )
        now = None
        if roles.timestamp is not None:
            name = self._unused(f"{roles.timestamp}.epoch_days")
            now = row_time_field(name, roles.timestamp, roles.time_format)
            self._fields = with_times(self._fields, now, self._sample, self._labels)
        self._tie_fields(roles)
        if now is not None:
            self._add_ages(now)
        updated = features.model_copy(
            update={
                **asdict(roles),
                "fields": tuple(self._fields),
                "sample_weight": weight,
                "group": features.group or roles.user_key,
                "excluded": (*features.excluded, *self._result.excluded),
            }
        )
        self._result.dataset = self._config.model_copy(update={"features": updated})
        return self._result

    def _decide(self, name: str, profile: ColumnProfile, roles: Roles) -> None:
        """Add the fields of a column, or leave it out."""
        if not name:
            self._exclude("(no name)", "a column without a name, as row numbers have none")
        elif name == roles.request_id:
            self._exclude(name, "it ties the rows of one request together (features.request_id)")
        elif name == roles.timestamp:
            self._add_parts(row_time_fields(name, roles.time_format, self._sample[name]))
        elif name in self._copies and name not in roles.keys:
            self._exclude(name, f"the same as {self._copies[name]} in every row", True)
        elif not self._is_left_out(profile, roles):
            self._add(profile, roles)

    def _tie_fields(self, roles: Roles) -> None:
        """Look at what fields tell together."""
        later = None if self._times is None else self._times > np.nanmedian(self._times)
        sample = Sample(
            self._sample, self._labels, roles.user_key, self._items, later, self._distance
        )
        draft = tied(Draft(tuple(self._fields)), sample)
        self._fields = list(draft.fields)
        self._result.warnings += draft.warnings
        for name, why in draft.excluded.items():
            self._exclude(name, why, True)

    def _look_at_texts(self, profiles: Mapping[str, ColumnProfile]) -> None:
        """Warn of texts that are a sign of something else."""
        for name, profile in profiles.items():
            if profile.texts.max_lines > _MANY_LINES:
                self._warn(
                    f"{name} holds a text of {profile.texts.max_lines} lines; if a quote is not "
                    "closed there, rows are lost: set source.quoting to false"
                )
        sized = {f.source for f in self._fields if f.kind == "numeric"}
        many = [p for p in profiles.values() if p.name in sized and p.num_distinct > _MANY_VALUES]
        found = [(p.name, p.numbers.not_a_number) for p in many]
        mixed = [f"{name} ({text!r})" for name, text in found if text is not None]
        if mixed:
            self._warn(
                "numbers and texts stand together in "
                + ", ".join([*mixed[:_NAMED], *(["…"] if len(mixed) > _NAMED else [])])
                + ": their values are categories, and the numbers' size a field beside them; if "
                "such texts mean missing, leave them empty"
            )

    def _skipped(self) -> set[str]:
        features = self._config.features
        roles = [c for c in (features.request_id, features.soft_label) if c]
        skipped = {*features.label.columns(), *features.excluded, *roles}
        dates = self._config.source.dates
        return skipped.union(name for name in dates if skipped.intersection(dates[name]))

    def _is_left_out(self, profile: ColumnProfile, roles: Roles) -> bool:
        """Leave out sure leaks, what tells nothing and what passes; warn of likely leaks."""
        leak = find_leak(profile)
        if leak is not None and leak.certain:
            self._exclude(profile.name, leak.why, True)
            return True
        if self._useless(profile, roles.keys):
            return True
        if profile.name not in roles.keys and (why := self._why_passing(profile)):
            self._exclude(profile.name, why, True)
            return True
        if leak is not None:
            self._warn(leak.why)
        return False

    def _useless(self, profile: ColumnProfile, keys: Sequence[str | None]) -> bool:
        if profile.unusable is not None:
            self._exclude(profile.name, profile.unusable, True)
        elif NUMBERING.fullmatch(profile.name.lower()) and profile.may_number_rows:
            self._exclude(profile.name, "a row number by its name")
        elif profile.num_known == 0:
            self._exclude(profile.name, "always missing")
        elif profile.num_distinct < 2 and profile.num_known == profile.num_rows:
            self._exclude(profile.name, "constant")
        elif profile.name in keys or profile.is_list or profile.num_known < 50:
            return False
        elif (
            profile.unique_share > 0.95
            and profile.numbers.looks_hashed
            and not profile.label.size_tells
        ):
            why = "a hash that is different in (nearly) every row"
            if not is_id_name(profile.name) and may_be_time(self._sample, profile):
                why = "it looks like a time; if it is the row's own, name it in features.timestamp"
            self._exclude(profile.name, why, True)
        elif (
            profile.unique_share > 0.95
            and profile.is_number
            and profile.numbers.is_integer
            and (profile.numbers.sequential or is_id_name(profile.name))
        ):
            self._exclude(profile.name, "an id, different in (nearly) every row", True)
        elif profile.numbers_rows and not profile.label.size_tells:
            self._exclude(profile.name, "a numbering of the rows, in some order", True)
        elif profile.unique_share > 0.95 and self._is_unique_text(profile):
            self._exclude(profile.name, "a text that is different in (nearly) every row", True)
        else:
            return False
        return True

    def _why_passing(self, profile: ColumnProfile) -> str | None:
        """Why a column tells nothing of later rows, such as an id of one visit; None: it may."""
        if self._times is None or profile.is_list:
            return None
        texts, bare = profile.texts, profile
        if prefix_lengths(texts.parts):
            bare = replace(profile, texts=replace(texts, parts=None))
        return why_passing(
            profile,
            self._sample[profile.name],
            self._times,
            self._labels,
            is_id=is_id_name(profile.name),
            is_code=texts.mean_words == 1 and self._is_unique_text(bare),
        )

    def _is_unique_text(self, profile: ColumnProfile) -> bool:
        return (
            not (profile.is_number or profile.has_sizes)
            and not (profile.lists.length or profile.lists.ordered)
            and not profile.is_temporal
            and profile.texts.mean_words < TEXT_WORDS
            and profile.lists.separator is None
            and profile.texts.parts is None
            and text_format(self._sample[profile.name].slice(0, 200)) is None
        )

    def _exclude(self, name: str, why: str, warn: bool = False) -> None:
        self._result.excluded[name] = why
        if warn:
            self._warn(f"{name} is left out: {why}")

    def _warn(self, text: str) -> None:
        self._result.warnings.append(text)

    def _entity(self, name: str, roles: Roles) -> Entity:
        if name in self._entity_of:
            return self._entity_of[name]
        if name == roles.user_key or name.lower().startswith("user_"):
            return "user"
        return "item" if name == roles.item_key or name.lower().startswith("item_") else "context"

    def _add_parts(self, parts: Iterable[FieldSpec]) -> None:
        """Parts of a time, under names that no column has."""
        for spec in parts:
            self._fields.append(spec.model_copy(update={"name": self._unused(spec.name)}))

    def _unused(self, name: str) -> str:
        return unused_name(name, self._sample.column_names)

    def _add(self, profile: ColumnProfile, roles: Roles) -> None:
        entity = self._entity(profile.name, roles)
        is_key = profile.name in roles.keys
        for spec in decide(profile, self._sample[profile.name], is_key):
            name = spec.name if spec.name == profile.name else self._unused(spec.name)
            changed: dict[str, object] = {"name": name, "entity": entity}
            is_number = spec.kind == "numeric" or (spec.kind == "categorical" and profile.is_number)
            if is_number and not spec.derive and profile.name in self._commas:
                changed["decimal"] = ","
            self._fields.append(spec.model_copy(update=changed))
            if spec.derive == "epoch_days":
                date = self._fields[-1]
                self._add_parts(date_fields(date, self._sample[date.source], self._labels))

    def _add_ages(self, now: FieldSpec) -> None:
        """How long before the row its dates are."""
        ages, warnings = age_fields(self._fields, now, self._sample, self._labels)
        self._result.warnings += warnings
        self._add_parts(ages)
        if ages:
            self._fields.append(now)

    def _limit_buckets(self) -> None:
        """Buckets for the numbers that tell most of the label only."""
        strength = {f.name: self._strength.get(f.source, 0.5) for f in self._fields if f.buckets}
        weak = sorted(strength, key=lambda name: -strength[name])[_MAX_BUCKETED:]
        for at, spec in enumerate(self._fields):
            if spec.name in weak:
                self._fields[at] = spec.model_copy(update={"buckets": None})
