"""How a table's texts are laid out, where its first rows show it."""

from __future__ import annotations

from collections.abc import Sequence

from dynens.data.reading.decimals import comma_columns
from dynens.data.reading.heads import (
    NO_HEADER,
    distinct,
    head_of,
    is_named,
    looks_like_a_row,
    names_in,
)
from dynens.data.reading.objects import objects_in
from dynens.data.reading.sources import expand, explained, file_format, read_head
from dynens.data.reading.split_dates import dates_in
from dynens.schema import SourceOptions

_ROWS = 2000


def with_layout(
    patterns: Sequence[str], options: SourceOptions
) -> tuple[SourceOptions, str | None]:
    """(options with what the first rows show, the column that shows decimal commas)."""
    options, commas = with_decimal(patterns, options)
    if not options.objects:
        objects = objects_in(read_head(patterns, options, _ROWS))
        options = options.model_copy(update={"objects": objects})
    if not options.dates:
        dates = dates_in(read_head(patterns, options, _ROWS))
        options = options.model_copy(update={"dates": dates})
    return options, commas


def with_decimal(
    patterns: Sequence[str], options: SourceOptions
) -> tuple[SourceOptions, str | None]:
    """(options with the decimal sign that the first rows show, the column that shows a comma)."""
    path = expand(patterns)[0]
    if path.stat().st_size == 0 or file_format(path) != "csv":
        return options, None
    with explained(path):
        delimiter = head_of(path, options).delimiter
    if delimiter == ",":
        return options, None
    names = comma_columns(read_head([str(path)], options, _ROWS))
    if not names:
        return options, None
    return options.model_copy(update={"decimal": ","}), names[0]


def told_names(patterns: Sequence[str], options: SourceOptions) -> list[str]:
    """What to tell of text files in which columns have one name, or none, or values for names.

    Raises:
        DataError: a file is missing or unreadable.
    """
    found = []
    for path in expand(patterns):
        if not options.header or path.stat().st_size == 0 or file_format(path) != "csv":
            continue
        with explained(path):
            names = names_in(path, head_of(path, options))
        if looks_like_a_row(names):
            found.append(f"{path}: its first line names columns but looks like a row; {NO_HEADER}")
        read = distinct(names)
        if later := [repr(new) for old, new in zip(names, read, strict=True) if old and old != new]:
            found.append(
                f"{path} has columns of one name; the later ones are called {', '.join(later)}"
            )
        if nameless := [name.strip() for name in read if not is_named(name)]:
            found.append(f"{path}: columns without a name are not read ({', '.join(nameless)})")
    return found
