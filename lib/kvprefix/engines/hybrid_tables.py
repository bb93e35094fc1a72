"""The tables of blocks of the request that runs, a table per group of layers, for compiled code."""

from typing import NamedTuple

import numpy as np

from kvprefix.engines.vllm_runs import borrowed

_ROW = np.dtype([(name, np.int64) for name in (
    "n", "gone",  # blocks of the group's table, taken or not; the first ones that were given back
    "seen",  # full blocks that were looked at, to be made visible or not
    "start",  # of a chunked group: the blocks before this one counted as hit whether they were there or not
)])  # fmt: skip


class Tables(NamedTuple):
    """What the running request has, as arrays for compiled code.

    Attributes
    ----------
    rows : (n_groups,) ndarray of _ROW
    blocks : (n_groups, most) ndarray of int32
        The blocks of each group; 0 is none.
    contents : ndarray of int32
        Of the units of hashing of the request.
    ends : (3,) ndarray of int64
        Tokens: where a later request can resume: at the prompt's end, and at the junction; -1 is nowhere.
    lengths : (n_groups,) ndarray of int64
        Room for the lookup.
    """

    rows: np.ndarray
    blocks: np.ndarray
    contents: np.ndarray
    ends: np.ndarray
    lengths: np.ndarray


def make_tables(n_groups, most, n_units):
    """Return Tables with room for requests of `most` blocks per group and `n_units` units of hashing."""
    return Tables(
        np.zeros(n_groups, _ROW), np.zeros((n_groups, most + 1), np.int32), np.zeros(n_units + 1, np.int32),
        np.zeros(3, np.int64), np.zeros(n_groups, np.int64),
    )  # fmt: skip


@borrowed
def list_contents(contents, paths, firsts, i, most):
    """List the contents of a request's first `most` units."""
    at = 0
    for k in range(paths.offsets[i], paths.offsets[i + 1]):
        first = firsts[paths.nodes[k]]
        for depth in range(at, min(paths.ends[k], most)):
            contents[depth] = first + depth
        at = paths.ends[k]
