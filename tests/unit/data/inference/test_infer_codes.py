"""Codes whose beginnings tell the label."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynens.batch import OUT_OF_VOCABULARY
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inference.infer import infer_schema
from dynens.data.prepare import prepare
from dynens.data.reading.lists import PREFIXES, split_lists, split_text

ROWS = 3000


def test_codes_whose_beginnings_tell(tmp_path):
    rng = np.random.default_rng(0)
    letters = rng.choice(list("ABCDEFGH"), (ROWS, 2))
    codes = [f"{a}{b}{i:05d}" for i, (a, b) in enumerate(letters)]
    clicks = rng.random(ROWS) < np.where(np.isin(letters[:, 1], list("ABCD")), 0.6, 0.2)
    table = {"code": codes, "x": rng.normal(size=ROWS), "y": clicks}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (code, _) = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (code.kind, code.separator) == ("multi_valued", PREFIXES)
    table["y"] = rng.permutation(clicks)
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert list(infer_schema(tmp_path / "t.parquet", "y").excluded) == ["code"]


def test_beginnings_of_codes():
    texts = ["AB123", "é", None, "xyz"]
    values, lengths = split_lists(pa.array(texts), PREFIXES)
    assert lengths.tolist() == [4, 4, 0, 4]
    read = [split_text(text, PREFIXES) for text in texts if text is not None]
    assert values.to_pylist() == [value for row in read for value in row]
    assert read[0] == ["A", "AB", "AB1", "AB12"]


def test_beginnings_are_those_behind_what_all_codes_have_in_common(tmp_path):
    rng = np.random.default_rng(0)
    family = rng.integers(10, 40, ROWS)
    codes = [f"SKU-2024-{a}{i % 1000:04d}" for i, a in enumerate(family)]
    codes[::50] = [f"X{i}" for i in range(len(codes[::50]))]
    table = {"code": codes, "y": rng.random(ROWS) < np.where(family % 2, 0.6, 0.2)}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    (field,) = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
    assert (field.kind, field.separator) == ("multi_valued", "^9")
    assert "behind 9 characters" in (field.why or "")
    dataset = dataset_from_files(tmp_path / "t.parquet", label="y")
    data = prepare(dataset, tmp_path / "out", seed=0)
    codes = ["SKU-2024-117777", "SKU-2023-117777", "SKU-2024"]
    ids = data.encoder.encode_columns({"code": codes}).ids
    assert (ids[0, :2] > OUT_OF_VOCABULARY).all()
    assert (ids[1:, :4] == OUT_OF_VOCABULARY).all()
    assert split_text(codes[0], "^9") == [codes[0][:length] for length in (10, 11, 12, 13)]


def test_beginnings_of_numbers_that_are_codes(tmp_path):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 20_000, ROWS)
    clicks = rng.random(ROWS) < np.where(codes // 1000 % 2, 0.6, 0.2)
    texts = [f"{code:05d}" for code in codes]
    for name, values in (("area", texts), ("zip", codes + 10_000), ("area", codes + 10_000)):
        table = {name: values, "x": rng.normal(size=ROWS), "y": clicks}
        pq.write_table(pa.table(table), tmp_path / "t.parquet")
        fields = infer_schema(tmp_path / "t.parquet", "y").dataset.features.fields
        found = {f.name: f.separator for f in fields if f.kind == "multi_valued"}
        is_code = name == "zip" or values is texts
        assert found == ({f"{name}.parts": PREFIXES} if is_code else {})
        assert fields[0].kind == "numeric"
