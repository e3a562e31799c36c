import numpy as np
import pyarrow as pa
import pytest

from dynens.batch import MISSING, OUT_OF_VOCABULARY, PADDING
from dynens.data.encoding import fields
from dynens.data.encoding.encoders import RowEncoder
from dynens.data.encoding.entities import RawEntity
from dynens.data.encoding.raw_inputs import inputs_of
from dynens.data.reading.times import seconds_of_values
from dynens.errors import BundleError, DataError
from dynens.schema import FieldSpec, VocabularyPolicy
from tests.unit.data.encoded import KEEP_ALL, SPECS, fit, same
from tests.unit.data.tables import mixed_table

BAG = {"kind": "multi_valued", "separator": ".", "vocabulary": VocabularyPolicy(min_count=50)}


def columns_of(table):
    return {name: table[name].to_pylist() for name in table.column_names}


def test_layout_groups_user_context_item(encoder):
    names = [field.name for field in encoder.layout.fields]
    assert names == ["user_id", "country", "price#bucket", "hour", "hashed", "tags"]
    assert encoder.layout.dense == ("price", "age", "age#missing", "days", "tags#length")
    assert {f.name: f.kind for f in encoder.input_fields} == {
        "user_id": "categorical",
        "country": "categorical",
        "price": "numeric",
        "age": "numeric",
        "time": "categorical",
        "tags": "multi_valued",
    }


def test_a_number_that_is_a_category_too_travels_as_a_number():
    specs = [FieldSpec(name="grade"), FieldSpec(name="size", column="grade", kind="numeric")]
    encoder = fit(specs, pa.table({"grade": [1, 2, 3, 2] * 20, "y": [0, 1, 1, 0] * 20}))
    assert [(f.name, f.kind) for f in encoder.input_fields] == [("grade", "numeric")]
    number, text = (encoder.encode_columns({"grade": [v]}) for v in (2.0, "2"))
    same(number, text)
    assert number.ids[0, 0] >= 2
    new, missing = (encoder.encode_columns({"grade": [v]}) for v in ("kw-2", None))
    assert (new.ids[0, 0], missing.ids[0, 0]) == (OUT_OF_VOCABULARY, MISSING)
    np.testing.assert_array_equal(new.dense, missing.dense)
    with pytest.raises(DataError, match="'grade' takes one value per row"):
        encoder.encode_columns({"grade": [["kw-2"]]})


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["01", "02", "10"], "categorical"),
        (["1234567890123456789", "1234567890123456790"], "categorical"),
        (["1", "-2", "2.5", "x"], "categorical"),
        (["1", "-2", "2.5"], "numeric"),
        ([1, 2, 3], "numeric"),
    ],
)
def test_numbers_whose_spelling_tells_them_apart_travel_as_texts(values, kind):
    specs = [FieldSpec(name="code"), FieldSpec(name="size", column="code", kind="numeric")]
    encoder = fit(specs, pa.table({"code": values * 20}))
    assert [(f.name, f.kind) for f in encoder.input_fields] == [("code", kind)]


@pytest.mark.parametrize("others", [[], [FieldSpec(name="words", column="code", **BAG)]])
def test_numbers_with_texts_that_no_vocabulary_keeps_travel_as_texts(others, tmp_path):
    size = FieldSpec(name="size", column="code", kind="numeric")
    seldom = FieldSpec(name="code", vocabulary=VocabularyPolicy(min_count=5))
    table = pa.table({"code": [*map(str, range(90)), *(f"{i} or so" for i in range(9))]})
    fit([seldom, *others, size], table).save(tmp_path)
    encoder = RowEncoder.load(tmp_path)
    assert [(f.name, f.kind) for f in encoder.input_fields] == [("code", "categorical")]
    columns = {"code": ["7 or so"]}
    same(encoder.encode_columns(columns), encoder.encode_table(pa.table(columns)))
    few = fit([seldom, size], pa.table({"code": [*map(str, range(200)), "x"]}))
    assert [(f.name, f.kind) for f in few.input_fields] == [("code", "numeric")]


def test_rows_encode_alike_in_any_chunking_and_by_columns(encoder):
    table = mixed_table(300, seed=1)
    whole = encoder.encode_table(table)
    for size in (1, 7, 299):
        for start in range(0, 300, size):
            same(
                encoder.encode_table(table.slice(start, size)),
                whole.take(slice(start, start + size)),
            )
    same(encoder.encode_columns(columns_of(table)), whole)
    for row in (0, 150, 299):
        alone = encoder.encode_columns(columns_of(table.slice(row, 1)))
        same(alone, whole.take(slice(row, row + 1)))


