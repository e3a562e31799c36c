"""Rules that tell a row's label, such as `rating >= 4`."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from dynens.config.base import FrozenConfig
from dynens.errors import SchemaError

_RULE = re.compile(
    r"\s*(?:(?:`(?P<quoted>[^`]+)`|(?P<column>[^<>=!\s][^<>=!]*?))\s*)?"
    r"(?P<op>>=|<=|==|!=|>|<|=(?![<>]))\s*(?P<value>[^=\s].*?)\s*"
)


class Comparison(FrozenConfig):
    """A rule such as `rating >= 4`."""

    column: str
    op: Literal[">=", "<=", "==", "!=", ">", "<"]
    value: str

    @classmethod
    def parse(cls, text: str, default_column: str | None = None) -> Comparison:
        """Read `column op value` (or `op value` with a default column).

        Back-quotes allow any name, quotes any value: '`income>50K` == "=1"'.

        Raises:
            SchemaError: the text is not such a rule.
        """
        match = _RULE.fullmatch(text)
        column = (match["quoted"] or match["column"] if match else None) or default_column
        if match is None or column is None:
            raise SchemaError(f"rule {text!r} is not a comparison; write it as 'rating >= 4'.")
        op = "==" if match["op"] == "=" else match["op"]
        value = match["value"]
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        return cls(column=column, op=op, value=value)


class LabelRule(FrozenConfig):
    """How a row gets its label.

    Attributes:
        column: the column that holds the outcome.
        positive: a comparison that is true of positive rows; None: the column is binary already
            and the positive value is found out (1, true, yes, click …, or the rarer of two words).
        negative: a comparison true of negative rows, so that any other value is refused; None:
            all rows that are not positive are negative.
        drop: a comparison true of rows to leave out.
        unlabelled: a comparison true of rows that are neither; those of training teach without a
            label, as rows do whose outcome is missing.
    """

    column: str = Field(min_length=1)
    positive: str | None = None
    negative: str | None = None
    drop: str | None = None
    unlabelled: str | None = None

    @field_validator("positive", "negative", "drop", "unlabelled")
    @classmethod
    def _parses(cls, text: str | None) -> str | None:
        if text is not None:
            Comparison.parse(text, "label")
        return text

    def comparison(
        self, which: Literal["positive", "negative", "drop", "unlabelled"]
    ) -> Comparison | None:
        texts = {
            "positive": self.positive,
            "negative": self.negative,
            "drop": self.drop,
            "unlabelled": self.unlabelled,
        }
        text = texts[which]
        return None if text is None else Comparison.parse(text, self.column)

    def outcome_columns(self) -> set[str]:
        """Every column that tells the label."""
        rules = (self.comparison("positive"), self.comparison("negative"))
        return {self.column} | {rule.column for rule in rules if rule is not None}

    def columns(self) -> set[str]:
        """Every column that the rule reads, those of `drop` and `unlabelled` included."""
        others = (self.comparison("drop"), self.comparison("unlabelled"))
        return self.outcome_columns() | {rule.column for rule in others if rule is not None}
