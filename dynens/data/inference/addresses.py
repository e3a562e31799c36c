"""Texts that hardly repeat but whose parts do: addresses, codes, names."""

from __future__ import annotations

from itertools import takewhile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dynens.data.inference.evidence import Labels, auc_noise, halves, held_out_auc
from dynens.data.names import POSTAL
from dynens.data.reading.lists import ADDRESS, DOTTED, prefixes_after, split_texts
from dynens.data.reading.values import canonical_texts

_MAX_TEXTS = 20_000
_FIRST = 100
_OFTEN = 5
_OFTEN_SHARE, _SOME_SHARE = 0.4, 0.1  # of all parts; half of those of e-mail addresses are names
_PLACES = 3
_QUERIES, _NEARLY_ALL = 0.2, 0.95  # of the texts
_ADDRESSES = ("/", "@")
_DIGITS = r"^[0-9]{5,}$"
_NUMBERS = r"^[vV]?[0-9]+([.][0-9]+)+"  # IP addresses, versions
_CODES = (".", "-", ":", "_")  # of IP addresses, versions, stock numbers
_OTHERS = (*_CODES, " ")  # phone numbers have them too


def may_be_code(name: str, array: pa.Array) -> bool:
    """Whether numbers are codes of equally many digits, by zeros in front or the column's name."""
    if not (pa.types.is_string(array.type) or pa.types.is_integer(array.type)):
        return False
    # Most numbers are told from codes by a few.
    if not (_same_digits(array.slice(0, _FIRST)) and _same_digits(array)):
        return False
    texts = canonical_texts(array).drop_null()
    has_zeros = bool(pc.any(pc.starts_with(texts, "0")).as_py())
    return has_zeros or POSTAL.fullmatch(name.lower()) is not None


def _same_digits(array: pa.Array) -> bool:
    """Whether all values are numbers of equally many digits, five or more."""
    texts = canonical_texts(array).drop_null()
    if len(texts) == 0:
        return True
    return bool(pc.all(pc.match_substring_regex(texts, _DIGITS)).as_py()) and (
        pc.count_distinct(pc.utf8_length(texts)).as_py() == 1
    )


def parts_separator(
    texts: pa.StringArray,
    codes: npt.NDArray[np.int32],
    labels: Labels | None,
    *,
    seldom_repeat: bool = True,
) -> str | None:
    """The separator that splits texts into parts most of which occur often, or None.

    Where it is none of URLs and e-mail addresses, or fewer parts occur often, one of the first
    parts, or the last one, must tell the label. `DOTTED` where points part numbers, each of which
    means something behind those before it alone; one of `PREFIXES` where none splits them and
    their beginnings do.

    Args:
        texts: distinct ones.
        codes: (B,) each row's text, -1 where missing.
        labels: (B,).
        seldom_repeat: whether texts do, so that words of names and beginnings are parts, too.
    """
    sample = texts.slice(0, _MAX_TEXTS)
    asks = pc.match_substring_regex(sample, "/.*[?]").cast(pa.float64())
    queries = float(pc.mean(asks).as_py())
    addresses: tuple[str, ...] = _ADDRESSES if queries < _QUERIES else (ADDRESS, *_ADDRESSES)
    others: tuple[str, ...] = _OTHERS if seldom_repeat else _CODES
    for separator in (*addresses, *others):
        pieces = split_texts(sample, separator)
        if pc.mean(pc.list_value_length(pieces)).as_py() < 2:
            continue
        counts = pc.value_counts(pieces.flatten()).field("counts").to_numpy()
        share = counts[counts >= _OFTEN].sum() / counts.sum()
        if separator == "." and _are_dotted(sample):
            separator = DOTTED
        if share > _OFTEN_SHARE and separator in addresses:
            return separator
        enough = _SOME_SHARE if separator in addresses else _OFTEN_SHARE
        if share > enough and _tell(texts, separator, codes, labels):
            return separator
    return telling_beginnings(texts, codes, labels) if seldom_repeat else None


def _are_dotted(texts: pa.StringArray) -> bool:
    """Whether nearly all texts begin with numbers between points."""
    return bool(pc.mean(pc.match_substring_regex(texts, _NUMBERS)).as_py() > _NEARLY_ALL)


def telling_beginnings(
    texts: pa.StringArray,
    codes: npt.NDArray[np.int32],
    labels: Labels | None,
    half: npt.NDArray[np.bool_] | None = None,
) -> str | None:
    """The separator of the beginnings of texts, if these tell the label on rows held out.

    Args:
        texts: distinct ones.
        codes: (B,) each row's text, -1 where missing.
        labels: (B,).
        half: (B,) which rows tell it of the others, and the other way round; None: any half.
    """
    separator = prefixes_after(_in_common(texts))
    return separator if _tell(texts, separator, codes, labels, half) else None


def _in_common(texts: pa.StringArray) -> int:
    """How many first characters nearly all texts share.

    In the order of the alphabet such texts stand together, so that those in the middle have them.
    """
    ordered = texts.take(pc.array_sort_indices(texts))
    if not len(ordered):
        return 0
    few = int((1 - _NEARLY_ALL) * len(ordered))
    pairs = zip(ordered[few].as_py(), ordered[-1 - few].as_py(), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _tell(
    texts: pa.StringArray,
    separator: str,
    codes: npt.NDArray[np.int32],
    labels: Labels | None,
    half: npt.NDArray[np.bool_] | None = None,
) -> bool:
    """Whether one of the first parts, or the last one, tells the label on rows held out."""
    if labels is None:
        return False
    enough = 0.5 + 2 * auc_noise(int(labels.sum()))
    return part_auc(texts, separator, codes, labels, half) > enough


def part_auc(
    texts: pa.StringArray,
    separator: str,
    codes: npt.NDArray[np.int32],
    labels: Labels,
    half: npt.NDArray[np.bool_] | None = None,
) -> float:
    """The best AUC on rows held out of one of the first parts, or the last one.

    Args:
        texts: distinct ones.
        separator: between their parts.
        codes: (B,) each row's text, -1 where missing.
        labels: (B,).
        half: (B,) which rows tell it of the others, and the other way round; None: any half.
    """
    half = halves(len(codes)) if half is None else half
    pieces = split_texts(texts, separator)
    starts, ends = pieces.offsets.to_numpy()[:-1], pieces.offsets.to_numpy()[1:]
    best = 0.5
    for at in (*(starts + place for place in range(_PLACES)), ends - 1):
        part = pieces.values.take(pa.array(at, mask=at >= ends)).dictionary_encode()
        of_text = part.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        of_row = np.append(of_text, -1).astype(np.int64)[codes]
        best = max(best, held_out_auc(of_row + 1, labels, half))
    return best
