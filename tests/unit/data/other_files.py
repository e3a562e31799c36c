"""A small table, and files that differ from it by some columns."""

import pyarrow as pa
import pyarrow.csv as pacsv

ROWS = 400


def columns(**changed):
    table = {
        "user": [f"u{i % 7}" for i in range(ROWS)],
        "x": [f"{(i * 37 % 100) / 8:.3f}" for i in range(ROWS)],
        "y": [i % 3 % 2 for i in range(ROWS)],
    }
    return {name: values for name, values in (table | changed).items() if values is not None}


def encoded(data, folder, **changed):
    path = folder / "other.csv"
    pacsv.write_csv(pa.table(columns(**changed)), path)
    said = []
    return data.encode_file(str(path), said.append), said
