"""Other files for a fitted encoder: what they lack is said, or refused."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.batch import NO_GROUP
from dynens.data.datasets.presets import dataset_from_files
from dynens.data.inputs import InputFiles
from dynens.data.prepare import prepare
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import DatasetConfig, EntityTable, FeatureSchema, FieldSpec, SourceOptions
from tests.unit.data.other_files import ROWS, columns, encoded


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    pacsv.write_csv(pa.table(columns()), folder / "train.csv")
    return prepare(dataset_from_files(folder / "train.csv", label="y"), folder / "prepared", seed=0)


def test_a_file_like_the_training_file_needs_no_word(data, tmp_path):
    batch, said = encoded(data, tmp_path)
    assert len(batch) == ROWS
    assert said == []


@pytest.mark.parametrize("spelled", ["USER", "User", " user "])
@pytest.mark.parametrize("others", [{}, {"x": None}])
def test_a_column_that_differs_by_case_or_spaces_is_refused(data, tmp_path, spelled, others):
    table = columns(user=None, **others) | {spelled: columns()["user"]}
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table(table), path)
    told = f"other.parquet has a column {spelled!r} but the run's table calls it 'user'; rename it"
    with pytest.raises(DataError, match=told):
        data.encode_file(str(path), print)


def test_a_column_beside_the_one_that_it_resembles_is_none_of_the_model(data, tmp_path):
    batch, said = encoded(data, tmp_path, USER=["?"] * ROWS)
    assert len(batch) == ROWS
    assert said == []


def test_later_columns_of_one_name_are_counted_and_told(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{i % 7},{i % 3 % 2},{(i * 37 % 100) / 8}" for i in range(ROWS)]
    path.write_text("\n".join(["price,y,price", *rows]) + "\n")
    twice = prepare(dataset_from_files(path, label="y"), tmp_path / "prepared", seed=0)
    told = f"{path} has columns of one name; the later ones are called 'price.1'"
    assert told in twice.report["warnings"]
    assert "price.1" in {f.name for f in twice.dataset.features.fields}
    said = []
    batch = twice.encode_file(str(path), said.append)
    assert said == [told]
    request = twice.encoder.encode_columns({"price": ["3"], "price.1": ["12.125"]})
    row = next(i for i, line in enumerate(rows) if line.startswith("3,") and "12.125" in line)
    np.testing.assert_array_equal(request.dense[0], batch.dense[row])


def test_spellings_of_missing_values_stand_in_the_rows_as_they_are(data, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("user,x,y\nNA,1.5,0\nunknown,?,1\nu1,-,1\n")
    files = InputFiles(str(path), data.dataset, data.encoder)
    ((table, readable),) = files.tables()
    assert table["user"].to_pylist() == ["NA", "unknown", "u1"]
    assert table["x"].to_pylist() == ["1.5", "?", "-"]
    values = data.encoder.encode_columns({"user": [None, None, "u1"], "x": [1.5, None, None]})
    found = data.encoder.encode_table(readable)
    np.testing.assert_array_equal(found.ids, values.ids)
    np.testing.assert_array_equal(found.dense, values.dense)
    assert files.warnings == []


def test_objects_stand_in_the_rows_as_they_are(tmp_path):
    texts = ['{"os": "a"}', '{"os": "b", "seldom": 1}', "{broken", None] * 100
    pacsv.write_csv(pa.table(columns(meta=texts)), tmp_path / "t.csv")
    dataset = dataset_from_files(tmp_path / "t.csv", label="y")
    objects = SourceOptions(objects={"meta": ("os",)})
    data = prepare(dataset.model_copy(update={"source": objects}), tmp_path / "out", seed=0)
    files = InputFiles(str(tmp_path / "t.csv"), data.dataset, data.encoder)
    ((table, readable),) = files.tables()
    assert table.column_names == ["user", "x", "y", "meta"]
    assert table["meta"].to_pylist() == texts
    assert readable["meta.os"].to_pylist() == ["a", "b", None, None] * 100


def test_absent_columns_are_named(data, tmp_path):
    batch, said = encoded(data, tmp_path, x=None)
    assert len(batch) == ROWS
    assert len(said) == 1
    assert "lacks 'x': missing in every row" in said[0]


def test_all_columns_in_other_letter_case_are_counted(data, tmp_path):
    x = columns()["x"]
    with pytest.raises(DataError, match=r"calls it 'user', and 1 more in another spelling; rename"):
        encoded(data, tmp_path, x=None, X=x, user=None, User=x, y=None, Y=x)
    _, said = encoded(data, tmp_path, X=x)  # a column that nothing asks for
    assert said == []


def test_ids_that_floats_cannot_tell_apart_are_told(tmp_path):
    users = [2**60 + 256 * (i % 7) for i in range(ROWS)]
    table = pa.table(columns(user=users))
    pq.write_table(table, tmp_path / "t.parquet")
    dataset = dataset_from_files(tmp_path / "t.parquet", label="y")
    data = prepare(dataset, tmp_path / "out", seed=0)
    assert not [text for text in data.report["warnings"] if "floating-point" in text]
    floats = table.set_column(0, "user", pa.array(np.array(users, float)))
    pq.write_table(floats, tmp_path / "f.parquet")
    said = []
    data.encode_file(str(tmp_path / "f.parquet"), said.append)
    assert [text.split(": user holds floating-point")[0] for text in said] == [
        str(tmp_path / "f.parquet")
    ]
    again = dataset_from_files(tmp_path / "f.parquet", label="y")
    told = prepare(again, tmp_path / "again", seed=0).report["warnings"]
    assert any(text.startswith("user holds floating-point numbers so large") for text in told)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.date32()])
def test_times_are_no_numbers(data, tmp_path, kind):
    table = pa.table(columns())
    path = tmp_path / "other.parquet"
    pq.write_table(table.set_column(1, "x", pa.nulls(ROWS, kind)), path)
    with pytest.raises(
        DataError, match=r"'x' holds times \(.*\) where the numeric field 'x' reads"
    ):
        data.encode_file(str(path), None)
    fields = (FieldSpec(name="x", kind="numeric"),)
    features = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    with pytest.raises(DataError, match="convert it, or fit with derive: epoch_days"):
        prepare(DatasetConfig(files=(str(path),), features=features), tmp_path / "out", seed=0)


@pytest.mark.parametrize("nothing", ["", "NA"])
def test_columns_without_a_value_are_named(data, tmp_path, nothing):
    _, said = encoded(data, tmp_path, user=[nothing] * ROWS)
    assert len(said) == 1
    assert said[0].endswith("other.csv has no value of 'user' in any row")
    _, said = encoded(data, tmp_path, user=[nothing] * (ROWS - 1) + ["u1"], x=[nothing] * ROWS)
    assert len(said) == 1
    assert "has no value of 'x' in any row" in said[0]


def test_a_key_is_missed_in_a_few_rows_too(tmp_path):
    pacsv.write_csv(pa.table(columns()), tmp_path / "train.csv")
    users = {"user": [f"u{i}" for i in range(7)], "town": [f"t{i % 3}" for i in range(7)]}
    pacsv.write_csv(pa.table(users), tmp_path / "users.csv")
    fields = (FieldSpec(name="x", kind="numeric"), FieldSpec(name="town", entity="user"))
    features = FeatureSchema(label=LabelRule(column="y"), fields=fields)
    table = EntityTable(files=(str(tmp_path / "users.csv"),), entity="user", key="user")
    files = (str(tmp_path / "train.csv"),)
    config = DatasetConfig(files=files, features=features, entities=(table,))
    prepared = prepare(config, tmp_path / "prepared", seed=0)
    (tmp_path / "few.csv").write_text("user,x,y\n,,0\nNA,,1\n")
    said = []
    prepared.encode_file(str(tmp_path / "few.csv"), said.append)
    assert len(said) == 1
    assert said[0].endswith("few.csv has no value of 'user' in any row")


def test_none_of_the_columns(data, tmp_path):
    with pytest.raises(DataError, match="none of the model's columns"):
        encoded(data, tmp_path, x=None, user=None)


def test_a_few_texts_among_numbers_are_counted(data, tmp_path):
    _, said = encoded(data, tmp_path, x=["oops"] + ["1.5"] * (ROWS - 1))
    assert len(said) == 1
    assert "holds 1 values that are no numbers (such as 'oops')" in said[0]


def test_many_texts_among_numbers_are_refused(data, tmp_path):
    with pytest.raises(DataError, match="holds 5 values that are no numbers"):
        encoded(data, tmp_path, x=["oops"] * 5 + ["1.5"] * (ROWS - 5))


def test_other_labels_are_refused(data, tmp_path):
    with pytest.raises(DataError, match=r"other\.csv: .*'yes', which is neither positive"):
        encoded(data, tmp_path, y=["yes", "no"] * (ROWS // 2))
    with pytest.raises(DataError, match="no row is left after the label rule; give labels as in"):
        encoded(data, tmp_path, y=[""] * ROWS)


def test_a_file_without_labels_is_named_with_the_column_it_lacks(data, tmp_path):
    path = tmp_path / "unlabelled.csv"
    pacsv.write_csv(pa.table(columns()).drop_columns("y"), path)
    with pytest.raises(DataError, match=r"unlabelled\.csv has no column .y., which tells"):
        data.encode_file(str(path))


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighted")
    table = pa.table(columns(w=["2"] * ROWS))
    pacsv.write_csv(table, folder / "train.csv")
    label = LabelRule(column="y")
    fields = (FieldSpec(name="x", kind="numeric"),)
    features = FeatureSchema(label=label, fields=fields, sample_weight="w", group="user")
    config = DatasetConfig(files=(str(folder / "train.csv"),), features=features)
    return prepare(config, folder / "prepared", seed=0)


@pytest.mark.parametrize("bad", ["", "-1", "0", "inf"])
def test_weights_that_are_not_positive_are_refused(weighted, tmp_path, bad):
    with pytest.raises(DataError, match=r"other.csv: sample weights in 'w' must be positive"):
        encoded(weighted, tmp_path, w=[bad] + ["1"] * (ROWS - 1))


def test_weights_and_groups_that_are_absent_are_named(weighted, tmp_path):
    batch, said = encoded(weighted, tmp_path, w=["3"] * ROWS)
    assert said == []
    assert batch.sample_weight.tolist() == [3] * ROWS
    batch, said = encoded(weighted, tmp_path, user=None)
    assert batch.sample_weight is None
    assert batch.groups is None
    assert [text.split(" lacks ")[1] for text in said] == [
        "'w': rows are not weighted by it",
        "'user': there is no GAUC",
    ]
    batch, said = encoded(weighted, tmp_path, w=["3"] * ROWS, user=["NA"] * ROWS)
    assert (batch.groups == NO_GROUP).all()
    assert [text.split("other.csv: ")[1] for text in said] == [
        "'user' is missing in every row: no GAUC"
    ]


def test_weights_in_some_files_only_are_refused(weighted, tmp_path):
    pacsv.write_csv(pa.table(columns(w=["3"] * ROWS)), tmp_path / "a-1.csv")
    pacsv.write_csv(pa.table(columns()), tmp_path / "a-2.csv")
    with pytest.raises(DataError, match="some files have the column 'w' and others do not"):
        weighted.encode_file(str(tmp_path / "a-*.csv"))


def test_texts_in_a_number_that_is_a_category_too(tmp_path):
    grades = {"grade": [i % 5 for i in range(ROWS)]}
    pacsv.write_csv(pa.table(columns(**grades)), tmp_path / "train.csv")
    prepared = prepare(
        dataset_from_files(tmp_path / "train.csv", label="y"), tmp_path / "prepared", seed=0
    )
    assert {f.kind for f in prepared.schema.fields if f.source == "grade"} == {
        "categorical",
        "numeric",
    }
    _, said = encoded(prepared, tmp_path, grade=[str(i % 5) for i in range(ROWS)])
    assert said == []
    given = [f"kw-{i % 5}" if i % 2 else str(i % 5) for i in range(ROWS)]
    batch, said = encoded(prepared, tmp_path, grade=given)
    (told,) = said
    assert "field 'grade.size' holds 200 values that are no numbers (such as 'kw-1'), whi" in told
    sent = prepared.encoder.encode_columns(columns(grade=given))
    np.testing.assert_array_equal(sent.ids, batch.ids)
    np.testing.assert_array_equal(sent.dense, batch.dense)
    at = prepared.layout.dense.index("grade.size")
    missing, zero = prepared.encoder.encode_columns({"grade": [None, 0]}).dense[:, at]
    assert batch.dense[:2, at].tolist() == [zero, missing]
    assert zero != missing


def test_infinite_numbers_are_counted(data, tmp_path):
    _, said = encoded(data, tmp_path, x=["inf", "-inf"] + ["1.5"] * (ROWS - 2))
    assert len(said) == 1
    assert "numeric column 'x' holds 2 values that are infinite, which count as missing" in said[0]


def test_infinite_numbers_are_told_of_training_rows_too(tmp_path):
    infinite = ["inf"] * 3 + ["nan"] * 2 + ["1.5", "2.5"] * 197 + ["3"]
    pacsv.write_csv(pa.table(columns(x=infinite)), tmp_path / "train.csv")
    prepared = prepare(
        dataset_from_files(tmp_path / "train.csv", label="y"), tmp_path / "prepared", seed=0
    )
    assert "x: 3 values that are infinite count as missing" in prepared.report["warnings"]


def test_rows_without_label_are_counted(data, tmp_path):
    batch, said = encoded(data, tmp_path, y=[None] * 60 + [0, 1] * 170)
    assert len(batch) == ROWS - 60
    assert len(said) == 1
    assert "60 rows have no label" in said[0]


def test_values_that_training_never_had_are_told_where_they_are_nearly_all(data, tmp_path):
    _, said = encoded(data, tmp_path, user=[f"U{i % 7}" for i in range(ROWS)])
    assert len(said) == 1
    assert "100% of the values of 'user' were not there in training" in said[0]
    half = [f"{'Uu'[i % 2]}{i % 7}" for i in range(ROWS)]
    assert encoded(data, tmp_path, user=half)[1] == []


def padded(tmp_path):
    """Codes such as 07, which are categories with their size beside them."""
    codes = {"code": [f"{i % 12:04d}" for i in range(ROWS)]}
    pacsv.write_csv(pa.table(columns(**codes)), tmp_path / "train.csv")
    config = dataset_from_files(tmp_path / "train.csv", label="y")
    fields = (
        FieldSpec(name="code"),
        FieldSpec(name="code.size", column="code", kind="numeric"),
        FieldSpec(name="user"),
    )
    features = config.features.model_copy(update={"fields": fields})
    return prepare(config.model_copy(update={"features": features}), tmp_path / "p", seed=0)


@pytest.mark.parametrize("zip_code", ["{:05d}", "{}"])
def test_codes_that_lost_their_zeros_are_told(tmp_path, zip_code):
    numbers = [i * 977 % 9000 + 500 if i % 3 else 10_000 + i % 50 for i in range(40)]
    path, rows = tmp_path / "t.csv", [numbers[i % 40] for i in range(ROWS)]
    lines = [f"{n:05d},{i % 7},{i % 3 % 2}" for i, n in enumerate(rows)]
    path.write_text("\n".join(["zip,x,y", *lines]))
    fields = (FieldSpec(name="zip"), FieldSpec(name="x"))
    config = DatasetConfig(
        files=(str(path),), features=FeatureSchema(label=LabelRule(column="y"), fields=fields)
    )
    data = prepare(config, tmp_path / "prepared", seed=0)
    other, said = tmp_path / "other.csv", []
    other.write_text("\n".join(["zip,x,y", *(f"{zip_code.format(n)},1,0" for n in rows)]))
    data.encode_file(str(other), said.append)
    lost = sum(n < 10_000 for n in rows)
    told = f"{other}: {lost} values of 'zip' would be known with zeros in front, as they had"
    assert [text.startswith(told) for text in said if "zeros" in text] == [True] * (
        zip_code == "{}"
    )


def test_new_codes_are_new_categories_and_no_bad_numbers(tmp_path):
    prepared = padded(tmp_path)
    kinds = {field.name: field.kind for field in prepared.encoder.input_fields}
    assert kinds["code"] == "categorical"
    codes = ["A12"] * 100 + ["0003"] * (ROWS - 100)
    pacsv.write_csv(pa.table(columns(code=codes)), tmp_path / "new.csv")
    said = []
    batch = prepared.encode_file(str(tmp_path / "new.csv"), said.append)
    assert said == []
    one_by_one = prepared.encoder.encode_columns({"code": ["A12", "0003"], "user": ["u0", "u1"]})
    missing = prepared.encoder.encode_columns({"code": [None], "user": ["u0"]})
    assert batch.dense[0].tolist() == one_by_one.dense[0].tolist() == missing.dense[0].tolist()
    assert batch.dense[-1].tolist() == one_by_one.dense[1].tolist()


def test_what_a_libsvm_file_does_not_name_is_zero_in_every_file(tmp_path):
    def write(name, highest, rows):
        lines = [
            f"{i % 3 % 2} 1:{i % 11 / 4} {1 + i % highest}:{i % 7 - 3.5}\n" for i in range(rows)
        ]
        (tmp_path / name).write_text("".join(lines))
        return tmp_path / name

    train, test = write("train.svm", 4, ROWS), write("test.svm", 2, 50)
    config = dataset_from_files(train, test=test, label="label")
    data = prepare(config, tmp_path / "prepared", seed=0)
    assert not [w for w in data.report["warnings"] if "f4" in w]
    (request,) = data.encoder.encode_columns({"f4": [0.0]}).dense
    at = data.layout.dense.index("f4")
    said = []
    for batch in (data.split("test"), data.encode_file(str(test), said.append)):
        assert (batch.dense[:, at] == request[at]).all()
    assert request[at] != data.encoder.encode_columns({"f4": [None]}).dense[0, at]
    assert said == []
