"""What inference found: a dataset description with the reasons for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dynens.data.reading.layouts import told_names
from dynens.data.reading.sources import not_utf8
from dynens.schema import DatasetConfig, dump_dataset


@dataclass
class InferredSchema:
    """A dataset description with the reasons for it.

    Attributes:
        dataset: ready to be prepared or written as YAML; every field says why it is so.
        excluded: columns left out, with the reason.
        warnings: likely leaks and other things to look at.
    """

    dataset: DatasetConfig
    excluded: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def with_notes(self, files: Sequence[str], commas: str | None = None) -> InferredSchema:
        """The same, saying how texts of the files are read where that is a guess.

        Args:
            files: names and globs.
            commas: the column that shows that decimals stand behind commas.
        """
        if commas is not None:
            where = "(source.decimal)"
            if self.dataset.source.decimal == ".":
                where = "but for columns that can only have points (each field's decimal)"
            text = f"numbers are read with decimal commas, as {commas} has them {where}"
            self.warnings.append(text)
        joined = [name for entity in self.dataset.entities for name in entity.files]
        self.warnings += told_names([*files, *joined], self.dataset.source)
        if paths := not_utf8(files):
            self.warnings.append(
                f"{paths[0]} is not UTF-8 text; values that are not are read as Windows-1252"
            )
        return self

    def to_yaml(self) -> str:
        """`dataset.yaml`, warnings and excluded columns as comments at the top."""
        lines = ["Inferred; correct what is wrong."]
        lines += [f"WARNING: {warning}" for warning in self.warnings]
        lines += [f"left out: {name}: {why}" for name, why in self.excluded.items()]
        return dump_dataset(self.dataset, "\n".join(lines))
