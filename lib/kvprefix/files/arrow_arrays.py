"""Arrow's columns as NumPy arrays, without pandas, which Arrow's own ``to_numpy`` imports."""

import numpy as np
import pyarrow as pa


def to_array(column):
    """Return a column of numbers or truth values, none of them missing, as a new array.

    Parameters
    ----------
    column : pyarrow.Array or pyarrow.ChunkedArray

    Returns
    -------
    (n,) ndarray
        Of the column's type.

    Examples
    --------
    >>> to_array(pa.chunked_array([[1, 2], [3]]))
    array([1, 2, 3])
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if pa.types.is_boolean(column.type):
        return to_array(pa.chunked_array(chunks, pa.bool_()).cast(pa.uint8())).view(bool)
    if not chunks:
        return np.zeros(0, column.type.to_pandas_dtype())
    return np.concatenate([np.from_dlpack(chunk) for chunk in chunks])


def fill_missing(column, value):
    """Return a column of numbers or texts with `value` in place of what is missing."""
    return column.fill_null(pa.array([value], column.type)[0]) if column.null_count else column


def flat_lists(column):
    """Return a list column as (offsets, values), offsets int64 from 0; a missing list, as JSON has it, is empty."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    values = pa.chunked_array([chunk.flatten() for chunk in chunks], column.type.value_type)
    lengths = [np.diff(np.from_dlpack(chunk.offsets)).astype(np.int64) for chunk in chunks]
    return np.concatenate(([0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths])))), to_array(values)
