"""Columns that may tell the label because they are only known after it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dynens.data.inference.evidence import COPY_AUC, LEAK_AUC
from dynens.data.inference.profile import ColumnProfile
from dynens.data.names import OUTCOME, plain_name

_SHOWN = 5  # columns in one warning
_FEW_VALUES = 20  # more may be an identifier that stands for one class, which is no copy


@dataclass(frozen=True)
class Leak:
    """A column that gives the label away.

    Attributes:
        why: the evidence.
        certain: whether it is beyond doubt, so that the column is left out; else `why` is a
            sentence about it that warns.
    """

    why: str
    certain: bool


def find_leak(profile: ColumnProfile) -> Leak | None:
    """What makes a column a leak, if it may be one."""
    label = profile.label
    by_few = max(label.auc_by_bucket, label.auc_by_usual)  # of groups of values
    auc = max(label.auc_by_value, by_few, label.auc_by_absence, label.auc_by_part)
    named = bool(OUTCOME.fullmatch(plain_name(profile.name)))
    few = profile.num_distinct <= _FEW_VALUES or by_few >= COPY_AUC
    if profile.tells_by_absence:
        return Leak("whether it is missing gives the label away completely (held-out AUC 1)", True)
    if auc >= COPY_AUC and few and profile.num_known > 100:
        return Leak("it gives the label away completely (held-out AUC 1)", True)
    if label.is_positive_only:
        where = "has a value" if profile.missing_share > 0.5 else "has not its usual value"
        return Leak(f"every row in which it {where} is positive", True)
    tells = label.implied or label.ruled_out is not None or auc >= 0.75
    if named and tells:
        why = f"its name speaks of what follows the outcome, and it tells it (AUC {auc:.3f})"
        return Leak(why, True)
    if auc >= LEAK_AUC or label.implied:
        where = f"by itself (held-out AUC {auc:.3f})"
        if auc < LEAK_AUC:
            where = f"wherever it has not its usual value (AUC of all rows {auc:.3f})"
        return Leak(
            f"{profile.name} nearly tells the label {where}; leave it out if it is only known "
            "afterwards",
            False,
        )
    if label.ruled_out is not None:
        return Leak(
            f"of rows with {label.ruled_out} in {profile.name} none is positive; leave it "
            "out if it is only known afterwards",
            False,
        )
    if named:
        return Leak(
            f"{profile.name} has the name of something that happens after the outcome; leave it "
            "out if it does",
            False,
        )
    return None


def named_after_leaks(
    profiles: Mapping[str, ColumnProfile], used: Collection[str], label: str
) -> list[str]:
    """Warnings of used columns named after a leak (`status_date` of `status`) or the label.

    Such a date may tell the label only together with others, which no column's own evidence shows.
    So may what stands beside the label in a structure (`outcome.seconds` of `outcome.clicked`).
    """
    certain = [name for name, profile in profiles.items() if _is_certain(profile)]
    leaks = {label: "is the label"} | dict.fromkeys(certain, "gives the label away")
    warnings = [
        f"{name} has the name of {leak}, which {what}; leave it out if it is only known afterwards"
        for name in dict.fromkeys(used)
        for leak, what in leaks.items()
        if re.match(rf"{re.escape(leak)}([_\-. ]|[A-Z][a-z])", name)
    ]
    structure, point, _ = label.rpartition(".")
    beside = [name for name in dict.fromkeys(used) if name.startswith(structure + point)]
    if point and beside:
        shown = ", ".join([*beside[:_SHOWN], *(["…"] if len(beside) > _SHOWN else [])])
        text = f"{shown}: beside the label in {structure}; leave out what is only known afterwards"
        warnings.append(text)
    return warnings


def _is_certain(profile: ColumnProfile) -> bool:
    leak = find_leak(profile)
    return leak is not None and leak.certain
