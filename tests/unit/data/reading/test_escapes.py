import gzip

import pyarrow as pa
import pytest

from dynens.data.reading.escapes import (
    doubled,
    has_escapes,
    has_spaces_before_quotes,
    without_spaces,
)
from dynens.data.reading.sources import read_table
from dynens.errors import DataError
from dynens.schema import SourceOptions


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r'"5\" pipe",1', True),
        (r'1,"\"q\" r"', True),
        (r'"say \"hi\", ok",1', True),
        (r'"x\\\"y",1', True),
        (r'"C:\",1', False),
        (r'1,"C:\"', False),
        (r'"x\\",1', False),
        (r'"{""k"": ""5\"" pipe""}",1', False),  # JSON
        (r'[{"k": "5\" pipe"}],1', False),
        (r"a\"b,1", False),
    ],
)
def test_backslashes_before_quotes_are_told_by_values_that_would_end(text, found):
    assert has_escapes(f"a,b\r\n{text}\r\n".encode(), ",") is found


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_quotes_are_doubled_wherever_a_part_of_the_file_ends(size):
    read = doubled(pa.BufferReader(rb'"\"a\\\" \N b\\";C:\\'))
    assert b"".join(iter(lambda: read.read(size), b"")) == rb'"""a\\"" \N b\\";C:\\'


def test_values_are_read_as_they_were_before_a_backslash_was_put_in(tmp_path):
    path = tmp_path / "t.csv.gz"
    rows = 'name;y\r\n"The \\"Red\\" House; new";1\r\n"\\"A\\"";\\N\r\n"D:\\x";0\r\n'
    path.write_bytes(gzip.compress(rows.encode()))
    assert read_table([str(path)]).to_pydict() == {
        "name": ['The "Red" House; new', '"A"', "D:\\x"],
        "y": ["1", None, "0"],
    }
    raw = SourceOptions(quoting=False, delimiter="\t")
    assert read_table([str(path)], raw).column(0)[0].as_py() == r'"The \"Red\" House; new";1'


def test_where_only_far_rows_have_them_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("dynens.data.reading.sources.BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "1,2\n" * 100 + r'"say \"hi\", ok",1')
    with pytest.raises(DataError, match=r"line 102 has 3 values .*; write quotes in values as two"):
        read_table([str(path)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('1, "Smith, A"', True),
        ('"1", "x", 2', True),
        ('"1","x", "y"', False),  # there the space belongs to the value, as everywhere
        ('1,"said, ""x"", and went"', False),
        ('1,he said, "x" and went', False),
        ("1, x", False),
    ],
)
def test_spaces_before_quotes_are_told_by_quotes_that_only_follow_them(text, found):
    assert has_spaces_before_quotes(f"a,b\r\n{text}\r\n".encode(), ",") is found


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_spaces_go_wherever_a_part_of_the_file_ends(size):
    read = without_spaces(pa.BufferReader(b'1;  "a; b"; c;\n2; "";  "d"'), ";")
    assert b"".join(iter(lambda: read.read(size), b"")) == b'1;"a; b"; c;\n2;"";"d"'


def test_a_table_with_spaces_before_quotes_is_the_one_without(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('id, "name, first", y\n1, "Smith, ""A""", "0"\n2, "Jones", "1"\n')
    assert read_table([str(path)]).to_pydict() == {
        "id": ["1", "2"],
        "name, first": ['Smith, "A"', "Jones"],
        "y": ["0", "1"],
    }