def test_many_rows_by_columns_take_the_vectorised_road(encoder):
    table = pa.concat_tables([mixed_table(300, seed=1)] * 10)
    same(encoder.encode_columns(columns_of(table)), encoder.encode_table(table))


@pytest.mark.parametrize("values", [["2024-05-06 10:00", "no date"], [True]])
def test_what_is_no_time_is_refused_among_few_rows_and_many(values):
    spec = FieldSpec(name="hour", column="time", derive="hour")
    encoder = fit([spec], pa.table({"time": ["2024-05-06 10:00", "2024-05-06 11:00"] * 3}))
    for times in (1, 2500):
        with pytest.raises(DataError, match="takes one date or time per row"):
            encoder.encode_columns({"time": values * times})


def test_texts_that_are_no_times_are_not_all_read(monkeypatch):
    spec = FieldSpec(name="hour", column="time", derive="hour")
    encoder = fit([spec], pa.table({"time": ["2024-05-06 10:00", "2024-05-06 11:00"] * 3}))
    read = []

    def reading(values, *args, **kwargs):
        read.extend(values)
        return seconds_of_values(values, *args, **kwargs)

    monkeypatch.setattr(fields, "seconds_of_values", reading)
    with pytest.raises(DataError, match="was given '12/34/5678 0'"):
        encoder.encode_columns({"time": [f"12/34/5678 {i}" for i in range(3000)]})
    assert len(read) < 100


def test_half_a_character_is_refused_among_few_rows_and_many(encoder):
    for rows in (2, 5000):
        with pytest.raises(DataError, match="takes one value per row"):
            encoder.encode_columns({"country": ["DE"] * rows + ["\ud800"]})


@pytest.mark.parametrize("text", ["4,5", "  4,5", "4,5\t", "\n4,5 "])
def test_space_around_a_decimal_comma_says_nothing(text):
    spec = FieldSpec(name="c", decimal=",", vocabulary=KEEP_ALL)
    encoder = fit([spec], pa.table({"c": ["4,5", "x"]}))
    columns = {"c": [text]}
    one = encoder.encode_columns(columns)
    same(one, encoder.encode_table(pa.table(columns)))
    assert one.ids[0, 0] > MISSING


def test_types_do_not_matter(encoder):
    table = mixed_table(200, seed=2)
    expected = encoder.encode_table(table)
    columns = columns_of(table)
    texts = {
        name: [None if v is None or isinstance(v, list) else str(v) for v in values]
        for name, values in columns.items()
        if name != "tags"
    }
    texts["tags"] = [",".join(v) for v in columns["tags"]]
    same(encoder.encode_columns(texts), expected)
    same(encoder.encode_table(pa.table(texts)), expected)
    arrays = {**columns, "user_id": np.array(columns["user_id"], float)}
    arrays["price"] = np.array(columns["price"], np.float64)
    same(encoder.encode_columns(arrays), expected)


def test_columns_left_out_are_missing(encoder):
    batch = encoder.encode_columns({"country": ["DE", None]})
    assert batch.ids[:, 0].tolist() == [MISSING, MISSING]
    assert batch.ids[1, 1] == MISSING
    assert batch.ids[0, -encoder.layout.fields[-1].width] == MISSING
    assert batch.dense[0, :-1].tolist() == [0, 0, 1, 0]
    none = encoder.encode_columns({"tags": [[]]})  # a missing list has no value, as an empty one
    assert batch.dense[0, -1] == none.dense[0, -1] < 0
    assert len(encoder.encode_columns({})) == 0


def test_unseen_values_and_rare_ones_share_id_0():
    table = pa.table({"c": ["a", "a", "b"]})
    encoder = fit([FieldSpec(name="c")], table)
    assert encoder.encode_table(table).ids[:, 0].tolist() == [2, 2, OUT_OF_VOCABULARY]
    assert encoder.encode_columns({"c": ["zzz"]}).ids[0, 0] == OUT_OF_VOCABULARY


def test_ids_follow_falling_counts_and_the_size_limit():
    table = pa.table({"c": ["b", "a", "b", "c", "a", "b", "c"]})
    policy = VocabularyPolicy(min_count=1, max_size=2)
    encoder = fit([FieldSpec(name="c", vocabulary=policy)], table)
    assert encoder.encode_columns({"c": ["b", "a", "c"]}).ids[:, 0].tolist() == [2, 3, 0]


