"""Read the lines of a trace of block ids, by Arrow or one by one: what the forms of `mooncake` and `bailian` share."""

from array import array
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from kvprefix.files.arrow_arrays import fill_missing, to_array
from kvprefix.files.arrow_lines import LineReader
from kvprefix.files.jsonlines import is_whole
from kvprefix.formats.block_forms import HasSessions, Rows
from kvprefix.formats.block_scan import scan_lines


class Lines(NamedTuple):
    """What a file holds, in its order.

    Attributes
    ----------
    values : dict of str to ndarray
        By field; `hash_ids`, the ids of all requests as numbers of 64 bits; `blocks`, how many ids each request has.
    missing : dict of str to int
        How many requests lack a field that may be missing.
    name_of : callable
        The id that a number stands for.
    """

    values: dict
    missing: dict
    name_of: object


class BlockReader(LineReader):
    """Makes `Lines` of a file.

    Parameters
    ----------
    form : Form
    block_size : int
        Tokens per block.
    first : dict, optional
        The first request: Arrow reads ids of the same kind.
    """

    def __init__(self, form, block_size, first=None):
        self.form, self.block_size, self.expected = form, block_size, form.expected
        self.kind = _find_kind((first or {}).get("hash_ids"))
        fields = {**{name: one.arrow for name, one in form.fields.items()}, "hash_ids": pa.list_(self.kind)}
        self.schema = pa.schema(fields | ({"session_id": pa.string()} if form.has_sessions else {}))

    def _may_be_missing(self):
        fields = self.form.fields.items()
        return dict.fromkeys(["timestamp", *(name for name, one in fields if one.default is not None)], 0)

    def scan(self, path):
        """Return the Lines of a file of plain lines; None if one is not, or is wrong."""
        form = self.form
        if self.kind != pa.int64() or any(pa.types.is_string(one.arrow) for one in form.fields.values()):
            return None
        found = scan_lines(path, tuple(form.fields), ("session_id",) if form.has_sessions else ())
        if found is None:
            return None
        values = {
            name: found[0][:, k].astype(one.arrow.to_pandas_dtype())
            for k, (name, one) in enumerate(form.fields.items())
        }
        values |= {"blocks": found[1], "hash_ids": found[2]}
        missing = self._may_be_missing()
        return Lines(values, missing, int) if self._are_right(values, missing) else None

    def from_batches(self, batches):
        """Return the Lines of Arrow's batches; None if something is wrong."""
        form, parts, missing = self.form, [], self._may_be_missing()
        for batch in batches:
            lists = batch["hash_ids"]
            columns = {name: batch[name] for name in form.fields}
            for name in missing:
                missing[name] += columns[name].null_count
                columns[name] = fill_missing(columns[name], form.fields[name].default or 0)
            if any(column.null_count for column in [lists, lists.flatten(), *columns.values()]):
                return None
            if form.has_sessions and batch["session_id"].null_count < len(batch):
                raise HasSessions
            parts.append({**columns, "blocks": lists.offsets, "hash_ids": lists.flatten()})
        values = {name: _to_array([part[name] for part in parts]) for name in form.fields}
        values["hash_ids"], name_of = _number_ids([part["hash_ids"] for part in parts], self.kind)
        values["blocks"] = np.concatenate([np.diff(_to_array([part["blocks"]])) for part in parts]).astype(np.int64)
        return Lines(values, missing, name_of) if self._are_right(values, missing) else None

    def _are_right(self, values, missing):
        stamps = values["timestamp"]
        if not (np.abs(stamps) <= self.form.latest).all() or missing["timestamp"] not in (0, len(stamps)):
            return False
        for name, one in self.form.fields.items():
            if one.least is not None and not (one.least <= values[name].min() and values[name].max() <= one.most):
                return False
        return np.array_equal(-(-values["input_length"] // self.block_size), values["blocks"])

    def from_objects(self, objects):
        """Return the Lines of JSON objects."""
        form, missing, rows = self.form, self._may_be_missing(), Rows(self.form)
        values = {name: [] for name in form.fields} | {"hash_ids": array("q"), "blocks": array("q")}
        for request in objects:
            form.check(request, self.block_size)
            ids = rows.add(request)
            for name, one in form.fields.items():
                value = request.get(name)
                if value is None:
                    missing[name] += 1
                    value = one.default or 0
                values[name].append(value)
            values["blocks"].append(len(ids))
            values["hash_ids"].extend(ids)
        kinds = {name: one.arrow for name, one in form.fields.items()}
        columns = {name: _to_column(column, kinds.get(name)) for name, column in values.items()}
        return Lines(columns, missing, list(rows.numbers).__getitem__)


def _find_kind(ids):
    """Return the Arrow type of a request's ids."""
    if not isinstance(ids, list) or all(is_whole(one) for one in ids):
        return pa.int64()
    return pa.string() if isinstance(ids[0], str) else pa.uint64()


def _to_array(columns):
    if pa.types.is_string(columns[0].type):
        return np.array([text for column in columns for text in column.to_pylist()], object)
    return to_array(pa.chunked_array(columns))


def _number_ids(columns, kind):
    """Return ids as numbers of 64 bits, and a function that gives a number's id back."""
    if kind == pa.string():
        encoded = pa.chunked_array(columns).combine_chunks().dictionary_encode()
        return _to_array([encoded.indices]).astype(np.int64), lambda number: encoded.dictionary[int(number)].as_py()
    if kind == pa.uint64():
        return _to_array(columns).view(np.int64), lambda number: int(number) % 2**64
    return _to_array(columns), int


def _to_column(column, kind):
    if not isinstance(column, array) and not all(isinstance(value, float) or is_whole(value) for value in column):
        return np.array(column, object)
    return np.array(column, float if kind == pa.float64() else np.int64)
