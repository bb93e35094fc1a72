"""Identify the blocks of many tokens in tasks: one task hashes one part, then one task numbers one range of keys.

Both steps are pure functions (`hashing`), so they give the same blocks in this process, in others and on a cluster.
Arrays that leave this process go through files of the derived folder. It knows no requests and no arrivals.
"""

import contextlib
import shutil
import time
import uuid
from typing import NamedTuple

import numpy as np

from kvprefix.blocks.hashing import RANGES, hash_blocks, number_keys, sort_by_range
from kvprefix.files.mapped import map_array
from kvprefix.files.paths import atomic_path, derived_folder, explain_os_errors
from kvprefix.tasks.runner import open_tasks
from kvprefix.tokens.arrays import PART_TOKENS, MessageTokens, strip_template

STALE_S = 86_400  # exchange folders of killed runs are removed after a day


class _Found(NamedTuple):
    """The blocks of a part: its distinct keys by range, where each range starts, and each block's key, by position."""

    keys: np.ndarray
    bounds: np.ndarray
    ids: np.ndarray


def identify_parts(tokens, block_size, *, outputs, needed, total):
    """Number the blocks that each row adds to what it shares with its parent, over all parts.

    One or two parts are done in this process; more become tasks, see `tasks.runner.open_tasks`.

    Parameters
    ----------
    tokens : Tokens or MessageTokens
    block_size : int
    outputs : bool
    needed : (n,) ndarray of bool
        See `hashing.hash_blocks`.
    total : int
        Number of blocks.

    Returns
    -------
    ids : (total,) ndarray of int32
        Row after row, numbers from 0 on in any order: equal token prefixes have equal numbers.
    n_distinct : int
    """
    source, strip = (tokens.source, True) if isinstance(tokens, MessageTokens) else (tokens, False)
    n_tokens = len(source.own) + len(source.output)
    place = "here" if n_tokens <= 2 * PART_TOKENS else None
    with open_tasks(place) as tasks, open_exchange(tasks.share_memory) as folder:
        parts = (
            (
                part, strip, block_size, outputs, needed[start : start + len(part.shared)],
                name_file(folder, f"part-{start}"),
            )
            for start, part in source.parts()
        )  # fmt: skip
        found = list(tasks.map(_hash_part, parts, "hashing blocks", total=n_tokens // PART_TOKENS + 1))
        ranges = (
            ([part.keys[part.bounds[k] : part.bounds[k + 1]] for part in found], name_file(folder, f"range-{k}"))
            for k in range(RANGES)
        )
        numbers = list(tasks.map(_number_range, ranges, "identifying blocks", total=RANGES))
        return _join(found, numbers, total)


def _hash_part(task):
    part, strip, block_size, outputs, needed, name = task
    part = strip_template(part) if strip else part
    keys, bounds, ids = sort_by_range(hash_blocks(part, block_size, outputs=outputs, needed=needed))
    return _Found(keep(keys, name, "keys"), bounds, keep(ids, name, "ids"))


def _number_range(task):
    keys, name = task
    numbers, n_distinct = number_keys(keys)
    return keep(numbers, name, "numbers"), n_distinct


def _join(found, numbers, total):
    """Return the number of every block of every part, over all ranges of keys, and how many are distinct."""
    firsts = np.concatenate(([0], np.cumsum([n_distinct for _, n_distinct in numbers])))
    ids, taken, done = np.empty(total, np.int32), np.zeros(len(numbers), np.int64), 0
    for part in found:
        lengths = np.diff(part.bounds)
        number = np.empty(len(part.keys), np.int32)
        for k, (of_range, _) in enumerate(numbers):
            one = of_range[taken[k] : taken[k] + lengths[k]]
            number[part.bounds[k] : part.bounds[k + 1]] = one + firsts[k]
        taken += lengths
        np.take(number, part.ids, out=ids[done : done + len(part.ids)])
        done += len(part.ids)
    return ids, int(firsts[-1])


@contextlib.contextmanager
def open_exchange(share_memory):
    """Yield a folder in which tasks exchange arrays, removed afterwards; None if they share memory."""
    if share_memory:
        yield None
        return
    folder = derived_folder().resolve() / f".exchange-{uuid.uuid4().hex}"
    with explain_os_errors(folder):
        folder.mkdir(parents=True)
    try:
        for stale in folder.parent.glob(".exchange-*"):
            with contextlib.suppress(OSError):
                if time.time() - stale.stat().st_mtime > STALE_S:
                    shutil.rmtree(stale)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def name_file(folder, name):
    """Return the path by which `keep` puts a task's arrays into files; None if they stay in memory."""
    return None if folder is None else folder / name


def keep(array, path, suffix):
    """Return the array; with a path (see `name_file`), write it to a file and return it mapped."""
    if path is None:
        return array
    path = path.with_suffix(f".{suffix}")
    with atomic_path(path) as temporary:
        array.tofile(temporary)
    return map_array(path, array.dtype).reshape(array.shape)
