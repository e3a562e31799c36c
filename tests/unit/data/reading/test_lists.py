import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynens.batch import MISSING, PADDING
from dynens.data.encoding.list_field import LengthScale, MultiValuedEncoder
from dynens.data.encoding.vocabulary import Vocabulary
from dynens.data.reading.lists import CARET, DOTTED, PIECES, PREFIXES, split_lists, split_text
from dynens.schema import FieldSpec

ALPHABET = "abABİΣ.?^[](1){}好ごไ ,|\t\n\u00a0\u2003\u3000\x1c\x1f\x85"


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(
    "separator", [None, ",", "|", " ", "", CARET, DOTTED, PIECES, "^2", r"\,|", r"\ b"]
)
@example(texts=["\u2003[a]", "\x0b[b]"])
@example(texts=["(1 2)\n", "POINT(1 1)", "[(1, 1)]", "(1)", "(a 1)", "1 (1 1)", "\u00a0(1 1)"])
@given(texts=st.lists(st.none() | st.text(ALPHABET, max_size=12), min_size=1, max_size=8))
def test_texts_are_split_alike_alone_and_in_a_column(separator, fold, texts):
    spec = FieldSpec(name="t", kind="multi_valued", separator=separator, fold_words=fold)
    vocabulary = Vocabulary(pa.array(["a", "b", "ab", "ba", "A", "i", "σ", "好", "ご"]))
    encoder = MultiValuedEncoder(spec, vocabulary, 6, LengthScale(0.0, 1.0))
    alone, together = np.zeros((2, len(texts), 6), np.int32)
    lengths, lengths_together = np.zeros((2, len(texts), 1), np.float32)
    encoder.encode_values(texts, lengths, alone)
    encoder.encode(pa.array(texts, pa.string()), lengths_together, together)
    np.testing.assert_array_equal(alone, together)
    np.testing.assert_array_equal(lengths, lengths_together)


@pytest.mark.parametrize(
    ("column", "values", "lengths"),
    [
        (pa.array(["a,b", None, "c"]), ["a", "b", "c"], [2, 0, 1]),
        (pa.array(["['a', \"b\"]", '{"a","b c"}', "{}"]), ["a", " b", "a", "b c", ""], [2, 2, 1]),
        (pa.array([["a", "b"], None, []]), ["a", "b"], [2, 0, 0]),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), [1, 2, 3, 4], [2, 2]),
        (pa.array([5, None]), [5], [1, 0]),
    ],
)
def test_lists_end_to_end(column, values, lengths):
    flat, sizes = split_lists(column, ",")
    assert flat.to_pylist() == values
    assert sizes.tolist() == lengths


def test_characters_are_words_where_a_script_has_no_spaces():
    column = pa.array(["iPhone 15 手机壳", "とても[x]", None])
    flat, lengths = split_lists(column, "")
    assert flat.to_pylist() == ["iPhone", "15", "手", "机", "壳", "と", "て", "も", "[x]"]
    assert lengths.tolist() == [5, 4, 0]
    assert split_lists(column, None)[0].to_pylist() == ["iPhone", "15", "手机壳", "とても[x]"]


def test_pieces_of_words():
    text = "Mozilla/5.0 (X11; Linux_x86) Chrome/120.0-b"
    flat, lengths = split_lists(pa.array([text, None, "..."]), PIECES)
    pieces = ["Mozilla", "5", "0", "X11", "Linux", "x86", "Chrome", "120", "0", "b"]
    assert flat.to_pylist() == [*pieces, ""]
    assert lengths.tolist() == [10, 0, 1]
    assert split_text(text, PIECES) == pieces


def test_folded_words_know_no_capitals_and_no_punctuation_around_them():
    column = pa.array(["Red Shoes, (kids') - C++!", "ÄRMEL|", None])
    flat, lengths = split_lists(column, None, fold=True)
    assert flat.to_pylist() == ["red", "shoes", "kids", "", "c++", "ärmel"]
    assert lengths.tolist() == [5, 1, 0]
    spec = FieldSpec(name="t", kind="multi_valued", separator=None, fold_words=True)
    encoder = MultiValuedEncoder(spec, Vocabulary(pa.array(["c++", "kids", "red"])), 5)
    ids = np.zeros((1, 5), np.int32)
    encoder.encode(column.slice(0, 1), np.zeros((1, 0), np.float32), ids)
    assert ids.tolist() == [[4, 0, 3, 2, -1]]  # a word of punctuation alone is none


def test_values_without_their_weights():
    flat, lengths = split_lists(pa.array(["12:0.53,184: 0.1", "a:b:1,c", None, ":1"]), r"\,:")
    assert flat.to_pylist() == ["12", "184", "a:b", "c", ""]
    assert lengths.tolist() == [2, 2, 0, 1]
    assert split_text("46 0.04; 300 0.9", r"\; ") == ["46", " 300"]


def test_numbers_with_dots_have_beginnings_at_each():
    texts = ["10.2.30.4", "5.1", "v7", "1.2.3.4.5-b.6", None, "[1.2]", ".."]
    flat, lengths = split_lists(pa.array(texts), DOTTED)
    read = [split_text(text, DOTTED) for text in texts if text is not None]
    assert flat.to_pylist() == [value for row in read for value in row]
    assert lengths.tolist() == [4, 2, 1, 4, 0, 2, 3]
    assert read[0] == ["10.", "10.2.", "10.2.30.", "10.2.30.4"]
    assert read[3] == ["1.", "1.2.", "1.2.3.", "1.2.3.4.5-b.6"]
    assert read[1] == split_lists(pa.array([5.1]), DOTTED)[0].to_pylist() == ["5.", "5.1"]


@pytest.mark.parametrize("values", [["12345", None], [12345, None], [12345.0, np.nan]])
def test_codes_have_beginnings_as_numbers_too(values):
    spec = FieldSpec(name="zip", kind="multi_valued", separator=PREFIXES)
    encoder = MultiValuedEncoder(spec, Vocabulary(pa.array(["1", "12", "123", "1234"])), 4)
    none = np.zeros((2, 0), np.float32)
    alone, together = np.zeros((2, 2, 4), np.int32)
    encoder.encode_values(values, none, alone)
    encoder.encode(pa.array(values), none, together)
    expected = [[2, 3, 4, 5], [MISSING, PADDING, PADDING, PADDING]]
    assert alone.tolist() == together.tolist() == expected
