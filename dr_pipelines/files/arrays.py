"""Arrow's arrays of Python's values, past `pyarrow.array`: that, `group_by`, `read_table` and plain values to compare
with bring in pandas where it is installed, which takes longer to load than a snapshot in which nothing changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def array(values: Collection[Any], type_: pa.DataType) -> pa.Array:
    """Of any type that a table of files has; None is null."""
    if isinstance(values, pa.Array):
        return values.cast(type_)
    if pa.types.is_boolean(type_):
        return booleans(values)
    if pa.types.is_integer(type_):
        return _integers(values).cast(type_)
    if pa.types.is_fixed_size_binary(type_):
        return binaries(values).cast(type_)
    if pa.types.is_binary(type_):
        return binaries(values)
    if pa.types.is_string(type_):
        return strings(values)
    return pa.array([*values], type_)


def text(value: str) -> pa.Scalar:
    """To compare a column with; a plain `str` would bring in pandas too."""
    return strings([value])[0]


def number(value: int) -> pa.Scalar:
    return _integers([value])[0]


def numbers(count: int) -> pa.Array:
    """0 to `count` - 1."""
    return of_numpy(np.arange(count, dtype=np.int64))


def booleans(values: Iterable[bool]) -> pa.Array:
    bits = values if isinstance(values, np.ndarray) else np.fromiter(values, dtype=np.bool_)
    return pa.Array.from_buffers(pa.bool_(), len(bits), [None, pa.py_buffer(np.packbits(bits, bitorder="little"))])


def strings(values: Iterable[str | None]) -> pa.Array:
    """Few that are repeated, as a rule."""
    places: dict[str | None, int] = {}
    chosen = [places.setdefault(value, len(places)) for value in values]
    distinct = binaries([None if value is None else value.encode() for value in places]).cast(pa.string())
    return distinct.take(of_numpy(np.array(chosen, dtype=np.int64)))


def binaries(values: Collection[bytes | None]) -> pa.Array:
    ends = np.cumsum(np.fromiter((len(value or b"") for value in values), dtype=np.int64, count=len(values)))
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends])
    data = pa.py_buffer(b"".join(value or b"" for value in values))
    valid = _validity(values) if None in values else None
    large = pa.Array.from_buffers(pa.large_binary(), len(values), [valid, pa.py_buffer(offsets), data])
    return large.cast(pa.binary())


def first_of_each(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The places at which a value stands for the first time, in the order of the values; none is null."""
    column = flat(column)
    if not len(column):
        return numbers(0)
    order = pc.sort_indices(column)  # a stable sort: of equal ones the first comes first
    in_order = column.take(order)
    differs = pc.not_equal(in_order.slice(1), in_order.slice(0, len(in_order) - 1))
    return order.filter(pa.concat_arrays([booleans([True]), differs]))


def of_numpy(values: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def named(values: np.ndarray[Any, np.dtype[np.int64]], name: Callable[[int], str | None]) -> pa.Array:
    """The name of each of few numbers that are repeated."""
    distinct, places = np.unique(values, return_inverse=True)
    return strings([name(int(value)) for value in distinct]).take(of_numpy(places.astype(np.int64)))


def to_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Of whole numbers without a null."""
    whole = flat(column).cast(pa.int64())
    return np.frombuffer(whole.buffers()[1], dtype=np.int64, count=len(whole), offset=8 * whole.offset)


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """In one piece, also where there is none. Where there is one it is not copied, as `combine_chunks` would."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks() if column.num_chunks else pa.nulls(0, column.type)


def no_rows(schema: pa.Schema) -> pa.Table:
    return pa.table([pa.nulls(0, field.type) for field in schema], schema=schema)


def read_parquet(source: Any) -> pa.Table:
    """From a path, a buffer or a file."""
    import pyarrow.parquet as pq  # a snapshot in which nothing changed reads none

    with pq.ParquetFile(source) as file:
        return file.read()


def _integers(values: Collection[int | None]) -> pa.Array:
    if None not in values:
        return of_numpy(np.fromiter(values, dtype=np.int64, count=len(values)))
    plain = np.fromiter((value or 0 for value in values), dtype=np.int64, count=len(values))
    return pa.Array.from_buffers(pa.int64(), len(plain), [_validity(values), pa.py_buffer(plain)])


def _validity(values: Iterable[Any]) -> pa.Buffer:
    there = np.fromiter((value is not None for value in values), dtype=np.bool_)
    return pa.py_buffer(np.packbits(there, bitorder="little"))


YES, NO = booleans([True])[0], booleans([False])[0]
