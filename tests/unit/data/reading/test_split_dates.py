import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from dynens.data.datasets.presets import dataset_from_files
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.inference.infer import infer_schema
from dynens.data.inputs import InputFiles
from dynens.data.prepare import prepare
from dynens.data.reading.sources import iter_tables
from dynens.data.reading.split_dates import dated, dates_in, with_dates
from dynens.errors import DataError
from dynens.rules import LabelRule
from dynens.schema import (
    DatasetConfig,
    EntityTable,
    FeatureSchema,
    FieldSpec,
    SourceOptions,
    load_dataset,
)

DAYS = np.datetime64("2023-01-01") + np.arange(0, 600)
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
PARTS = ("arrival_date_year", "arrival_date_month", "arrival_date_day_of_month")


def parts(days=DAYS, month=str):
    """Year, month (1 to 12, as `month` writes it) and day."""
    dates = days.tolist()
    return [d.year for d in dates], [month(d.month) for d in dates], [d.day for d in dates]


@pytest.mark.parametrize(
    "month",
    [int, str, "{:02}".format, lambda m: MONTHS[m - 1], lambda m: MONTHS[m - 1][:3].upper()],
)
def test_a_date_in_parts_is_a_column(month):
    table = pa.table(dict(zip(PARTS, parts(month=month), strict=True)) | {"x": DAYS.astype(int)})
    assert dates_in(table) == {"arrival_date": PARTS}
    whole = dated(table, {"arrival_date": PARTS})
    assert whole.column_names == [*PARTS, "arrival_date", "x"]
    assert whole["arrival_date"].to_pylist() == DAYS.astype(str).tolist()
    columns = with_dates(table.to_pydict(), {"arrival_date": PARTS})
    assert columns["arrival_date"] == whole["arrival_date"].to_pylist()


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("year", "month", "day"), "date"),
        (("Year", "Month", "DayofMonth"), "date"),
        (("YearOfBirth", "MonthOfBirth", "DayOfBirth"), None),
        (("year_of_birth", "month_of_birth", "day_of_birth"), "birth_date"),
        (("arrivalYear", "arrivalMonth", "arrivalDay"), "arrival_date"),
        (("year", "birth_month", "day"), None),
        (("year", "month", "weekday"), None),
    ],
)
def test_what_parts_are_called(names, found):
    table = pa.table(dict(zip(names, parts(), strict=True)))
    assert dates_in(table) == ({} if found is None else {found: names})


def test_the_day_of_the_month_is_no_weekday():
    year, month, day = parts()
    names = {"day": [d % 7 + 1 for d in day], "month": month, "year": year}
    assert dates_in(pa.table(names)) == {}
    found = dates_in(pa.table({**names, "day_of_month": day}))
    assert found == {"date": ("year", "month", "day_of_month")}


def test_other_numbers_are_no_dates():
    year, month, day = parts()
    for wrong in (
        {"year": [y - 2000 for y in year]},
        {"month": [m + "th" for m in month]},
        {"day": [d + 10 for d in day]},
        {"day": [[d] for d in day]},
        {"date": DAYS},
    ):
        assert dates_in(pa.table({"year": year, "month": month, "day": day} | wrong)) == {}


@pytest.mark.parametrize(
    "row",
    [
        (2023, "Sept.", 7),
        (2023.0, 9.0, 7.0),
        ("2023", "09", " 7 "),
        (2023, None, 7),
        (2023, 2, 30),
        (23, 9, 7),
        (2023, "Sometime", 7),
        ("", "Sep", 7),
    ],
)
def test_files_and_requests_put_a_date_together_alike(row):
    names = ("year", "month", "day")
    dates = {"date": names}
    columns = {n: [v] for n, v in zip(names, row, strict=True)}
    (read,) = dated(pa.table(columns), dates)["date"].to_pylist()
    assert with_dates(columns, dates)["date"] == [read]
    is_whole = row[1] in ("Sept.", 9.0, "09")
    assert read == ("2023-09-07" if is_whole and row[0] != 23 else None)


