"""Numbers that stand for none."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dynens.batch import MISSING
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.sentinels import sentinels
from dynens.data.strangers import of_sentinels
from dynens.schema import FieldSpec
from tests.unit.data.encoded import fit, same

RNG = np.random.default_rng(0)
AGES = RNG.integers(18, 90, 900).astype(float)
AMOUNTS = np.round(RNG.lognormal(8, 1, 900), 2)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.append(AGES, [-999] * 100), {-999: 0.1}),
        (np.append(AGES, [999] * 50 + [-99] * 50), {-99: 0.05, 999: 0.05}),
        (np.append(AMOUNTS, [1e30] * 100), {1e30: 0.1}),
        (np.append(AMOUNTS, [-9999] * 100), {-9999: 0.1}),  # nearer than amounts are
        (np.append(AMOUNTS, [0] * 100), {}),  # nothing was bought
        (np.append(AMOUNTS - 5000, [-9999] * 100), {}),  # a debt as others are
        (np.append(AGES, [-999] * 5), {}),  # five mistakes
        (np.append(AGES, [AGES.max() + 40] * 100), {}),  # "older"
        (np.repeat([0.0, 1.0, 99.0], 300), {}),  # codes
        (np.repeat([-1.0, 1.0], 300), {}),
        (np.zeros(0), {}),
    ],
)
def test_what_stands_for_none(values: np.ndarray, found: dict[float, float]) -> None:
    assert sentinels(values) == pytest.approx(found)


WITH = pa.table({"age": np.append(AGES, [-999.0] * 100)})
WITHOUT = pa.table({"age": np.append(AGES, [np.nan] * 100)})


@pytest.mark.parametrize("transform", ["quantile", "standard", "log"])
def test_they_are_encoded_as_missing_ones_are(transform: str, tmp_path: Path) -> None:
    spec = FieldSpec(name="age", kind="numeric", transform=transform, buckets=8)
    encoder, without = fit([spec], WITH), fit([spec], WITHOUT)
    same(encoder.encode_table(WITH), without.encode_table(WITHOUT))
    same(encoder.encode_table(WITHOUT), without.encode_table(WITHOUT))
    same(encoder.encode_columns({"age": [-999, 30]}), encoder.encode_columns({"age": [None, 30]}))
    assert encoder.encode_columns({"age": ["-999"]}).ids[0, 0] == MISSING
    encoder.save(tmp_path)
    same(RowEncoder.load(tmp_path).encode_table(WITH), encoder.encode_table(WITH))


def test_a_field_can_keep_them() -> None:
    spec = FieldSpec(name="age", kind="numeric", buckets=8, sentinels=False)
    encoded = fit([spec], WITH).encode_table(WITH)
    assert encoded.dense.shape[1] == 1
    assert encoded.dense[-1, 0] == encoded.dense.min()
    assert of_sentinels(fit([spec], WITH)) == []


def test_they_are_told() -> None:
    fields = [FieldSpec(name=f"age{i}", column="age", kind="numeric") for i in range(7)]
    (warning,) = of_sentinels(fit(fields, WITH))
    assert warning == (
        "numbers far from all others are read as missing: "
        + ", ".join(["-999 in 10% of age"] * 5)
        + " and 2 more; sentinels: false in a field keeps them as numbers."
    )
