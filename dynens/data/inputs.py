"""Files to score or evaluate on: read like the training files, with an eye on what they lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dynens.batch import MISSING, OUT_OF_VOCABULARY, EncodedBatch
from dynens.data.columns import (
    number_columns,
    numeric_fields,
    refuse_times,
    time_columns,
)
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.fields import CategoricalEncoder, DenseVectorEncoder, misfits
from dynens.data.inference.amounts import inexact_ids, told_inexact
from dynens.data.names import folded
from dynens.data.reading.layouts import told_names
from dynens.data.reading.lists import split_lists
from dynens.data.reading.numbers import MAX_UNREADABLE_SHARE, to_numbers
from dynens.data.reading.objects import opened
from dynens.data.reading.sources import iter_tables
from dynens.data.reading.split_dates import dated
from dynens.data.reading.times import to_seconds, unreadable_times
from dynens.data.reading.values import canonical_texts, one_line, plain
from dynens.errors import DataError
from dynens.schema import DatasetConfig, SourceOptions

_MOSTLY, _ENOUGH_VALUES = 0.9, 20
_LOOKED_AT = 1000  # rows


@dataclass
class _Unfit:
    """Values of one column that its field cannot read, for one reason."""

    is_refused: bool
    count: int = 0
    example: str | None = None


class InputFiles:
    """The rows of a file or glob for an encoder that is fitted.

    Args:
        source: the file or glob.
        dataset: the resolved configuration the encoder was fitted with.
        encoder: fitted.

    Attributes:
        warnings: what counts as missing, and why; complete when all rows are read.
    """

    def __init__(self, source: str, dataset: DatasetConfig, encoder: RowEncoder) -> None:
        self.source, self.dataset, self.encoder = source, dataset, encoder
        self.warnings: list[str] = []
        self._absent: list[str] = []
        self._empty: set[str] = set()
        self._filled: set[str] = set()
        self._unfit: dict[tuple[str, str], _Unfit] = {}
        self._values: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._codes = _codes_with_zeros(encoder)
        self._lost_zeros: Counter[str] = Counter()
        self._inexact: set[str] = set()

    @property
    def layout(self) -> SourceOptions:
        """How the files are read as they stand: objects as texts, parts of dates alone."""
        return self.dataset.source.model_copy(update={"objects": {}, "dates": {}})

    @property
    def known(self) -> list[str]:
        """Columns that rows have, whether a file shows them or not."""
        return [field.name for field in self.encoder.input_fields]

    def tables(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """Chunks of rows: (as they stand in the file, numbers parsed and ready to encode).

        Raises:
            DataError: the file is bad, has none of the columns or spells one in another way, or a
                numeric column holds too many texts.
        """
        rows = 0
        for _, verbatim in iter_tables([self.source], self.layout, verbatim=True, known=self.known):
            layout = self.dataset.source
            table = dated(opened(verbatim, layout.objects), layout.dates)
            self._look_for_columns(table)
            self._look_for_values(table)
            self._look_at_vectors(table)
            self._look_at_times(table)
            self._look_at_zeros(table)
            self._inexact.update(inexact_ids(table, self.dataset.features.fields))
            rows += table.num_rows
            yield verbatim, self._with_numbers(table)
        self._settle(rows)

    def encoded(self, batch: EncodedBatch) -> EncodedBatch:
        """The rows, once their unknown values are counted."""
        for field, columns in self.encoder.layout.columns():
            ids = batch.ids[:, columns]
            self._values[field.name] += int((ids >= 0).sum() - (ids == MISSING).sum())
            self._unknown[field.name] += int((ids == OUT_OF_VOCABULARY).sum())
        return batch

    def _look_for_columns(self, table: pa.Table) -> None:
        present = set(table.column_names)
        joined = {e.entity for e in self.encoder.entities if e.key in present}
        fields = self.encoder.input_fields
        absent = [f.name for f in fields if f.name not in present and f.entity not in joined]
        self._refuse_other_spelling(absent, present)
        if len(absent) == len(fields):
            raise DataError(
                f"{self.source} has none of the model's columns ({_some(absent)}); "
                "give a table like the one the run was trained on."
            )
        self._absent += [name for name in absent if name not in self._absent]

    def _refuse_other_spelling(self, absent: Collection[str], present: Collection[str]) -> None:
        """Check that no absent column is there under another spelling, which nothing reads."""
        others = {folded(name): name for name in sorted(set(present) - set(self.known))}
        alike = {name: others[folded(name)] for name in absent if folded(name) in others}
        for name, other in alike.items():
            raise DataError(
                f"{self.source} has a column {other!r} but the run's table calls it {name!r}"
                + (f", and {len(alike) - 1} more in another spelling" if len(alike) > 1 else "")
                + "; rename it, or remove it if it is another one."
            )

    def _look_for_values(self, table: pa.Table) -> None:
        """Tell columns that hold a value from those that have none yet."""
        for name in {field.name for field in self.encoder.input_fields} - self._filled:
            if name in table.column_names:
                told = self._filled if _holds_a_value(table[name]) else self._empty
                told.add(name)
        self._empty -= self._filled

    def _with_numbers(self, table: pa.Table) -> pa.Table:
        """Texts that numeric fields read, looked at, and parsed where no other field reads them."""
        features = self.dataset.features
        refuse_times(
            features, dict(zip(table.column_names, table.schema.types, strict=True)), self.source
        )
        parsed = number_columns(features, table.schema)
        numeric = numeric_fields(features)
        # Of a category that is a number too, other texts are new categories.
        kinds = {f.name: f.kind for f in self.encoder.input_fields}
        for name in sorted(numeric.keys() & set(table.column_names)):
            kind, spec = table.schema.field(name).type, numeric[name]
            is_read = pa.types.is_string(kind) or pa.types.is_floating(kind)
            if not is_read or kinds.get(name) == "categorical":
                continue
            numbers = to_numbers(table[name], spec.decimal, spec.unit)
            alone = name not in self.encoder.text_columns
            where = f"numeric column {name!r}" if alone else f"numeric field {spec.name!r}"
            unreadable, example = numbers.num_unreadable, numbers.example
            self._note(where, "infinite", numbers.num_infinite, is_refused=False)
            self._note(where, "no numbers", unreadable, example, is_refused=alone)
            if pa.types.is_string(kind) and name in parsed:
                values = pa.array(numbers.values, from_pandas=True)
                table = table.set_column(table.column_names.index(name), name, values)
        return table

    def _look_at_times(self, table: pa.Table) -> None:
        """Count texts that are no times."""
        for name, time_format in time_columns(self.dataset.features).items():
            if name in table.column_names:
                seconds = to_seconds(table[name], time_format)
                count, example = unreadable_times(table[name], seconds)
                self._note(f"column {name!r}", "no dates or times", count, example)

    def _look_at_vectors(self, table: pa.Table) -> None:
        """Count lists that are no vectors of their field."""
        for encoder in self.encoder.encoders:
            name = encoder.spec.source
            if not isinstance(encoder, DenseVectorEncoder) or name not in table.column_names:
                continue
            if encoder.texts_are_missing:
                continue
            size = len(encoder.mean)
            flat, lengths = split_lists(table[name], encoder.spec.separator)
            numbers = to_numbers(flat)
            bad = np.flatnonzero(misfits(numbers.values, lengths, size))
            example = str(table[name][int(bad[0])].as_py()) if len(bad) else None
            where = f"column {name!r}"
            self._note(where, f"no vectors of {size} numbers", len(bad), example)
            self._note(where, "vectors of texts", numbers.num_unreadable, numbers.example)

    def _look_at_zeros(self, table: pa.Table) -> None:
        """Count codes that lost the zeros in front of them, as where they were read as numbers."""
        for name, known in self._codes.items():
            if name not in table.column_names:
                continue
            texts = canonical_texts(plain(table[name])).drop_null()
            width = pc.max(pc.utf8_length(known)).as_py()
            lost = pc.and_(
                pc.invert(pc.is_in(texts, known)),
                pc.is_in(pc.utf8_lpad(texts, width, padding="0"), known),
            )
            self._lost_zeros[name] += pc.sum(lost).as_py() or 0

    def _note(
        self,
        where: str,
        what: str,
        count: int,
        example: str | None = None,
        *,
        is_refused: bool = True,
    ) -> None:
        """Count values that are missing to the encoder; many of them may be `is_refused`."""
        found = self._unfit.setdefault((where, what), _Unfit(is_refused))
        found.count += count
        found.example = found.example or example

    def _settle(self, rows: int) -> None:
        self.warnings += told_names([self.source], self.layout)
        if self._absent:
            self.warnings.append(f"{self.source} lacks {_some(self._absent)}: missing in every row")
        # A key is hardly ever missing; others may be in a handful of rows.
        keys = {
            self.encoder.user_key,
            self.encoder.item_key,
            *(e.key for e in self.encoder.entities),
        }
        if empty := [n for n in self._empty if n in keys or rows >= _ENOUGH_VALUES]:
            self.warnings.append(f"{self.source} has no value of {_some(empty)} in any row")
        for (where, what), found in self._unfit.items():
            if not found.count:
                continue
            such = "" if found.example is None else f" (such as {one_line(found.example)})"
            text = f"{self.source}: {where} holds {found.count} values that are {what}{such}"
            if found.is_refused and found.count > MAX_UNREADABLE_SHARE * rows:
                raise DataError(f"{text}; correct the file.")
            self.warnings.append(f"{text}, which count as missing")
        self.warnings += [f"{self.source}: {told_inexact(n)}" for n in sorted(self._inexact)]
        for name, count in self._lost_zeros.items():
            if count > MAX_UNREADABLE_SHARE * rows:
                self.warnings.append(
                    f"{self.source}: {count} values of {name!r} would be known with zeros in "
                    "front, as they had in training (01067, not 1067); write them as texts"
                )
        made = {e.spec.name for e in self.encoder.encoders if not e.spec.is_read}
        for name, count in self._unknown.items():
            if name in made:
                continue
            if count > _MOSTLY * self._values[name] and self._values[name] >= _ENOUGH_VALUES:
                self.warnings.append(
                    f"{self.source}: {count / self._values[name]:.0%} of the values of {name!r} "
                    "were not there in training; are they spelled as they were?"
                )


def _codes_with_zeros(encoder: RowEncoder) -> dict[str, pa.StringArray]:
    """The known values of columns of codes of equally many digits, some with zeros in front."""
    found = {}
    for one in encoder.encoders:
        if not isinstance(one, CategoricalEncoder) or one.spec.derive or not one.spec.is_read:
            continue
        values = one.vocabulary.values
        digits = pc.match_substring_regex(values, "^[0-9]{2,}$")
        zeros = pc.starts_with(values, "0")
        lengths = pc.count_distinct(pc.utf8_length(values)).as_py()
        if lengths == 1 and pc.all(digits).as_py() and pc.any(zeros).as_py():
            found[one.spec.source] = values
    return found


def _holds_a_value(column: pa.ChunkedArray) -> bool:
    """Whether it is not missing in every row."""
    if pa.types.is_nested(column.type):
        return bool(column.null_count < len(column))
    parts = (column.slice(0, _LOOKED_AT), column)  # the first rows nearly always tell
    return any(texts.null_count < len(texts) for texts in map(canonical_texts, map(plain, parts)))


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"
