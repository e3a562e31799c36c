"""Encoded rows on disk: one memory-mapped Arrow file per split, written as a stream."""

from __future__ import annotations

import io
import mmap
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc as ipc

from dynens.batch import EncodedBatch
from dynens.run import intact

_DTYPES: dict[str, type[np.generic]] = {
    "dense": np.float32,
    "ids": np.int32,
    "labels": np.float32,
    "sample_weight": np.float32,
    "grades": np.float32,
    "soft_labels": np.float32,
    "groups": np.int64,
    "stats": np.float32,
}


_COPY_BYTES = 8 << 20


class ShardWriter:
    """Writes one split, chunk by chunk.

    Columns go to plain files first and become one Arrow record batch at the end, so that memory
    stays flat and readers get each column as one contiguous array without a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, Any] = {}
        self._widths: dict[str, int] = {}
        self._maps: list[mmap.mmap] = []
        self.num_rows = 0

    def append(self, **columns: npt.NDArray[Any] | None) -> None:
        """Add rows; every call must give the same columns."""
        for name, values in columns.items():
            if values is not None:
                self.append_column(name, values)
        self.num_rows += len(next(v for v in columns.values() if v is not None))

    def append_column(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add to one column of rows that are there already."""
        self._widths.setdefault(name, values.shape[1] if values.ndim == 2 else 0)
        file = self._open(name)
        values = np.ascontiguousarray(values, dtype=_DTYPES[name])
        if values.size:
            file.write(values.data)

    def pause(self) -> ShardWriter:
        """Close the files, so that the writer can be sent to another process and go on there."""
        for name, file in self._files.items():
            if file is not None:
                file.close()
                self._files[name] = None
        return self

    def take_over(self, other: ShardWriter) -> None:
        """Append all of another (paused) writer's rows; its files are gone afterwards."""
        for name, width in other._widths.items():
            source = other._part(name)
            if name not in self._files:
                self._widths[name] = width
                self._files[name] = None
                source.rename(self._part(name))
                continue
            with source.open("rb") as file:
                shutil.copyfileobj(file, self._open(name), _COPY_BYTES)
            source.unlink()
        self.num_rows += other.num_rows

    def _open(self, name: str) -> Any:
        if self._files.get(name) is None:
            self._files[name] = self._part(name).open("ab")
        return self._files[name]

    def _part(self, name: str) -> Path:
        return self.path.with_suffix(f".{name}.part")

    def view(self, name: str, width: int) -> npt.NDArray[Any]:
        """The rows of a two-dimensional column written so far, memory-mapped."""
        self._open(name).flush()
        shape = (self.num_rows, width)
        if not self.num_rows or not width:
            return np.zeros(shape, _DTYPES[name])
        return np.memmap(self._part(name), dtype=_DTYPES[name], mode="r", shape=shape)

    def finish(self) -> None:
        """Turn the parts into the Arrow file."""
        arrays, fields = [], []
        self.pause()
        for name, width in self._widths.items():
            array = self._array(name, width)
            arrays.append(array)
            fields.append(pa.field(name, array.type))
        batch = pa.record_batch(arrays, schema=pa.schema(fields))
        with self.path.open("wb") as file:
            sink = pa.PythonFile(_ReleasingSink(file, self._maps), mode="w")
            with ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
        self._maps.clear()
        for name in self._widths:
            self._part(name).unlink()

    def _array(self, name: str, width: int) -> pa.Array:
        kind = pa.from_numpy_dtype(_DTYPES[name])
        size = self.num_rows * (width if self._is_matrix(name) else 1)
        if size:
            with self._part(name).open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            buffer = pa.py_buffer(self._maps[-1])
        else:
            buffer = pa.py_buffer(b"")
        flat = pa.Array.from_buffers(kind, size, [None, buffer])
        if not self._is_matrix(name):
            return flat
        if width:
            return pa.FixedSizeListArray.from_arrays(flat, width)
        return pa.nulls(self.num_rows, pa.null())

    @staticmethod
    def _is_matrix(name: str) -> bool:
        return name in ("dense", "ids", "stats")


class _ReleasingSink(io.RawIOBase):
    """Writes to a file and gives mapped pages back after each buffer, so that memory stays flat."""

    def __init__(self, file: BinaryIO, maps: list[mmap.mmap]) -> None:
        self._file, self._maps = file, maps

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        written = self._file.write(data)
        if written > _COPY_BYTES:
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
        return written


def read_shard(path: Path) -> EncodedBatch:
    """The rows of one split, memory-mapped and read-only.

    Raises:
        BundleError: the file is missing or damaged.
    """
    with intact(path):
        batch = ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    columns: dict[str, Any] = {}
    for name in batch.schema.names:
        array = batch.column(name)
        if pa.types.is_null(array.type):
            columns[name] = np.zeros((len(array), 0), _DTYPES[name])
        elif pa.types.is_fixed_size_list(array.type):
            flat = array.values.to_numpy(zero_copy_only=True)
            columns[name] = flat.reshape(len(array), array.type.list_size)
        else:
            columns[name] = array.to_numpy(zero_copy_only=True)
    return EncodedBatch(**columns)