def hotels(path):
    """Bookings that are cancelled the more often the longer they wait, and of Saturdays."""
    rng = np.random.default_rng(0)
    booked = np.datetime64("2023-01-01") + np.sort(rng.integers(0, 400, 3000))
    arrival = booked + rng.integers(0, 60, 3000)
    away = (arrival - booked).astype(int)
    odds = 0.06 * (away - 30) + 1.5 * (arrival.astype(int) % 7 == 2)
    label = (rng.random(3000) < 1 / (1 + np.exp(-odds))).astype(int)
    columns = dict(zip(PARTS, parts(arrival, lambda m: MONTHS[m - 1]), strict=True))
    table = pa.table({"booked_at": booked.astype(str), **columns, "y": label})
    (pacsv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)
    return table.drop_columns(["y"])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_date_in_parts_has_an_age_and_a_weekday(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    table = hotels(path)
    (tmp_path / "t.yaml").write_text(infer_schema(path, "y").to_yaml())
    dataset = load_dataset(tmp_path / "t.yaml")
    assert dataset.source.dates == {"arrival_date": PARTS}
    read = {f.name for f in dataset.features.fields if f.source == "arrival_date"}
    assert {"arrival_date", "arrival_date.age", "arrival_date.weekday"} <= read
    data = prepare(dataset_from_files(path, label="y"), tmp_path / "out", seed=0)
    data.encoder.save(tmp_path / "encoder")
    encoder = RowEncoder.load(tmp_path / "encoder")
    names = [field.name for field in encoder.input_fields]
    assert "arrival_date" not in names
    assert {*PARTS} <= {*names} <= {*data.raw_test().column_names}
    rows = encoder.encode_columns({name: table[name].to_pylist() for name in table.column_names})
    files = InputFiles(str(path), data.dataset, encoder)
    ((_, ready),) = files.tables()
    for other in (encoder.encode_table(ready), data.encoder.encode_table(ready)):
        np.testing.assert_array_equal(rows.ids, other.ids)
        np.testing.assert_array_equal(rows.dense, other.dense)
    assert not files.warnings
    with pytest.raises(DataError, match="no single value"):
        encoder.encode_columns({name: [[1]] for name in PARTS})


def test_a_date_does_not_tell_a_label_that_is_a_part_of_it(tmp_path):
    hotels(tmp_path / "t.csv")
    features = infer_schema(tmp_path / "t.csv", f"{PARTS[0]} >= 2024").dataset.features
    assert "arrival_date" not in {f.source for f in features.fields}


def test_only_what_is_asked_for_is_read(tmp_path):
    hotels(tmp_path / "t.csv")
    options = SourceOptions(dates={"arrival_date": PARTS})
    ((_, table),) = iter_tables([str(tmp_path / "t.csv")], options, columns=["arrival_date"])
    assert table.column_names == ["arrival_date"]
    assert table["arrival_date"].null_count == 0


def test_the_context_of_a_ranking_request_brings_the_parts(tmp_path):
    table = hotels(tmp_path / "t.csv")
    ids = [f"r{i % 20}" for i in range(table.num_rows)]
    label = [i % 3 == 0 for i in range(table.num_rows)]
    table = table.append_column("room", [ids]).append_column("y", [label])
    pq.write_table(table, tmp_path / "log.parquet")
    rooms = pa.table({"room": ids[:20], "beds": [i % 4 for i in range(20)]})
    pq.write_table(rooms, tmp_path / "rooms.parquet")
    fields = (
        FieldSpec(name="beds", entity="item"),
        FieldSpec(name="weekday", column="arrival_date", derive="weekday"),
    )
    dataset = DatasetConfig(
        files=(str(tmp_path / "log.parquet"),),
        features=FeatureSchema(label=LabelRule(column="y"), fields=fields, item_key="room"),
        entities=(
            EntityTable(files=(str(tmp_path / "rooms.parquet"),), entity="item", key="room"),
        ),
        source=SourceOptions(dates={"arrival_date": PARTS}),
    )
    encoder = prepare(dataset, tmp_path / "out", seed=0).encoder
    context = {name: table[name][7].as_py() for name in PARTS}
    rows = encoder.encode_rank(None, context, ids[:3])
    columns = {name: [value] * 3 for name, value in context.items()}
    whole = encoder.encode_columns({**columns, "beds": [0, 1, 2]})
    np.testing.assert_array_equal(rows.ids, whole.ids)
    assert rows.ids[:, 0].min() > 1