def test_multi_valued_padding_and_which_end_is_kept():
    table = pa.table({"t": [["a", "b", "c"], ["a", "b"], ["a"], [], None]})
    for keep, expected in (("first", ["a", "b"]), ("last", ["b", "c"])):
        spec = FieldSpec(name="t", kind="multi_valued", max_len=2, keep=keep, vocabulary=KEEP_ALL)
        encoder = fit([spec], table)
        ids = encoder.encode_table(table).ids
        known = encoder.encode_columns({"t": [[v] for v in expected]}).ids[:, 0]
        assert ids[0].tolist() == known.tolist()
        assert ids[2, 1] == PADDING
        assert ids[3].tolist() == ids[4].tolist() == [MISSING, PADDING]
        same(encoder.encode_columns(columns_of(table)), encoder.encode_table(table))


def test_standardised_and_bucketised_numbers_by_hand():
    table = pa.table({"x": [1.0, 2.0, 3.0, 4.0, None]})
    specs = [
        FieldSpec(name="x", kind="numeric", transform="standard"),
        FieldSpec(name="b", column="x", kind="numeric", buckets=2),
    ]
    encoder = fit(specs, table)
    batch = encoder.encode_table(table)
    deviation = np.std([1, 2, 3, 4])
    expected = [(v - 2.5) / deviation for v in (1, 2, 3, 4)] + [0]
    np.testing.assert_allclose(batch.dense[:, 0], expected, rtol=1e-6)
    assert batch.dense[:, 1].tolist() == [0, 0, 0, 0, 1]
    assert batch.ids[:, 0].tolist() == [2, 2, 3, 3, MISSING]


def test_quantile_transform_is_monotone_and_normal():
    values = np.random.default_rng(0).lognormal(sigma=3, size=5000)
    encoder = fit([FieldSpec(name="x", kind="numeric")], pa.table({"x": values}))
    dense = encoder.encode_table(pa.table({"x": np.sort(values)})).dense[:, 0]
    assert (np.diff(dense) >= 0).all()
    assert abs(dense.mean()) < 0.01
    assert abs(dense.std() - 1) < 0.01
    assert abs(np.mean(dense < -1) - 0.159) < 0.01


def test_numbers_without_deviation_or_beyond_float32():
    table = pa.table({"c": [3.0] * 4, "h": [1e300, -1e300, 1e308, 0.0], "m": [None] * 4})
    specs = [FieldSpec(name=n, kind="numeric", buckets=4) for n in ("c", "h", "m")]
    encoder = fit(specs, table)
    batch = encoder.encode_table(table)
    assert np.isfinite(batch.dense).all()
    assert np.abs(batch.dense).max() < 11


def test_float32_and_float64_clients_get_the_same_row():
    values = np.round(np.random.default_rng(0).integers(1, 40, 500) * 0.1, 1)
    encoder = fit([FieldSpec(name="x", kind="numeric", buckets=32)], pa.table({"x": values}))
    double = encoder.encode_columns({"x": values})
    single = encoder.encode_columns({"x": values.astype(np.float32)})
    np.testing.assert_array_equal(double.ids, single.ids)
    np.testing.assert_array_equal(double.dense, single.dense)


def test_dense_vectors():
    table = pa.table({"v": [[1.0, 2.0], [3.0, 2.0], None]})
    encoder = fit([FieldSpec(name="v", kind="dense_vector", length=2)], table)
    assert encoder.layout.dense == ("v[0]", "v[1]")
    np.testing.assert_allclose(encoder.encode_table(table).dense, [[-1, 0], [1, 0], [0, 0]])
    same(encoder.encode_columns(columns_of(table)), encoder.encode_table(table))
    same(encoder.encode_columns({"v": ["1,2", "3,2", None]}), encoder.encode_table(table))


def test_small_numbers_of_a_list_are_those_of_its_text():
    """A vector of numbers among words: 1e-05 would be two of them."""
    table = pa.table({"v": ["5 a, 0.00001 b", "7 a, -2 b", "1 a, 3 b"] * 9})
    spec = FieldSpec(name="v", kind="dense_vector", length=2, separator="\\d")
    encoder = fit([spec, FieldSpec(name="words", column="v", kind="multi_valued")], table)
    lists = encoder.encode_columns({"v": [[5.0, 0.00001], [7, -2.0], [1.0, 3.0]] * 9})
    np.testing.assert_array_equal(lists.dense, encoder.encode_table(table).dense)


def test_dates_in_parts_are_read_in_their_order():
    dates = {name: (f"{name}_y", f"{name}_m", f"{name}_d") for name in "cab"}
    table = pa.table({name: ["2024-05-01", "2024-05-02"] for name in "abc"})
    encoder = fit([FieldSpec(name=n, kind="numeric", derive="epoch_days") for n in "abc"], table)
    inputs = inputs_of(encoder.encoders, (), dates)
    assert [field.name for field in inputs] == [part for parts in dates.values() for part in parts]


