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

from dynens.data.reading.numbers import parse_number
from dynens.errors import DataError
from dynens.schema import SourceOptions

BLOCK_BYTES = 8 << 20
_SNIFF_BYTES = 64 << 10
_JSON = re.compile(r"\.(json|jsonl|ndjson)(\.|$)")
_BOM = b"\xef\xbb\xbf"
_BOMS_16 = (b"\xff\xfe", b"\xfe\xff")
_QUOTED = r'(?<![^,;\t|\n])"(?:[^"]|"")*+"'  # quotes enclose where they open a value
_TOLD = r'(?P<told>"?sep=(?P<delimiter>[^\n])"?\r?\n)?'  # Excel's
# By whether quotes enclose values, line feeds among them.
_HEAD = {
    False: re.compile(rf"{_TOLD}(?P<line>[^\n]*+)".encode(), re.IGNORECASE),
    True: re.compile(rf"{_TOLD}(?P<line>(?:{_QUOTED}|[^\n])*+)".encode(), re.IGNORECASE),
}
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
        names = next(csv.reader([head.line], delimiter=head.delimiter), [])
    except csv.Error as e:
        raise DataError(
            f"{path}: its first line cannot be read as column names ({e}); give a header, and end "
            "lines with a line feed."
        ) from e
    return [name.strip() for name in names]


def distinct(names: Sequence[str]) -> list[str]:
    """Names of columns with later ones of one name counted: `price` twice is `price`, `price.1`.

    Blank names, and numbers, which may be the first row of a file without a header, stay.
    """
    counts = Counter(names)
    repeated = {name for name, count in counts.items() if count > 1 and name}
    if hold_numbers(list(repeated)):
        return list(names)
    found: list[str] = []
    for name in names:
        numbered = (f"{name}.{number}" for number in itertools.count(1))
        is_again = name in repeated and name in found
        found.append(
            next(n for n in numbered if n not in counts and n not in found) if is_again else name
        )
    return found


def head_of(path: Path, options: SourceOptions) -> Head:
    """How a text file begins.

    Raises:
        DataError: it is no text, or blank.
    """
    found = _found(path, _HEAD[options.quoting])
    line = found["line"].rstrip(b"\r")
    text = decoded(line)
    if text[:1] in ("{", "[") and _JSON.search(path.name.lower()):
        raise DataError(f"{path} is JSON, which is not read; convert it to CSV or Parquet.")
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
