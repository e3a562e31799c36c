"""What fields tell together: by distance, dot product, values in common, or as pairs.

A new way is one file with a pass (`drafts.Pass`) and one line here.
"""

from __future__ import annotations

from dynens.data.inference.apart import apart_fields
from dynens.data.inference.crossed import crossed_fields
from dynens.data.inference.dots import dot_fields
from dynens.data.inference.drafts import Draft, Pass, Sample
from dynens.data.inference.looked_up import lists_of_keys, looked_up_fields
from dynens.data.inference.shared import shared_values

PASSES: tuple[Pass, ...] = (
    lists_of_keys,
    dot_fields,
    apart_fields,
    shared_values,
    looked_up_fields,
    crossed_fields,
)
"""In their order: each is given what those before it made of the fields."""


def tied(draft: Draft, sample: Sample) -> Draft:
    """The draft after all passes."""
    for one in PASSES:
        draft = one(draft, sample)
    return draft