def test_joins_by_key_equal_joined_columns(joined):
    encoder, table, entities = joined
    wide = table
    for entity in entities:
        wide = entity.join(wide, ["age", "genre", "price"])
    assert wide["age"].to_pylist() == [20.0, 30.0, 30.0, None]
    same(encoder.encode_table(table), encoder.encode_table(wide))
    same(encoder.encode_columns(columns_of(wide)), encoder.encode_table(table))


def test_save_and_load(joined, encoder, tmp_path):
    table = mixed_table(100, seed=5)
    encoder.save(tmp_path / "plain")
    again = RowEncoder.load(tmp_path / "plain")
    assert again.layout == encoder.layout
    assert again.input_fields == encoder.input_fields
    same(again.encode_table(table), encoder.encode_table(table))
    joined[0].save(tmp_path / "joined")
    again = RowEncoder.load(tmp_path / "joined")
    same(
        again.encode_rank(1, {"slot": "a"}, [10, 99]),
        joined[0].encode_rank(1, {"slot": "a"}, [10, 99]),
    )
    (tmp_path / "joined" / "vocabularies.arrow").write_bytes(b"ARROW1 damaged")
    with pytest.raises(BundleError, match="no readable encoder"):
        RowEncoder.load(tmp_path / "joined")


def test_bad_columns_are_refused(encoder):
    with pytest.raises(DataError, match="different numbers of rows"):
        encoder.encode_columns({"country": ["DE"], "price": [1.0, 2.0]})
    with pytest.raises(DataError, match="'price' is numeric but was given 'cheap'"):
        encoder.encode_columns({"price": ["cheap"]})


VECTOR = FieldSpec(name="v", kind="dense_vector", length=2)


@pytest.fixture(scope="module")
def strict():
    table = mixed_table().append_column("v", pa.array([[1.0, 2.0], [2.0, 4.0]] * 200))
    return fit((*SPECS, VECTOR), table)


@pytest.mark.parametrize("num_rows", [3, 3000])
@pytest.mark.parametrize(
    ("name", "bad", "good", "says"),
    [
        ("country", ["DE"], "DE", r"'country' takes one value per row but was given .*DE"),
        ("country", {"a": 1}, "DE", "'country' takes one value per row"),
        ("price", [1.0], 1.0, "'price' is numeric but was given"),
        ("price", 10**400, 1.0, "'price' is numeric but was given"),
        ("time", [1], 1.6e9, "'time' takes one date or time per row but was given"),
        ("time", "soon", 1.6e9, "'time' takes one date or time per row but was given 'soon'"),
        ("time", 10**400, 1.6e9, "'time' takes .* given '10000"),
        ("tags", [["a"]], ["a"], "'tags' takes lists of single values but was given"),
        ("tags", {"a": 1}, ["a"], "'tags' takes lists of single values"),
        ("v", 5.0, [1.0, 2.0], "'v' takes lists of 2 numbers but was given '5.0'"),
        ("v", ["a", "b"], [1.0, 2.0], "'v' takes lists of 2 numbers but was given .*'a"),
        ("v", "a,b", "1,2", "'v' takes lists of 2 numbers but was given 'a,b'"),
        ("v", "1,2", [1.0, 2.0], "'v' takes lists of 2 numbers but was given '1,2'"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_values_of_another_kind_are_refused(strict, name, bad, good, says, num_rows, alone):
    if bad == "1,2" and alone:
        return  # texts among lists are refused, texts alone are vectors
    values = [bad if alone else good] * (num_rows - 1) + [bad]
    with pytest.raises(DataError, match=says) as caught:
        strict.encode_columns({name: values})
    assert "\n" not in str(caught.value)
    assert len(strict.encode_columns({name: [good] * num_rows})) == num_rows


def test_hashed_categories_and_keys_are_single_values(joined):
    policy = VocabularyPolicy(hash_buckets=7)
    encoder = fit([FieldSpec(name="h", vocabulary=policy)], pa.table({"h": ["a", "b"]}))
    with pytest.raises(DataError, match="'h' takes one value per row"):
        encoder.encode_columns({"h": ["a", ["b"]]})
    for user, candidates in ((1, [10, [11]]), ([1], [10])):
        with pytest.raises(DataError, match="is one value, not a list"):
            joined[0].encode_rank(user, {}, candidates)


def test_repeated_keys_are_refused():
    with pytest.raises(DataError, match="1 repeated values of its key 'k'"):
        RawEntity("item", "k", pa.table({"k": [1, 1, 2], "a": [1, 2, 3]}))
