"""Which vectors belong to one space, so that their dot product in a row tells the label.

For pairs of vectors of one length let r be the label less its mean. Over ten ranges of the product

    χ² = Σ (Σ r)² / (n · mean r²)

over the n rows of each range is about 9 by chance.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dynens.data.encoding.fields import vectors
from dynens.data.inference.drafts import Draft, Sample
from dynens.data.inference.evidence import chi2_of, ranges
from dynens.data.reading.lists import split_lists
from dynens.data.reading.numbers import to_numbers
from dynens.schema import FieldSpec

_ROWS = 10_000
_MAX_FIELDS = 8
_CERTAIN = 60.0  # χ²
_RANGES = 10
_SPREAD = 0.1  # of the components' squares; less is lost on the one scale that products need

Floats = npt.NDArray[np.float64]


def dot_fields(draft: Draft, sample: Sample) -> Draft:
    """`dot_with` where the dot product of two vectors tells the label.

    A vector has one product with a vector before it, the one that tells most.
    """
    fields, result = draft.fields, list(draft.fields)
    chosen = [i for i, spec in enumerate(fields) if spec.kind == "dense_vector"][:_MAX_FIELDS]
    if len(chosen) < 2:
        return draft
    sample = sample.thinned(_ROWS)
    rest = sample.labels - sample.labels.mean()
    matrices = {i: _matrix(sample.table[fields[i].source], fields[i]) for i in chosen}
    chosen = [i for i in chosen if _is_spread(matrices[i])]
    strongest = dict.fromkeys(chosen, _CERTAIN)
    for owner, taker in combinations(chosen, 2):
        if fields[owner].length != fields[taker].length:
            continue
        product = (matrices[owner] * matrices[taker]).sum(axis=1)
        chi2 = chi2_of(ranges(product, _RANGES), rest)
        if chi2 > strongest[taker]:
            strongest[taker] = chi2
            name = fields[owner].name
            reason = f"its dot product with {name} tells the label (χ² {chi2:.0f})"
            update = {"dot_with": name, "why": f"{fields[taker].why}; {reason}"}
            result[taker] = fields[taker].model_copy(update=update)
    return draft.then(result)


def _is_spread(matrix: Floats) -> bool:
    """Whether vectors are not all nearly the same, as the coordinates of one city are."""
    known = matrix[np.isfinite(matrix).all(axis=1)]
    return bool(len(known) and known.var(axis=0).sum() > _SPREAD * (known**2).mean(axis=0).sum())


def _matrix(column: pa.ChunkedArray, spec: FieldSpec) -> Floats:
    """(N, L) components, NaN where they are missing."""
    assert spec.length is not None
    values, lengths = split_lists(column, spec.separator)
    return vectors(to_numbers(values).values, lengths, spec.length)
