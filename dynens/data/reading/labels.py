"""From an outcome column to labels in {0, 1}."""

from __future__ import annotations

import difflib
import operator
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.reading.heads import NO_HEADER, hold_numbers
from dynens.data.reading.numbers import Numbers, to_numbers, unit_of
from dynens.data.reading.spelled import parse_number, with_points
from dynens.data.reading.values import (
    MISSING_SPELLINGS,
    canonical_codes,
    canonical_texts,
    one_line,
    plain,
)
from dynens.errors import DataError, SchemaError
from dynens.rules import Comparison, LabelRule

_POSITIVE_WORDS = (
    "1",
    "yes",
    "y",
    "t",
    "ja",
    "oui",
    "sí",
    "si",
    "sim",
    "click",
    "clicked",
    "positive",
    "pos",
    "buy",
    "converted",
)
_NEGATIVE_WORDS = ("0", "-1", "no", "n", "f", "negative", "neg", "none", "noclick", "not clicked")
# Codes of rows that are left out, and of those that have no label.
DROPPED, NO_LABEL = -1, -2
_MAX_DISTINCT = 1000
_FEW_TEXTS, _SHOWN = 20, 12
_MAYBE_THOUSANDS = r"[0-9],[0-9]{3}([^0-9]|$)"
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


def compare(column: pa.ChunkedArray, rule: Comparison) -> tuple[npt.NDArray[np.bool_], Any]:
    """((B,) whether the rule holds, (B,) whether the value is known).

    A rule such as `clicked_at != NA` asks whether there is a value, which is known of every row.

    Raises:
        SchemaError: an order is asked of values that are no numbers.
    """
    if rule.op in ("==", "!=") and rule.value in MISSING_SPELLINGS:
        is_missing = canonical_codes(column)[1] < 0
        return is_missing == (rule.op == "=="), np.ones(len(column), np.bool_)
    limit = parse_number(rule.value)
    compared = _OPERATORS[rule.op]
    numbers = outcome_numbers(column) if limit is not None else None
    if numbers is not None and numbers.is_plain:
        with np.errstate(invalid="ignore"):
            return compared(numbers.values, limit), ~np.isnan(numbers.values)
    if rule.op not in ("==", "!="):
        text = f"rule '{rule.column} {rule.op} {rule.value}'"
        if numbers is None:
            raise SchemaError(f"{text} orders by {rule.value!r}, which is no number; use == or !=.")
        other = "ranges" if numbers.example is None else one_line(numbers.example)
        raise SchemaError(
            f"{text} orders numbers, but {rule.column!r} holds {other}; write numbers, leave such "
            "values empty, or compare with == or !=."
        )
    texts, codes = canonical_codes(column)
    value = _word(rule.value)
    wanted = np.array([compared(_word(text), value) for text in texts.to_pylist()] + [False])
    return wanted[codes], codes >= 0


def _word(text: str) -> str:
    """An outcome without what says nothing: letter case, and a full stop (`>50K.`) at its end."""
    return text.lower().removesuffix(".") or text


def outcome_words(column: pa.ChunkedArray) -> set[str]:
    """The outcomes in a column, as they are told apart where there is no rule."""
    values = plain(column)
    if pa.types.is_nested(values.type):
        return set()  # refused when labels are read
    return set(map(_word, canonical_texts(values).drop_null().unique().to_pylist()))


def outcome_numbers(column: pa.ChunkedArray) -> Numbers:
    """A column as numbers, `5 stars` too; `4,5` is four and a half, unless `1,234` is there."""
    numbers = to_numbers(column)
    texts = plain(column)
    if numbers.is_plain or not pa.types.is_string(texts.type):
        return numbers
    unit = unit_of(texts)
    numbers = to_numbers(texts, unit=unit)
    if numbers.is_plain:
        return numbers
    if pc.any(pc.match_substring_regex(texts, _MAYBE_THOUSANDS)).as_py():
        return numbers
    odd = pa.array(np.isnan(numbers.values))
    return to_numbers(pc.if_else(odd, with_points(texts), texts), unit=unit)


