import numpy as np
import pyarrow as pa
import pytest

from dynens.data.encoding.fitters import field_fitter, tie_fields
from dynens.data.encoding.fitting import (
    DenseVectorFitter,
    MultiValuedFitter,
)
from dynens.data.inference.infer import infer_schema
from dynens.errors import DataError
from dynens.schema import FieldSpec


def fitted(lengths, **options):
    spec = FieldSpec(name="watched", kind="multi_valued", **options)
    fitter = MultiValuedFitter(spec)
    fitter.add(pa.array([[f"i{i}" for i in range(length)] for length in lengths]))
    return fitter


def test_lists_that_are_cut_are_told():
    lengths = [3] * 50 + [20] * 25 + [21] * 25
    assert fitted(lengths, keep="last").warning() == (
        "25% of the lists in watched are longer than 20 values, of which the last 20 are kept; "
        "max_len and keep of the field say so"
    )
    assert fitted(lengths, max_len=5).warning() is None
    assert fitted([20] * 99 + [21]).warning() is None
    assert fitted([]).warning() is None


@pytest.mark.parametrize(("keep", "kept"), [("first", range(20)), ("last", range(2, 22))])
def test_the_end_that_is_kept(keep, kept):
    encoder = fitted([22] * 3, keep=keep).finish()
    ids = np.zeros((1, 20), np.int32)
    encoder.encode_values([[f"i{i}" for i in range(22)]], np.zeros((1, 0), np.float32), ids)
    assert ids[0].tolist() == [encoder.vocabulary.id_of(f"i{i}") for i in kept]


def test_lengths_of_lists_beside_their_values():
    encoder = fitted([0, 3, 3, 7], max_len=2).finish()
    assert encoder.dense == ("watched#length",)
    values = [["i0"] * 3, None, ["i0", None, "unseen"], "i1,i2", ["i0"] * 7]
    dense, ids = np.zeros((5, 1), np.float32), np.zeros((5, 2), np.int32)
    encoder.encode_values(values, dense, ids)
    # log2(1 + n) of 0, 3, 3, 7 is 0, 2, 2, 3: mean 1.75, deviation sqrt(1.1875).
    counts = np.array([3, 0, 2, 2, 7])  # cut off and unseen values count, missing ones do not
    np.testing.assert_allclose(dense[:, 0], (np.log2(1 + counts) - 1.75) / 1.1875**0.5, rtol=1e-6)
    column = pa.array([["i0"] * 3, None, ["i0", None, "unseen"], ["i1", "i2"], ["i0"] * 7])
    together = np.zeros_like(dense)
    encoder.encode(column, together, ids)
    np.testing.assert_array_equal(together, dense)


@pytest.mark.parametrize("lengths", [[4] * 9, [4] * 995 + [5] * 5, []])
def test_equally_long_lists_have_no_length_column(lengths):
    assert fitted(lengths).finish().dense == ()


def test_a_length_that_training_never_had_does_not_swamp_the_row():
    encoder = fitted([18, 19, 20] * 50).finish()
    dense, ids = np.zeros((3, 1), np.float32), np.zeros((3, encoder.width), np.int32)
    encoder.encode_values([None, ["i0"] * 500, ["i0"] * 19], dense, ids)
    assert dense[:2, 0].tolist() == [-3.0, 3.0]
    assert abs(dense[2, 0]) < 0.1


def test_lists_that_are_found_keep_what_is_newest(tmp_path):
    rng = np.random.default_rng(0)
    texts = ["|".join(f"i{i}" for i in rng.integers(0, 60, 30)) for _ in range(300)]
    path = tmp_path / "t.csv"
    rows = [f"{text},{label}" for text, label in zip(texts, rng.integers(0, 2, 300), strict=True)]
    path.write_text("\n".join(["watched,y", *rows]))
    (field,) = infer_schema(path, "y").dataset.features.fields
    assert (field.kind, field.separator, field.keep) == ("multi_valued", "|", "last")


def vectors_fitted(lists):
    fitter = DenseVectorFitter(FieldSpec(name="v", kind="dense_vector", length=2))
    half = len(lists) // 2
    fitter.add(pa.array(lists[:half], pa.list_(pa.float64())))
    other = DenseVectorFitter(fitter.spec)
    other.add(pa.array(lists[half:], pa.list_(pa.float64())))
    fitter.merge(other)
    return fitter


def test_vectors_of_another_length_are_told():
    assert vectors_fitted([[1, 2], None, [], [3, 4]]).warning() is None
    told = vectors_fitted([[1, 2], [1, 2, 3], [3, 4], [5], None]).warning()
    assert told == "50% of the lists in v are no vectors of 2 numbers, and count as missing"


def test_a_column_that_holds_no_vector_at_all_is_refused():
    with pytest.raises(DataError, match="'v' is a dense_vector of length 2, and no row holds so"):
        vectors_fitted([[1, 2, 3], [4], None]).finish()
    assert vectors_fitted([None, None]).finish().mean.tolist() == [0, 0]


@pytest.mark.parametrize("num_rows", [10, 1500])
def test_vectors_of_files_without_usable_rows(num_rows):
    """Parts that saw nothing have no width, and merge all the same."""
    rng = np.random.default_rng(0)
    fitters = []
    for i in range(3):
        pair = [
            field_fitter(
                FieldSpec(name=n, kind="dense_vector", length=4, dot_with=w),
                first_row=num_rows if i else 0,
            )
            for n, w in (("doc", "query"), ("query", None))
        ]
        for fitter in pair if i != 1 else ():
            fitter.add(pa.array(list(rng.normal(size=(num_rows, 4)))))
        fitters.append(pair)
    first, *others = fitters
    for pair in others:
        for whole, part in zip(first, pair, strict=True):
            whole.merge(part)
    tie_fields(first)
    middle, scale = first[0].finish().dot
    assert abs(middle) < 1
    assert 0 < scale < 2
