"""Read records out of Parquet and Arrow files: by columns, in batches, nulls left out.

A table holds every member of every struct, so that a member that is null and one that is absent look alike: both are
absent here. Columns that no form reads are not read, but counted by name.
"""

import pyarrow as pa
import pyarrow.parquet as pq

from kvprefix.files.paths import InputError, plain_text

BATCH_ROWS = 128  # in memory at a time: a row of agents' work may be a megabyte
_DAMAGED = (pa.ArrowException, OSError, UnicodeDecodeError)
_PARQUET, _FILE, _STREAM = b"PAR1", b"ARRO", b"\xff\xff\xff\xff"


def is_table(magic):
    """Say whether a file that begins with these four bytes is Parquet or Arrow (a file or a stream)."""
    return magic in (_PARQUET, _FILE, _STREAM)


def read_rows(path, magic, known, main, counts):
    """Yield (row number, record) of a table.

    Parameters
    ----------
    path : path-like
    magic : bytes
        The file's first four bytes.
    known, main : set of str
        The columns to read; those of which there must be one.
    counts : LoadCounts
        `fields` counts the columns that are not read; `reading` says how far the file was read.

    Raises
    ------
    InputError
        A damaged file, or one without a column of `main`; its columns are named.
    """
    try:
        with pa.OSFile(str(path)) as file:
            size = file.size()
            schema, n_rows, batches = _open(file, magic, known)
            names = _check_columns(path, schema, main)
            number = 0
            for batch in batches:
                batch.validate(full=True)  # of wrong offsets, Arrow would read whatever lies there
                for record in _cast(batch).to_pylist():
                    yield number, drop_nulls(record)
                    number += 1
                counts.reading.bytes_read = size * number // n_rows if n_rows else file.tell()
            for name in names - known:
                counts.fields.add_column(name, number)
    except _DAMAGED as error:
        raise InputError(f"{path}: is a damaged table: {_say(error)}") from error
    counts.reading.bytes_read, counts.reading.at_end = size, True


def _say(error):
    """Return what is wrong, in a line."""
    return str(error).partition("\n")[0]


def list_columns(path, magic):
    """Return the names of a table's columns.

    Raises
    ------
    InputError
        A damaged file.
    """
    try:
        with pa.OSFile(str(path)) as file:
            return set(_open(file, magic, ())[0].names)
    except _DAMAGED as error:
        raise InputError(f"{path}: is a damaged table: {_say(error)}") from error


def _open(file, magic, known):
    """Return (schema, number of rows or None, iterator of batches of the known columns)."""
    if magic == _PARQUET:
        table = pq.ParquetFile(file)
        names = [name for name in table.schema_arrow.names if name in known]
        batches = table.iter_batches(BATCH_ROWS, columns=names, use_threads=False)
        return table.schema_arrow, table.metadata.num_rows, batches
    read = pa.ipc.open_file if magic == _FILE else pa.ipc.open_stream
    schema = read(file).schema
    some = [k for k, name in enumerate(schema.names) if name in known]
    file.seek(0)
    reader = read(file, options=pa.ipc.IpcReadOptions(included_fields=some, use_threads=False))
    whole = (reader.get_batch(k) for k in range(reader.num_record_batches)) if magic == _FILE else reader
    return schema, None, (
        batch.slice(k, BATCH_ROWS) for batch in whole for k in range(0, batch.num_rows, BATCH_ROWS)
    )  # fmt: skip


def _check_columns(path, schema, main):
    names = set(schema.names)
    if not names & main:
        has = ", ".join(f"{one.name[:40]} ({str(one.type)[:40]})" for one in list(schema)[:40])
        has = plain_text(has) or "none"
        raise InputError(f"{path}: has no column of chats; it has {has}; expected {', '.join(sorted(main))}")
    return names


def _cast(batch):
    """Return a batch whose times are of microseconds: Python has no finer ones."""
    schema = pa.schema([field.with_type(_coarsen(field.type)) for field in batch.schema])
    return batch if schema == batch.schema else batch.cast(schema, safe=False)


def _coarsen(kind):
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        make = pa.list_ if pa.types.is_list(kind) else pa.large_list
        return make(kind.value_field.with_type(_coarsen(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_coarsen(field.type)) for field in kind])
    return kind


def drop_nulls(value):
    """Return a value without the members of its objects that are null; an assistant's content may be. Bytes are text.

    >>> drop_nulls({"a": None, "b": [{"c": None, "content": None}, None]})
    {'b': [{'content': None}, None]}
    """
    if isinstance(value, dict):
        return {name: drop_nulls(one) for name, one in value.items() if one is not None or name == "content"}
    if isinstance(value, list):
        return [drop_nulls(one) for one in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
