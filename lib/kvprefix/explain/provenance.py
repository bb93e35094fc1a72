"""Where hits come from: every cached token of a prompt has one origin.

Two axes are exact and independent: who wrote the token, and which conversations had stored its block. The parts follow
from both, in this order: the template, system messages, the conversation's own earlier turns, an equal conversation,
another conversation.
"""

from dataclasses import dataclass, field

import numpy as np
from numba import njit

from kvprefix.blocks.stretches import count_leading
from kvprefix.cache.replay import replay
from kvprefix.explain.copies import DUPLICATE, HOLDERS, OTHER_ONLY, find_copies
from kvprefix.explain.parts import Origins, name_requests
from kvprefix.explain.walks import cut_blocks, make_walks
from kvprefix.explain.writers import find_run, find_writers
from kvprefix.files.checks import check_block_size, check_type
from kvprefix.files.words import count
from kvprefix.tokens.marks import SYSTEM, TEMPLATE, UNKNOWN, WRITERS
from kvprefix.traces.trace import Trace

ORIGINS = ("template", "system_prompt", "own_turns", "duplicate", "other_conversation", "uncached")


@dataclass(frozen=True, kw_only=True, repr=False)
class Provenance(Origins):
    """The origins of a trace's cached prompt tokens.

    Attributes
    ----------
    table : (len(WRITERS), 3, 3) ndarray of int64
        Cached tokens by writer, by HOLDERS (whose earlier requests had the block) and by FIRSTS (who stored it first).
        In a bounded cache both are of the resident copy: who computed it, and who had it since.
    """

    names: tuple = ORIGINS
    table: np.ndarray = field(repr=False)

    def as_dict(self):
        """Return the sums as JSON values."""
        writers = dict(zip(WRITERS, self.table.sum(axis=(1, 2)).tolist(), strict=True))
        if not writers["message"]:
            del writers["message"]
        holders = dict(zip(HOLDERS, self.table.sum(axis=(0, 2)).tolist(), strict=True))
        return self.wrap({"holders_tokens": holders, "writers_tokens": writers})


def find_provenance(
    trace, block_size, said=None, *, outputs=False, capacity=None, policy="lru", walks=None, writers=None
):  # fmt: skip
    """Find the origin of every cached token of a trace.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens per block.
    said : Said, optional
        Which messages the rows of its tokens hold. Without it the writers of messages are not known, nor which
        conversations are equal.
    outputs : bool
        Whether generated tokens are cached.
    capacity : int, optional
        Blocks of the cache; nothing is evicted if not given.
    policy : str or Policy
        By which a bounded cache evicts.
    walks : Walks, optional
    writers : Writers, optional
        Of the trace and of its tokens, if they are known already.

    Returns
    -------
    Provenance

    Raises
    ------
    InputError
        A block size that is no whole number above 0; as `cache.replay.replay`.

    Examples
    --------
    Two prompts of one conversation each: the second repeats a block of two tokens that the other stored.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> find_provenance(make_trace_of([[1, 2, 3], [1, 2, 4]]), 2).totals()["other_conversation"]
    2
    """
    check_type(trace, Trace, "trace")
    block_size = check_block_size(block_size)
    walks = make_walks(trace) if walks is None else walks
    conversation = trace.column("conversation_index").astype(np.int64)
    twins = _find_twins(trace, conversation, said)
    accesses, hits = _hit_blocks(walks, trace, block_size, outputs, capacity, policy)
    counted = np.minimum(hits, np.maximum(walks.prompt_tokens - 1, 0) // block_size)
    segments = find_copies(accesses, hits, counted, conversation, twins)
    segments = segments._replace(ends=segments.ends * block_size)
    writers = find_writers(trace.tokens, said) if writers is None else writers
    parts, table, odd = _label(segments, trace.rows, walks.prompt_tokens, writers)
    return Provenance(
        tokens=parts, prompt_tokens=walks.prompt_tokens, requests=name_requests(trace), table=table, capacity=capacity,
        policy=getattr(policy, "name", policy), notes=_note(said, odd),
    )  # fmt: skip


def _note(said, odd):
    if said is None:
        return ["who wrote a message is not known of this trace, nor which conversations are equal"]
    why = "their message has another role, or their prompt does not show which message they are of"
    return [f"who wrote {count(odd, 'cached token')} is not known: {why}"] * (odd > 0)


def _find_twins(trace, conversation, said):
    """Return a number for each conversation, equal for those with equal messages, in all lists of an agent's."""
    twins = np.arange(conversation.max(initial=-1) + 1)
    if said is None or not len(twins):
        return twins
    lists = np.unique(said.twins[trace.rows], return_inverse=True)[1]
    whose, lists = np.divmod(np.unique(conversation * len(lists) + lists), len(lists))
    starts, numbers = np.flatnonzero(np.diff(whose, prepend=-1)), {}
    for one, some in zip(whose[starts].tolist(), np.split(lists, starts[1:]), strict=True):
        twins[one] = numbers.setdefault(some.tobytes(), len(numbers))
    return twins


def _hit_blocks(walks, trace, block_size, outputs, capacity, policy):
    """Return what the requests access, by stretches or by blocks, and the leading blocks that each one hits."""
    stretches = cut_blocks(walks, trace, block_size, outputs=outputs)
    if capacity is None:
        return stretches, count_leading(stretches.paths, stretches.blocks)
    blocks = stretches.list_blocks()
    return blocks, replay(blocks, capacity, policy)


@njit(cache=True, nogil=True)
def _label(segments, rows, prompt_tokens, of):
    """Return the origins by request, the table of all, and how many cached tokens of messages have no known writer."""
    n = len(rows)
    parts, table = np.zeros((n, len(ORIGINS)), np.int64), np.zeros((len(WRITERS), 3, 3), np.int64)
    upper, lower = np.zeros(len(WRITERS), np.int64), np.zeros(len(WRITERS), np.int64)
    for i in range(n):
        row, first, last = rows[i], segments.offsets[i], segments.offsets[i + 1]
        if last > first:
            row = _count_until(segments.ends[last - 1], row, of, upper)
        for s in range(last - 1, first - 1, -1):  # upwards, so that no row is looked at twice
            row = _count_until(segments.ends[s - 1] if s > first else 0, row, of, lower)
            holder, stored_by = segments.holders[s], segments.firsts[s]
            for writer in range(len(WRITERS)):
                count = upper[writer] - lower[writer]
                table[writer, holder, stored_by] += count
                origin = 2 if holder != OTHER_ONLY else 3 if stored_by == DUPLICATE else 4
                parts[i, 0 if writer == TEMPLATE else 1 if writer == SYSTEM else origin] += count
            upper[:] = lower
        parts[i, -1] = prompt_tokens[i] - parts[i].sum()
    return parts, table, table[UNKNOWN].sum()


@njit(nogil=True)
def _count_until(at, row, of, counts):
    """Count the tokens of each writer up to a position of a row's prompt; return the row that holds the one before."""
    counts[:] = 0
    if at == 0:
        return row
    while at <= of.shared[row]:
        row = of.parent[row]
    run = find_run(at - 1, row, of.parent, of.shared, of.firsts, of.stops)
    counts[:] = of.before[run]
    counts[of.writers[run]] += at - (of.shared[row] if run == of.firsts[row] else of.stops[run - 1])
    return row
