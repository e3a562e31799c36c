import gzip

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from dynens.data.reading.layouts import told_names, with_decimal
from dynens.data.reading.numbers import to_numbers
from dynens.data.reading.sources import (
    expand,
    file_schema,
    iter_tables,
    not_utf8,
    read_sample,
    read_table,
    table_name,
)
from dynens.errors import DataError
from dynens.schema import SourceOptions

TABLE = pa.table({"a": [1, 2, 3, 4], "b": ["x", "y, z", 'q"q', "ü"], "y": [0, 1, 0, 1]})


def write(path, table=TABLE):
    name = path.name
    if ".csv" in name or ".tsv" in name:
        text = pa.BufferOutputStream()
        delimiter = "\t" if ".tsv" in name else ","
        pacsv.write_csv(table, text, pacsv.WriteOptions(delimiter=delimiter))
        with pa.output_stream(str(path), compression="detect") as stream:
            stream.write(text.getvalue())
    elif ".parquet" in name:
        pq.write_table(table, path)
    else:
        with pa.output_stream(str(path), compression="detect") as stream:
            new = ipc.new_stream if ".arrows" in name else ipc.new_file
            with new(stream, table.schema) as writer:
                writer.write_table(table)
    return path


@pytest.mark.parametrize(
    "name",
    ["t.csv", "t.tsv", "t.csv.gz", "t.csv.zst", "t.parquet", "t.arrow", "t.arrow.zst", "t.arrows"],
)
def test_every_format_gives_the_same_rows(tmp_path, name):
    table = read_table([str(write(tmp_path / name))])
    assert table.column_names == ["a", "b", "y"]
    assert to_numbers(table["a"]).values.tolist() == [1, 2, 3, 4]
    assert table["b"].to_pylist() == TABLE["b"].to_pylist()


def test_globs_in_order(tmp_path):
    for i in (2, 1, 3):
        write(tmp_path / f"part-{i}.csv", TABLE.slice(i, 1))
    files = expand([str(tmp_path / "part-*.csv")])
    assert [f.name for f in files] == ["part-1.csv", "part-2.csv", "part-3.csv"]
    assert read_table([str(tmp_path / "part-*.csv")])["a"].to_pylist() == ["2", "3", "4"]


def test_only_the_columns_asked_for(tmp_path):
    path = write(tmp_path / "t.csv")
    tables = [t for _, t in iter_tables([str(path)], columns=["y", "nope"])]
    assert tables[0].column_names == ["y"]


@pytest.mark.parametrize("delimiter", [";", "|", "\t"])
def test_delimiters_are_found_out(tmp_path, delimiter):
    path = tmp_path / "t.txt"
    path.write_text("a,y\n1,0\n2,1\n".replace(",", delimiter))
    assert read_table([str(path)])["y"].to_pylist() == ["0", "1"]


