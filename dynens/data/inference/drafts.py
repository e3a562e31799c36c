"""What the passes over a draft of the fields are given, and what each of them gives back.

A pass looks at what fields tell together, and adds fields, ties some to others or leaves some out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.inference.evidence import Labels
from dynens.data.reading.values import canonical_codes
from dynens.schema import FieldSpec


@dataclass(frozen=True)
class Sample:
    """Rows, and what is known of them.

    Attributes:
        table: (joined) rows, decimals behind points.
        labels: (N,) of these rows.
        user: the column that identifies the user.
        items: entity tables by the column that identifies their rows, which is in them too.
        later: (N,) which rows are of the later half, where that is known.
        distance: rows of the whole table per row here.
    """

    table: pa.Table
    labels: Labels
    user: str | None = None
    items: Mapping[str, pa.Table] = field(default_factory=dict)
    later: npt.NDArray[np.bool_] | None = None
    distance: float = 1.0

    def thinned(self, most: int) -> Sample:
        """Every so many of the rows, so that they are no more than `most`."""
        step = -(-len(self.labels) // most)
        if step <= 1:
            return self
        return replace(
            self,
            table=self.table.take(pa.array(np.arange(0, len(self.labels), step))),
            labels=self.labels[::step],
            later=None if self.later is None else self.later[::step],
            distance=self.distance * step,
        )

    def users(self) -> npt.NDArray[np.int64]:
        """(N,) codes of the rows' users; one for all where they are not known."""
        if self.user is None:
            return np.zeros(len(self.labels), np.int64)
        return canonical_codes(self.table[self.user])[1].astype(np.int64)


@dataclass(frozen=True)
class Draft:
    """The fields as far as they are inferred.

    Attributes:
        fields: in the order of the columns.
        excluded: columns, or fields by their names, that passes left out, with the reason.
        warnings: what to look at.
    """

    fields: tuple[FieldSpec, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def then(
        self,
        fields: Iterable[FieldSpec],
        excluded: Mapping[str, str] | None = None,
        warnings: Iterable[str] = (),
    ) -> Draft:
        """With these fields, and more that was left out or warned of."""
        return Draft(
            tuple(fields), {**self.excluded, **(excluded or {})}, (*self.warnings, *warnings)
        )


Pass = Callable[[Draft, Sample], Draft]
