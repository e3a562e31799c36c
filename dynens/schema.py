"""What a dataset is: its fields, its label, its files and how it is split (`dataset.yaml`)."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, field_validator, model_validator

from dynens.config.base import FrozenConfig, load_yaml, validate
from dynens.errors import SchemaError
from dynens.rules import LabelRule
from dynens.ties import check_apart, check_crossed, check_dots, check_shared, check_through

FieldKind = Literal["categorical", "numeric", "multi_valued", "dense_vector"]
Entity = Literal["user", "item", "context"]
TimePart = Literal["hour", "weekday", "day", "month", "epoch_days"]
TimeFormat = Literal["auto", "day_first", "yymmddhh", "yyyymmddhh", "yyyymmdd", "excel", "count"]
Transform = Literal["quantile", "standard", "log", "none"]
Decimal = Literal[".", ","]


class VocabularyPolicy(FrozenConfig):
    """Which values of a field get an id of their own; the others share id 0.

    Attributes:
        min_count: occurrences in the training rows below which a value has no id.
        max_size: number of values kept, the most frequent first.
        hash_buckets: hash values into so many ids instead of keeping a vocabulary.
    """

    min_count: int = Field(default=2, ge=1)
    max_size: int = Field(default=1_000_000, ge=1)
    hash_buckets: int | None = Field(default=None, ge=2)


class FieldSpec(FrozenConfig):
    """One feature.

    Attributes:
        name, kind: the feature's name, and how it is encoded.
        entity: whose property it is; `item` fields vary between the candidates of a request.
        column: the column it is read from; None: the column called `name`.
        derive: the part of a date or time column to use instead of the value itself.
        time_format: how to read the column when `derive` is given.
        local: then read 10:00+02:00 as ten o'clock, which the clock showed, not in UTC.
        vocabulary: policy of categorical and multi-valued fields.
        vocabulary_of: another such field, some of whose values these are too (a history's items).
            They then have its ids, and how often they stand in both fields of a row is a feature.
        share: whether the share of its values that this other field has, too, is a feature as well.
        separator: of texts; None: white space; "": characters (no spaces); "/?&#": each of these;
            "\\W": any punctuation and white space; "\\^": a caret; "^": values are the first one to
            four characters, "^9": nine more each; "^.": what is before each of the first dots, and
            the whole; "\\,:": commas, without weights behind colons; "\\d": numbers among words.
        fold_words: of multi-valued texts: capitals, and punctuation around a value, say nothing.
        max_len: values of a multi-valued field kept; None: chosen on the training rows.
        keep: which values stay when there are more than `max_len`.
        transform: of numeric fields: `quantile` maps to a normal distribution by rank,
            `standard` to mean 0 and deviation 1, `log` is sign(x)·log(1+|x|) standardised.
        apart_from: of numeric fields, another one that measures the same (the date of a booking and
            that of the stay). This one is then on its scale, which is `standard` or `log`, and how
            far apart the two are in a row is a feature.
        only_apart: of such numeric fields: they are no feature by themselves, only how far apart
            they are. Their scale then has no end: the time of the row goes on after training.
        dot_with: of dense vectors, another one of the same length (user and item of a two-tower
            model). All their components have one scale, and their dot product is a feature.
        buckets: also give a numeric field a sparse twin of so many quantile buckets.
        length: components of a dense vector.
        decimal: of numbers given as texts, also of categories, what stands before the decimals.
        sentinels: of numeric fields: whether a number that comes again and again far from all
            others (-999, 1e30) is missing (`dynens.data.encoding.sentinels`).
        crossed: of categorical fields, two others whose pairs of values are the categories (a
            route: where it starts and where it ends); nothing is read from a column then.
        through: of multi-valued fields, a list and the field that its values are of (a history and
            the item). The values of this field are then what `vocabulary_of` is for each of them
            (the history's categories), as the item tables and the training rows tell; nothing is
            read from a column, and what is kept of a list and has an id is said of those two.
        unit: of numbers given as texts, what may stand behind a number and a space (`km`); `m:ss`
            where `3:45` is minutes and seconds; `dhms` for lengths of time in several units (`45m`,
            `2d 3h`, `3 weeks ago`); `*` for any words (`Based on 2,253 reviews`).
        why: the evidence for this choice (written by `schema infer`, ignored otherwise).
    """

    name: str = Field(min_length=1)
    kind: FieldKind = "categorical"
    entity: Entity = "context"
    column: str | None = None
    derive: TimePart | None = None
    time_format: TimeFormat = "auto"
    local: bool = False
    vocabulary: VocabularyPolicy = VocabularyPolicy()
    vocabulary_of: str | None = None
    share: bool = False
    separator: str | None = ","
    fold_words: bool = False
    max_len: int | None = Field(default=None, ge=1, le=1000)
    keep: Literal["first", "last"] = "first"
    transform: Transform = "quantile"
    apart_from: str | None = None
    only_apart: bool = False
    dot_with: str | None = None
    buckets: int | None = Field(default=None, ge=2, le=4096)
    length: int | None = Field(default=None, ge=1, le=65536)
    decimal: Decimal = "."
    sentinels: bool = True
    unit: str | None = Field(default=None, pattern=r"^([a-zµ°][a-zµ°²³/.]*[23]?|m:ss|[*])$")
    crossed: tuple[str, str] | None = None
    through: tuple[str, str] | None = None
    why: str | None = None

    @property
    def source(self) -> str:
        """The column this feature is read from; without one (`is_read`) its name."""
        return self.column or self.name

    @property
    def is_read(self) -> bool:
        """Whether it has a column, and is not made of other fields."""
        return self.crossed is None and self.through is None

    @model_validator(mode="after")
    def _consistent(self) -> FieldSpec:
        if self.kind == "dense_vector" and self.length is None:
            raise ValueError(f"dense vector {self.name!r} has no length; give its components")
        if self.derive and self.kind not in ("categorical", "numeric"):
            raise ValueError(
                f"field {self.name!r} derives {self.derive!r} but is {self.kind}; "
                "a part of a date is categorical or numeric"
            )
        if self.only_apart and (self.kind != "numeric" or self.buckets):
            raise ValueError(
                f"field {self.name!r} is only_apart, which numeric fields without buckets can be"
            )
        if self.fold_words and self.kind != "multi_valued":
            raise ValueError(
                f"field {self.name!r} folds words but is {self.kind}; "
                "only the values of a multi-valued field are words"
            )
        return self


class FeatureSchema(FrozenConfig):
    """The meaning of every column used.

    Attributes:
        fields: the features; empty: inferred from the training file.
        label: the label rule.
        timestamp: the column with the time of the row, for time splits and past-only statistics.
        time_format: how to read it.
        group: the column whose values GAUC groups by (usually the user's id).
        request_id: the column that ties the candidates of one request together.
        sample_weight: a column of positive weights.
        soft_label: a column of probabilities that another model gave the rows (an earlier run's
            `predict`, another site's), for the student to learn from as `distill.soft_label` says;
            never a feature, and empty where that model did not answer.
        negative_sampling_rate: share of the negatives that were kept when the log was made;
            negatives then weigh 1 / rate, in training, calibration and evaluation alike, so that
            served probabilities are those of the full traffic.
        excluded: columns never to be used as features.
        user_key: the column that identifies the user.
        item_key: the column that identifies the item.
    """

    label: LabelRule
    fields: tuple[FieldSpec, ...] = ()
    timestamp: str | None = None
    time_format: TimeFormat = "auto"
    group: str | None = None
    request_id: str | None = None
    sample_weight: str | None = None
    soft_label: str | None = None
    negative_sampling_rate: float = Field(default=1.0, gt=0, le=1)
    excluded: tuple[str, ...] = ()
    user_key: str | None = None
    item_key: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> FeatureSchema:
        names = [f.name for f in self.fields]
        twice = {n for n in names if names.count(n) > 1}
        if twice:
            raise ValueError(f"field {min(twice)!r} is declared twice; names must be unique")
        outcome = self.label.outcome_columns()
        check_shared(self.fields)
        check_apart(self.fields)
        check_dots(self.fields)
        check_crossed(self.fields)
        check_through(self.fields)
        for role in ("timestamp", "request_id", "group", "user_key", "item_key"):
            if getattr(self, role) in outcome:
                raise ValueError(
                    f"{role} names the label column {getattr(self, role)!r}, which no request has; "
                    "name another or leave it out"
                )
        for spec in self.fields:
            if spec.source in outcome:
                raise ValueError(
                    f"field {spec.name!r} reads the label column {spec.source!r}; "
                    "a label cannot be a feature"
                )
            if spec.source in self.excluded:
                raise ValueError(f"field {spec.name!r} reads the excluded column {spec.source!r}")
            if spec.source == self.soft_label:
                raise ValueError(
                    f"field {spec.name!r} reads the soft_label column {spec.source!r}, which no "
                    "request has; leave the field out"
                )
        return self

    def outcome_columns(self) -> set[str]:
        """The columns that tell of a row's outcome and weight, which no request has."""
        roles = (self.sample_weight, self.soft_label)
        return self.label.columns() | {column for column in roles if column}

    def key_fields(self, key: str | None) -> set[str]:
        """Names of the fields that tell a key: read from its column, or pairs with one of those."""
        read = {f.name for f in self.fields if f.is_read and f.source == key}
        return read | {f.name for f in self.fields if f.crossed and read.intersection(f.crossed)}

    def field(self, name: str) -> FieldSpec:
        """The field called `name`.

        Raises:
            SchemaError: there is none.
        """
        for spec in self.fields:
            if spec.name == name:
                return spec
        known = ", ".join(f.name for f in self.fields)
        raise SchemaError(f"the schema has no field {name!r}; it has {known}.")


class SourceOptions(FrozenConfig):
    """How the text files of a dataset are laid out (other formats describe themselves).

    Attributes:
        delimiter: between values; None: found out from the first line.
        header: whether the first line names the columns.
        columns: names of the columns when there is no header.
        quoting: whether double quotes enclose values.
        decimal: what stands before the decimals of a number, in every numeric field.
        objects: columns whose texts are objects of JSON or Python, or lists of them, in files of
            any format, with the keys that are read: of `meta: [os, app.version]` the columns
            `meta.os` and `meta.app.version`; of `tags: []` the column `tags`, lists of the keys.
        dates: columns that are put together, each of those of its year, month and day.
    """

    delimiter: str | None = None
    header: bool = True
    columns: tuple[str, ...] = ()
    quoting: bool = True
    decimal: Decimal = "."
    objects: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    dates: dict[str, tuple[str, str, str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _named(self) -> SourceOptions:
        if not self.header and not self.columns:
            raise ValueError("files without a header need the names of their columns")
        return self


DEFAULT_SOURCE = SourceOptions()


Files = Annotated[tuple[str, ...], BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)]


class EntityTable(FrozenConfig):
    """A table of user or item features, joined by key.

    Attributes:
        files: its file or files (globs allowed).
        entity: whose features it holds.
        key: the key's column in the interactions.
        key_in_table: the key's column in this table (`id` of `item_id`); None: of the same name.
    """

    files: Files
    entity: Literal["user", "item"]
    key: str
    key_in_table: str | None = None


class SplitConfig(FrozenConfig):
    """How rows are cut into train, valid and test.

    Attributes:
        by: `time` (needs a timestamp), `random`, `group` (all rows of a group together), `files`
            (as given; what is missing is cut from train) or `auto` (time where cut points are given
            or the schema has a timestamp, else random).
        fractions: of train, valid and test; None: 80/10/10, or 70/15/15 below 10,000 rows or
            500 of the rarer class, where a tenth is too few to choose and calibrate on.
        valid_from: first time of validation, in the timestamp's own terms; None: by fraction.
        test_from: first time of test.
        stratify: keep the label's share equal between random splits.
    """

    by: Literal["auto", "time", "random", "group", "files"] = "auto"
    fractions: tuple[float, float, float] | None = None
    valid_from: str | int | float | None = None
    test_from: str | int | float | None = None
    stratify: bool = True

    @field_validator("valid_from", "test_from", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, date) else value  # as YAML reads 2024-05-03

    @model_validator(mode="after")
    def _consistent(self) -> SplitConfig:
        given = self.fractions
        if given is not None and (min(given) <= 0 or abs(sum(given) - 1) > 1e-6):
            raise ValueError(f"split fractions {list(given)} must be positive and sum to 1")
        if (self.valid_from is None) != (self.test_from is None):
            raise ValueError("give both valid_from and test_from, or neither")
        if self.valid_from is not None and self.by in ("random", "group"):
            raise ValueError(f"valid_from cuts by time, but the split is by {self.by!r}")
        return self


DEFAULT_SPLIT = SplitConfig()


_PARTS = ("files", "valid_files", "test_files", "unlabelled_files")


class DatasetConfig(FrozenConfig):
    """`dataset.yaml`: interaction files, entity tables, schema and split.

    Relative paths are resolved against the file's folder when it is loaded.

    Attributes:
        name: of the dataset, as reports show it.
        files: the interactions (globs allowed), or the training part of them.
        valid_files: a validation part given as files.
        test_files: a test part given as files.
        unlabelled_files: rows that train without a label, of which these files need have none.
        features: the schema.
        entities: tables joined by key.
        split: how rows are cut.
        source: layout of text files.
        statistics: which past a training row's target and count encodings may see; `auto` is
            `past` for time splits and `out_of_fold` otherwise.
    """

    name: str = "dataset"
    files: Files = Field(min_length=1)
    valid_files: Files = ()
    test_files: Files = ()
    unlabelled_files: Files = ()
    features: FeatureSchema
    entities: tuple[EntityTable, ...] = ()
    split: SplitConfig = DEFAULT_SPLIT
    source: SourceOptions = DEFAULT_SOURCE
    statistics: Literal["auto", "out_of_fold", "past"] = "auto"

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """The files given as train, valid, test and unlabelled."""
        return self.files, self.valid_files, self.test_files, self.unlabelled_files

    @model_validator(mode="after")
    def _split_possible(self) -> DatasetConfig:
        if self.split.by == "time" and self.features.timestamp is None:
            raise ValueError("a split by time needs features.timestamp")
        if self.split.by == "group" and self.features.group is None:
            raise ValueError("a split by group needs features.group")
        return self

    def resolved(self, base: Path) -> DatasetConfig:
        """The same with every path absolute."""
        given = [*self.parts, *(entity.files for entity in self.entities)]
        files = [tuple(str(base / file) for file in names) for names in given]
        tables = zip(self.entities, files[len(_PARTS) :], strict=True)
        entities = tuple(e.model_copy(update={"files": names}) for e, names in tables)
        parts = dict(zip(_PARTS, files, strict=False))
        return self.model_copy(update={**parts, "entities": entities})


def load_dataset(path: Path) -> DatasetConfig:
    """Read `dataset.yaml`.

    Raises:
        ConfigError: it cannot be read or breaks a rule.
    """
    config = validate(DatasetConfig, load_yaml(path), str(path))
    if config.name == "dataset":
        config = config.model_copy(update={"name": path.stem})
    return config.resolved(path.resolve().parent)


def dump_dataset(config: DatasetConfig, header: str = "") -> str:
    """`config` as YAML, defaults left out; `header` lines become comments."""
    data = config.model_dump(mode="json", exclude_defaults=True)
    comments = "".join(f"# {line}\n" if line else "#\n" for line in header.splitlines())
    return comments + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