def test_bom_crlf_and_quoted_newlines(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfa,y\r\n"1\r\n2",0\r\n3,1\r\n')
    table = read_table([str(path)])
    assert table.column_names == ["a", "y"]
    assert table.num_rows == 2


def test_a_header_of_any_length(tmp_path):
    names = [f"a_rather_long_name_of_a_column_{i:05d}" for i in range(4000)]
    for ending in ("csv", "csv.gz"):
        path = tmp_path / f"wide.{ending}"
        with pa.output_stream(str(path), compression="detect") as stream:
            stream.write(f"{','.join(names)}\n{','.join(['1'] * 4000)}\n".encode())
        assert file_schema(path).names == names


def test_a_text_that_is_not_what_its_name_says(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(GOOD)
    with pytest.raises(DataError, match=r"t\.csv\.gz cannot be read as a table"):
        with_decimal([str(path)], SourceOptions())


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_names_with_line_feeds(tmp_path, newline):
    path = tmp_path / "t.csv"
    rows = newline.join(['a,"two', 'lines ""of"" it",y', "1,2,0", "3,4"])
    path.write_bytes(rows[: rows.rindex(newline)].encode())
    table = read_table([str(path)])
    assert table.column_names == ["a", f'two{newline}lines "of" it', "y"]
    assert table.to_pylist() == [dict(zip(table.column_names, "120", strict=True))]
    path.write_bytes(rows.encode())
    with pytest.raises(DataError, match="line 4 has 2 values but the table has 3 columns"):
        read_table([str(path)])


def test_quotes_that_enclose_nothing(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('size 5",y\n1,0\n')
    assert read_table([str(path)]).column_names == ['size 5"', "y"]
    path.write_text('"a\tb\n1\t"2\n')
    options = SourceOptions(header=False, columns=("a", "b"), quoting=False)
    assert read_table([str(path)], options)["b"].to_pylist() == ["b", '"2']


def test_delimiters_between_quotes_do_not_count(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('\ufeff"price, usd";"a, ""b"", c";y\n1;2;0\n')
    table = read_table([str(path)])
    assert table.column_names == ["price, usd", 'a, "b", c', "y"]
    assert table["y"].to_pylist() == ["0"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"', "\ufeffsep=;"])
def test_the_delimiter_that_excel_tells(tmp_path, first):
    path = tmp_path / "t.csv"
    path.write_text(f"{first}\na,b;y\n1,5;0\n")
    assert read_table([str(path)]).to_pylist() == [{"a,b": "1,5", "y": "0"}]
    options = SourceOptions(header=False, columns=("a", "y"))
    assert read_table([str(path)], options)["y"].to_pylist() == ["y", "0"]


def test_without_header(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("1\t2\n0\t\n")
    options = SourceOptions(header=False, columns=("y", "a"), quoting=False)
    assert read_table([str(path)], options)["a"].to_pylist() == ["2", None]
    (tmp_path / "o.tsv").write_text('{"os": "ios"}\t0\n{"os": "web"}\t1\n')
    assert read_table([str(tmp_path / "o.tsv")], options)["y"][1].as_py() == '{"os": "web"}'


def test_libsvm_lists_and_numbers(tmp_path):
    ones = tmp_path / "ones.libsvm"
    ones.write_text("1 3:1 7:1\n-1 2:1 # comment\n")
    assert read_table([str(ones)])["features"].to_pylist() == [["3", "7"], ["2"]]
    numbers = tmp_path / "numbers.svm"
    numbers.write_text("1 1:0.5 3:2\n0 2:-1\n")
    table = read_table([str(numbers)])
    assert table.column_names == ["label", "f1", "f2", "f3"]
    assert table["f3"].to_pylist() == [2, 0]


def test_libsvm_of_a_table_that_is_known_has_its_columns(tmp_path):
    numbers, ones = tmp_path / "numbers.svm", tmp_path / "ones.svm"
    numbers.write_text("1 1:0.5 2:2\n")
    ones.write_text("1 2:1 2000:1\n")
    for path, row in ((numbers, [0, 0.5, 2, 0]), (ones, [0, 0, 1, 0])):
        (_, table), *_ = iter_tables([str(path)], known=["f0", "f3"])
        assert table.drop_columns("label").to_pylist() == [
            {f"f{i}": value for i, value in enumerate(row)}
        ]
    (_, table), *_ = iter_tables([str(numbers)], known=["features"])
    assert table["features"].to_pylist() == [["1", "2"]]


def test_samples_stand_at_even_distances(tmp_path):
    for i in range(3):
        pq.write_table(pa.table({"a": np.arange(1000) + 1000 * i}), tmp_path / f"{i}.parquet")
    sample, distance = read_sample([str(tmp_path / "*.parquet")], SourceOptions(), 100)
    sample = sample["a"].to_numpy()
    assert distance == 16
    assert 100 <= len(sample) <= 200
    assert set(np.diff(sample)) == {16}
    assert sample[0] == 0
    whole, _ = read_sample([str(tmp_path / "*.parquet")], SourceOptions(), 5000)
    assert whole.num_rows == 3000


def test_older_encodings(tmp_path):
    table = "é,ville,y\n" + "1,Nîmes,0\n2,Köln – €,1\n3,Lyon,\n" * 3
    path = tmp_path / "t.csv"
    for encoding in ("utf-8", "windows-1252"):
        path.write_bytes(table.encode(encoding))
        read = read_table([str(path)])
        assert read.column_names == ["é", "ville", "y"]
        assert read["ville"].to_pylist() == ["Nîmes", "Köln – €", "Lyon"] * 3
        assert read["y"].to_pylist() == ["0", "1", None] * 3
        assert not_utf8([str(path)]) == ([] if encoding == "utf-8" else [path])
    path.write_bytes(b"a,y\n\x81,1\nN\xc3\xaemes,0\nN\xeemes,0\n")  # both, and what neither has
    assert read_table([str(path)])["a"].to_pylist() == ["\x81", "Nîmes", "Nîmes"]
    damaged = tmp_path / "t.csv.gz"
    damaged.write_bytes(gzip.compress(np.random.default_rng(0).bytes(99_999))[:5000])
    with pytest.raises(DataError, match="truncated"):
        not_utf8([str(damaged)])


def broken(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table([str(path)])
    message = str(caught.value)
    assert "\n" not in message
    return message


GOOD = b"a,b,y\n" + b"1,2,0\n" * 50


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.csv", b"", "is empty"),
        ("t.csv", b"a,b,y\n", "has no rows"),
        ("t.csv", b"\n\n", "first line is blank"),
        ("t.csv", GOOD + b"1,2\n", "line 52 has 2 values but the table has 3 columns"),
        ("t.csv", GOOD + b"1,2,3,4\n" + GOOD, "line 52 has 4 values"),
        ("t.csv", b"1,1,y\n1,2,3\n", "two columns called '1'; if it has no header"),
        ("t.csv", b"a,,\n1,2,3\n", "3 has no name; name every column, or, if it has no header"),
        ("t.csv", b"0,1,0\n1,2,3\n", "if it has no header, name its columns in a dataset.yaml"),
        ("t.csv", b"Sales of May\n\n" + GOOD, "its first line 'Sales of May' names one column"),
        ("t.csv", b"# of 2024\n" + GOOD, "its first line '# of 2024' is a comment"),
        ("t.csv.zip", b"PK\x03\x04\x00", "is a zip archive or an Excel workbook"),
        ("t.csv", bytes(range(256)), "zero bytes"),
        ("t.jsonl", b'{"a": 1, "y": 0}\n', "is JSON, which is not read; convert it to Parquet"),
        ("t.csv", b'{"a": 1, "y": 0}\n{"a": 1}\n', "t.csv is JSON, which is not read"),
        ("t.csv", b'[\n  {\n    "a": 1\n  }\n]\n', "t.csv is JSON, which is not read"),
        (
            "t.ndjson.gz",
            gzip.compress(b'{"a": 1}\n', mtime=0),
            "ndjson.gz is JSON, which is not read",
        ),
        ("t.csv", b"\xff\xfe" + b"\x00\xd8" * 9, "cannot be read"),
        ("t.csv", GOOD.replace(b"\n", b"\r"), "end lines with a line feed"),
        (
            "t.csv.gz",
            gzip.compress(np.random.default_rng(0).bytes(9999).hex().encode(), mtime=0)[:99],
            "trunc",
        ),
        ("t.csv.gz", GOOD, "cannot be read"),
        ("t.parquet", b"PAR1xxxxxxxx", "cannot be read"),
        ("t.arrow", b"nothing of the kind", "cannot be read"),
        ("t.libsvm", b"1 3:x\n", "line 1 is not libsvm"),
        ("t.libsvm", b"1 -1:3 2:4\n", "line 1 is not libsvm"),
    ],
)
def test_bad_files_get_one_sentence(tmp_path, name, content, says):
    assert says in broken(tmp_path, name, content)


def test_later_columns_of_one_name_are_counted(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("price,qty,price ,price.1,price\n1,2,3,4,5\n")
    table = read_table([str(path)])
    assert table.column_names == ["price", "qty", "price.2", "price.1", "price.3"]
    assert [column[0].as_py() for column in table.columns] == ["1", "2", "3", "4", "5"]
    chosen = next(iter_tables([str(path)], columns=["price.2"]))[1]
    assert chosen.to_pydict() == {"price.2": ["3"]}


def test_few_columns_without_a_name_are_not_read(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,,b,y,\n1,2,3,4,\n")
    assert read_table([str(path)]).to_pydict() == {"a": ["1"], "b": ["3"], "y": ["4"]}
    told = f"{path}: columns without a name are not read (2, 5)"
    assert told_names([str(path)], SourceOptions()) == [told]
    given = SourceOptions(header=False, columns=(" a", "b", "c", "d", "e"))
    assert read_table([str(path)], given).column_names == [" a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("line", "is_told"),
    [("0,7,3,3f2a", True), ("5,2,9,label", True), ("0,1,2,label", False), ("2,y,x,1", False)],
)
def test_names_that_look_like_values_are_told(tmp_path, line, is_told):
    path = tmp_path / "t.csv"
    path.write_text(line + "\n1,2,3,4\n")
    told = told_names([str(path)], SourceOptions())
    assert ["looks like a row; if it has no header" in text for text in told] == [True] * is_told


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("ending", ["tsv", "tsv.gz"])
def test_utf16_as_excel_writes_it(tmp_path, encoding, ending):
    text = "name\ty\nMünchen 😀\t1\n" + 'a "b\t0\n' * 9
    mark = "" if encoding == "utf-16" else "\ufeff"
    content = (mark + text).encode(encoding)
    path = tmp_path / f"t.{ending}"
    path.write_bytes(gzip.compress(content) if ending == "tsv.gz" else content)
    table = read_table([str(path)])
    assert table.column_names == ["name", "y"]
    assert table["name"].to_pylist()[:2] == ["München 😀", 'a "b']
    assert not_utf8([str(path)]) == []


def test_truncated_gzip_of_a_long_file(tmp_path):
    whole = gzip.compress(GOOD * 1000)
    assert "truncated" in broken(tmp_path, "t.csv.gz", whole[: len(whole) // 2])


def test_the_pattern_for_a_folder_fits_its_files(tmp_path):
    for name in ("_SUCCESS", ".part-0.crc", "README.md", "model.pkl", "part-0.csv"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"such as .*/\*\.csv\.$"):
        expand([str(tmp_path)])


def test_the_pattern_for_a_folder_of_folders(tmp_path):
    for name in ("_tmp/part.parquet", "c=DE/part.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"such as .*/\*\*/\*\.csv\.$"):
        expand([str(tmp_path)])
    found = expand([str(tmp_path / "**" / "*")])
    assert [path.name for path in found] == ["part.csv"]


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    for name in (
        "log.parquet/_SUCCESS",
        "log.parquet/part-1.parquet",
        "log.parquet/part-0.parquet",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand([str(tmp_path / "log.parquet")])
    assert [path.name for path in found] == ["part-0.parquet", "part-1.parquet"]


def test_wildcards_leave_out_marks(tmp_path):
    for name in ("_SUCCESS", ".part-0.crc", "part-0.csv", "_x.csv"):
        (tmp_path / name).touch()
    assert [path.name for path in expand([str(tmp_path / "*")])] == ["part-0.csv"]
    assert [path.name for path in expand([str(tmp_path / "_*.csv")])] == ["_x.csv"]


def test_folders_are_spelled_as_they_are(tmp_path):
    (tmp_path / "br[1]").mkdir()
    (tmp_path / "br[1]" / "log-1.csv").touch()
    assert [path.name for path in expand([str(tmp_path / "br[1]" / "log-[12].csv")])] == [
        "log-1.csv"
    ]


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        expand([str(tmp_path / "nope.csv")])
    with pytest.raises(DataError, match="does not exist"):
        expand(["x" * 300])
    with pytest.raises(DataError, match="a table is named by an empty text"):
        expand([" "])
    with pytest.raises(DataError, match="/dev/null is not a file"):
        expand(["/dev/null"])
    with pytest.raises(DataError, match="is a folder"):
        expand([str(tmp_path)])


def test_folders_that_name_a_value_are_a_column(tmp_path):
    table = pa.table({"country": ["DE", "FR", "a/b", None], "x": [1, 2, 3, 4]})
    pq.write_to_dataset(table, tmp_path / "log", partition_cols=["country"])
    pattern = str(tmp_path / "log" / "**" / "*.parquet")
    assert expand([str(tmp_path / "log")]) == expand([pattern])
    for path, part in iter_tables([pattern]):
        assert file_schema(path).names == part.column_names == ["x", "country"]
    found = read_table([pattern]).sort_by("x").to_pydict()
    assert found == {"x": [1, 2, 3, 4], "country": ["DE", "FR", "a/b", None]}
    assert [t.column_names for _, t in iter_tables([pattern], columns=["x"])] == [["x"]] * 4


def test_a_column_of_the_file_is_not_overwritten_by_its_folder(tmp_path):
    (tmp_path / "x=9").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x=9" / "t.parquet")
    assert read_table([str(tmp_path / "x=9" / "t.parquet")]).to_pydict() == {"x": [1]}


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("logs/clicks.csv.gz", "clicks"),
        ("logs/part-*.parquet", "logs"),
        ("logs/**/*.parquet", "logs"),
        ("clicks", "clicks"),
        ("*.csv", "dataset"),
    ],
)
def test_a_table_has_the_name_of_its_file_or_folder(pattern: str, name: str) -> None:
    assert table_name(pattern) == name
