"""How a text file begins: its delimiter, and the line that names its columns."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from dynens.data.reading.spelled import parse_number
from dynens.data.reading.values import one_line
from dynens.errors import DataError
from dynens.schema import SourceOptions

BLOCK_BYTES = 8 << 20
_SNIFF_BYTES = 64 << 10
_RAGGED = re.compile(r"(?:Row #(\d+): )?Expected (\d+) columns, got (\d+): ?([^\n]*)")
_JSON = re.compile(r"\.(json|jsonl|ndjson)(\.|$)")
_OBJECT = re.compile(r'\[?\s*\{\s*("[^"]*"\s*:.*)?|\[')  # how a file of JSON begins
_BOM = b"\xef\xbb\xbf"
_BOMS_16 = (b"\xff\xfe", b"\xfe\xff")
_QUOTED = r'(?<![^,;\t|\n])"(?:[^"]|"")*+"'  # quotes enclose where they open a value
_TOLD = r'(?P<told>"?sep=(?P<delimiter>[^\n])"?\r?\n)?'  # Excel's
# By whether quotes enclose values, line feeds among them.
_HEAD = {
    False: re.compile(rf"{_TOLD}(?P<line>[^\n]*+)".encode(), re.IGNORECASE),
    True: re.compile(rf"{_TOLD}(?P<line>(?:{_QUOTED}|[^\n])*+)".encode(), re.IGNORECASE),
}
_NUMBERS_OF_A_ROW = 3
_LINE_END = re.compile(rb"\r\n?|\n")
NO_HEADER = (
    "if it has no header, name its columns in a dataset.yaml, as in "
    "`source: {header: false, columns: [a, b]}`."
)


@dataclass(frozen=True)
class Head:
    """How a text file begins.

    Attributes:
        line: the first line of names or values; quoted names may hold line feeds.
        delimiter: given, told by Excel's `sep=;` above that line, or guessed from it.
        num_lines: lines of the file before the rows.
    """

    line: str
    delimiter: str
    num_lines: int


def names_in(path: Path, head: Head) -> list[str]:
    """The names of the columns in the first line.

    Raises:
        DataError: it cannot be read as names.
    """
    try:
        line = csv.reader([head.line], delimiter=head.delimiter, skipinitialspace=True)
        names = next(line, [])
    except csv.Error as e:
        raise DataError(
            f"{path}: its first line cannot be read as column names ({e}); give a header, and end "
            "lines with a line feed."
        ) from e
    return [name.strip() for name in names]


def distinct(names: Sequence[str]) -> list[str]:
    """A name for each column of a text file: `price` twice is `price` and `price.1`.

    Blank names but the first one, which row numbers have, become what no name is (`is_named`), if
    they are few. Numbers that come back stay: they may be the first row of a file without a header.
    """
    counts = Counter(names)
    repeated = [name for name, count in counts.items() if count > 1 and name]
    are_few = 2 * counts[""] < len(names)
    if hold_numbers(repeated):
        return list(names)
    found: list[str] = []
    for place, name in enumerate(names):
        if not name and place and are_few:
            name = f" {place + 1}"
        elif name in repeated and name in found:
            numbered = (f"{name}.{number}" for number in itertools.count(1))
            name = next(new for new in numbered if new not in counts and new not in found)
        found.append(name)
    return found


def is_named(name: str) -> bool:
    """Whether a column of a text file has a name, given what `distinct` calls it."""
    return not name.startswith(" ")


def check_names(path: Path, names: Sequence[str], *, is_text: bool = False) -> None:
    """Refuse names of columns that are blank or the same.

    Raises:
        DataError: some are.
    """
    blank = [i for i, name in enumerate(names) if not name]
    if len(blank) > 1 or (blank and blank[0] != 0):
        remedy = f"name every column, or, {NO_HEADER}" if is_text else "name every column."
        raise DataError(f"{path}: column {blank[-1] + 1} has no name; {remedy}")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        advice = NO_HEADER if is_text and hold_numbers(twice) else "columns must be unique."
        raise DataError(f"{path} has two columns called {twice[0]!r}; {advice}")


def told_ragged(path: Path, head: Head, error: str) -> str | None:
    """What to tell of lines with other numbers of values than the first, if `error` is of these."""
    found = _RAGGED.search(error)
    if found is None:
        return None
    if head.line.startswith("#"):
        return (
            f"{path}: its first line {one_line(head.line)} is a comment, but must name the "
            "columns; remove it."
        )
    row, expected, actual, text = found.groups()
    where = f"line {int(row)}" if row else f"the line {text[:60]!r}"
    if expected == "1":
        return (
            f"{path}: its first line {one_line(head.line)} names one column but {where} has "
            f"{actual} values; the first line must name the columns, so remove what is above them."
        )
    remedy = "write quotes in values as two" if '\\"' in text else "correct or remove that line"
    return f"{path}: {where} has {actual} values but the table has {expected} columns; {remedy}."


def head_of(path: Path, options: SourceOptions) -> Head:
    """How a text file begins.

    Raises:
        DataError: it is no text, or blank.
    """
    found = _found(path, _HEAD[options.quoting])
    line = found["line"].rstrip(b"\r")
    text = decoded(line)
    is_named = text[:1] in ("{", "[") and _JSON.search(path.name.lower())
    if is_named or (options.header and _OBJECT.fullmatch(text.strip())):
        raise DataError(
            f"{path} is JSON, which is not read; convert it to Parquet, lines of objects with "
            "pyarrow.json.read_json and pyarrow.parquet.write_table, or to CSV."
        )
    if not text.strip():
        raise DataError(f"{path} is empty: its first line is blank; give a header and rows.")
    told = (found["delimiter"] or b"").decode("latin-1")
    above = (found["told"] or b"") + (line + b"\n" if options.header else b"")
    return Head(
        line=text,
        delimiter=options.delimiter or told or _guess_delimiter(path, text, options),
        num_lines=len(_LINE_END.findall(above)),
    )


def text_stream(path: Path) -> pa.NativeFile:
    """The bytes of a text file, compressed or not; UTF-16 as UTF-8."""
    with pa.input_stream(str(path), compression="detect") as stream:
        is_utf16 = bytes(stream.read(2)) in _BOMS_16
    stream = pa.input_stream(str(path), compression="detect")
    return pa.transcoding_input_stream(stream, "utf-16", "utf-8") if is_utf16 else stream


def decoded(text: bytes) -> str:
    """UTF-8, or where it is none Windows-1252 (Latin-1 where it is not that either)."""
    for encoding in ("utf-8", "windows-1252"):
        try:
            return text.decode(encoding)
        except UnicodeDecodeError:
            continue
    return text.decode("latin-1")


def _found(path: Path, head: re.Pattern[bytes]) -> re.Match[bytes]:
    """`head` in the beginning of the file, of which as much is read as it takes."""
    with text_stream(path) as stream:
        part = bytes(stream.read(_SNIFF_BYTES))
        start = part.removeprefix(_BOM)
        found = head.match(start)
        while part and found and found.end() == len(start) < BLOCK_BYTES:
            part = bytes(stream.read(_SNIFF_BYTES + len(start)))
            start += part
            found = head.match(start)
    if start.startswith(b"PK\x03\x04"):
        raise DataError(
            f"{path} is a zip archive or an Excel workbook; unpack it or save it as CSV, which may "
            "be compressed as .gz or .zst."
        )
    if start.startswith(b"\x1f\x8b"):
        raise DataError(f"{path} is compressed, which its name does not say; add .gz to it.")
    if b"\x00" in start:
        raise DataError(f"{path} is not a text table (it holds zero bytes); give CSV or Parquet.")
    assert found is not None  # it may be empty
    return found


def _guess_delimiter(path: Path, line: str, options: SourceOptions) -> str:
    name = path.name.lower()
    if ".tsv" in name or ".tab" in name:
        return "\t"
    if options.quoting:
        line = re.sub(_QUOTED, "", line)
    counts = Counter({d: line.count(d) for d in ",\t;|"})
    delimiter, count = counts.most_common(1)[0]
    return delimiter if count else ","


def hold_numbers(names: Sequence[str]) -> bool:
    """Whether some names are numbers, as where a file has no header."""
    return any(parse_number(name) is not None for name in names)


def looks_like_a_row(names: Sequence[str]) -> bool:
    """Whether several names are numbers in no order: those of pixels or years go up."""
    numbers = [number for name in names if (number := parse_number(name)) is not None]
    if len(numbers) < _NUMBERS_OF_A_ROW:
        return False
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    return not (min(steps) > 0 or max(steps) < 0)