class LabelReader:
    """Reads outcomes chunk by chunk, and settles afterwards which value is positive.

    With a rule, labels are known at once; without one, a row's label is a code until `resolve`.
    """

    def __init__(self, rule: LabelRule) -> None:
        self.rule = rule
        self.num_unlabelled = 0
        self._values: dict[str, int] = {}
        self._counts: dict[int, int] = {}

    def read(self, table: pa.Table) -> npt.NDArray[np.int16]:
        """(B,) codes: `DROPPED`, `NO_LABEL`, or an index into `labels_by_code`.

        Raises:
            DataError: the label column is absent, has too many values, or values that are neither
                positive nor negative.
        """
        column = _column(table, self.rule.column)
        set_aside = np.zeros(len(column), np.int64)
        others = (
            (self.rule.comparison("unlabelled"), NO_LABEL),
            (self.rule.comparison("drop"), DROPPED),
        )
        for rule, code in others:
            if rule is not None:
                holds, known = compare(_column(table, rule.column), rule)
                set_aside[holds & known] = code
        positive = self.rule.comparison("positive")
        if positive is not None:
            holds, known = compare(_column(table, positive.column), positive)
            codes = np.where(known, holds, NO_LABEL)
        else:
            codes = self._codes_of_values(column, set_aside == 0)
        codes = np.where(set_aside, set_aside, codes)
        self._count(codes)
        self.num_unlabelled += int((codes == NO_LABEL).sum())
        negative = self.rule.comparison("negative")
        if negative is not None:
            holds, _ = compare(_column(table, negative.column), negative)
            self._refuse_other(column.filter(pa.array((codes == 0) & ~holds)))
        return codes.astype(np.int16)

    def _refuse_other(self, others: pa.ChunkedArray) -> None:
        if len(others):
            raise DataError(
                f"label column {self.rule.column!r} holds {str(others[0])!r}, which is neither "
                f"positive ({self.rule.positive}) nor negative ({self.rule.negative}); write "
                "labels as in the training table."
            )

    def _codes_of_values(
        self, column: pa.ChunkedArray, kept: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        texts, codes = canonical_codes(column)
        used = np.unique(codes[kept & (codes >= 0)])
        code_of = np.full(len(texts) + 1, NO_LABEL, np.int64)  # the last one is of no value
        code_of[used] = [
            self._values.setdefault(_word(text), len(self._values))
            for text in texts.take(pa.array(used)).to_pylist()
        ]
        result: npt.NDArray[np.int64] = code_of[codes]
        return result

    def _count(self, codes: npt.NDArray[np.int64]) -> None:
        """Count the rows that are kept for their label."""
        for code, count in zip(*np.unique(codes[codes >= 0], return_counts=True), strict=True):
            self._counts[int(code)] = self._counts.get(int(code), 0) + int(count)
        self._refuse_many()

    def _refuse_many(self) -> None:
        if len(self._counts) > _MAX_DISTINCT:
            raise DataError(self._not_binary())

    def _present(self) -> dict[str, int]:
        """Rows of every value."""
        return {value: self._counts[code] for value, code in self._values.items()}

    def merge(self, other: LabelReader, codes: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Take over what another reader saw; its codes in this reader's terms.

        Raises:
            DataError: there are too many values.
        """
        self.num_unlabelled += other.num_unlabelled
        mapping = np.arange(max(other._counts, default=1) + 1)
        for value, code in other._values.items():
            mapping = np.pad(mapping, (0, max(code + 1 - len(mapping), 0)))
            mapping[code] = self._values.setdefault(value, len(self._values))
        for code, count in other._counts.items():
            mine = int(mapping[code])
            self._counts[mine] = self._counts.get(mine, 0) + count
        self._refuse_many()
        return np.where(codes < 0, codes, mapping[np.maximum(codes, 0)]).astype(np.int16)

    def _not_binary(self) -> str:
        present = self._present()
        shown = ", ".join(repr(v) for v in list(present)[:5])
        rule = self._example_rule()
        if self.rule.column.lower() in present:
            advice = "one is its own name, so remove the header among the rows"
        elif rule is None:
            advice = "name a column that says yes or no"
        else:
            advice = f"give a rule such as --label '{rule}'"
        return (
            f"label column {self.rule.column!r} is not binary: it has {len(present)} or more "
            f"values ({shown}, …); {advice}."
        )

    def _example_rule(self) -> str | None:
        """A rule that would make two classes of the values seen; None: there are many texts."""
        counts = Counter(self._present())
        numbers = {value: number for value in counts if (number := parse_number(value)) is not None}
        if len(numbers) == len(counts):
            name = self.rule.column
            limit = _dividing([(number, counts[value], value) for value, number in numbers.items()])
            return f"{name if name.isidentifier() else f'`{name}`'} >= {limit}"
        for value in _POSITIVE_WORDS:
            if value in counts:
                return self._shown(value)
        if len(counts) > _FEW_TEXTS:
            return None
        return self._shown(counts.most_common(2)[-1][0])  # the first is what mostly happens

    def labels_by_code(self) -> npt.NDArray[np.float32]:
        """The label each code stands for.

        Raises:
            DataError: there are not exactly two classes.
        """
        if self.rule.positive is not None:
            if len(self._counts) < 2:
                raise DataError(
                    f"the label rule {self.rule.positive!r} gives one class only; a label needs "
                    "positive and negative rows: of a log of what was taken, add what was not"
                    f"{self._about_missing()}."
                )
            return np.array([0.0, 1.0], np.float32)
        present = list(self._present())
        if len(present) == 1:
            raise DataError(
                f"label column {self.rule.column!r} has one value only ({present[0]!r}); "
                f"a label needs positive and negative rows{self._about_missing()}."
            )
        if not present:
            raise DataError(f"label column {self.rule.column!r} has no values.")
        if len(present) > 2:
            raise DataError(self._not_binary())
        positive = self._positive_of(present)
        labels = np.zeros(len(self._values), np.float32)
        labels[self._values[positive]] = 1.0
        return labels

    def _about_missing(self) -> str:
        """What to add where one class is left, and other rows have no value."""
        if not self.num_unlabelled or self.rule.unlabelled is not None:
            return ""
        rule = " != NA".join(self._shown("NA").rsplit(" == NA", 1))
        return (
            f", and {self.num_unlabelled:,} rows have no value (or None, NA and the like); if "
            f"these are the negative ones, give the label as '{rule}'"
        )

    def guess(self) -> str | None:
        """What to tell the user where only its rarity makes a value the positive one."""
        pair = list(self._present())
        if len(pair) != 2 or self._evident(pair) is not None:
            return None
        rarer = self._positive_of(pair)
        other = next(v for v in pair if v != rarer)
        return (
            f"{rarer!r} counts as the positive label, being rarer than {other!r}; if it is the "
            f"other way round, give the label as '{self._shown(other)}'"
        )

    def _positive_of(self, pair: list[str]) -> str:
        rarer = min(pair, key=lambda v: (self._counts[self._values[v]], v))
        return self._evident(pair) or rarer

    def _evident(self, pair: list[str]) -> str | None:
        """The positive value by its meaning, or None."""
        numbers = [parse_number(v) for v in pair]
        if None not in numbers:
            return pair[int(np.argmax(np.array(numbers, np.float64)))]
        for value, other in (pair, pair[::-1]):
            if value in _POSITIVE_WORDS or other in _NEGATIVE_WORDS:
                return value
            if re.fullmatch(rf"(not|no|non)[ _-]?{re.escape(value)}|un{re.escape(value)}", other):
                return value
        return None

    def resolved(self) -> LabelRule:
        """The rule with both values spelled out, so that other files are read alike."""
        if self.rule.positive is not None:
            return self.rule
        labels = self.labels_by_code()
        rules: dict[str, str] = {}
        for value in self._present():
            is_positive = labels[self._values[value]] > 0
            rules["positive" if is_positive else "negative"] = self._equals(value)
        return self.rule.model_copy(update=rules)

    def _shown(self, value: str) -> str:
        """A rule as a user would write it: no backticks around plain names."""
        name = self.rule.column
        return self._equals(value).replace(f"`{name}`", name, 1 if name.isidentifier() else 0)

    def _equals(self, value: str) -> str:
        if value.startswith(("=", "'", '"')):  # which a bare value must not
            value = f'"{value}"'
        column = self.rule.column
        return f"== {value}" if "`" in column else f"`{column}` == {value}"


def _dividing(values: Sequence[tuple[float, int, str]]) -> str:
    """The (number, rows, text) from which on numbers count as positive.

    Where most rows share the least number, as counts share 0, all others are positive; else as many
    rows are positive as negative, as nearly as can be.
    """
    values = sorted(values)
    rows = np.array([count for _, count, _ in values])
    if rows[0] > rows[1:].max():
        return values[1][2]
    positive = rows[::-1].cumsum()[::-1]
    return values[1 + int(np.argmin(np.abs(2 * positive[1:] - rows.sum())))][2]


def no_label_column(table: str, label: str, names: Sequence[str]) -> str:
    """What to tell the user where none of a table's columns is called like the label."""
    known = ", ".join(names[:_SHOWN])
    if len(names) > _SHOWN:
        known += f" and {len(names) - _SHOWN} more"
    text = f"{table} has no label column {label!r}; "
    if re.search("[<>=]", label):
        return f"{text}nor is that a rule, which is written as 'rating >= 4'."
    alike = difflib.get_close_matches(label.lower(), [name.lower() for name in names], 1)
    if alike:
        meant = next(name for name in names if name.lower() == alike[0])
        return f"{text}did you mean {meant!r}? Its columns are {known}."
    if len(names) == 1:
        return (
            f"{text}its one column is {known!r}; separate values by commas, semicolons, tabs or |."
        )
    remedy = f", or, {NO_HEADER}" if hold_numbers(names) else "."
    return f"{text}its columns are {known}; name one of them{remedy}"


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise DataError(no_label_column("the table", name, table.column_names))
    if pa.types.is_nested(table.schema.field(name).type):
        raise DataError(
            f"label column {name!r} holds lists or structs; a label is one value per row."
        )
    return table[name]
