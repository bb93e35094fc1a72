"""Where hits come from: every cached token of a prompt has one origin.

Two axes are exact and independent: who wrote the token, and which conversations had stored its block. The parts follow
from both, in this order: the template, system messages, the conversation's own earlier turns, an equal conversation,
another conversation.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numba import njit

from kvprefix.cache.replay import replay
from kvprefix.explain.parts import Parts, name_requests
from kvprefix.explain.walks import cut_blocks, find_holders, make_walks
from kvprefix.explain.writers import SYSTEM, TEMPLATE, UNKNOWN, WRITERS, find_run, find_writers
from kvprefix.files.checks import check_block_size, check_type
from kvprefix.traces.trace import Trace

ORIGINS = ("template", "system_prompt", "own_turns", "duplicate", "other_conversation", "uncached")
HOLDERS = ("own_only", "both", "other_only")
FIRSTS = ("self", "duplicate", "other")
OWN_ONLY, BOTH, OTHER_ONLY = range(3)
SELF, DUPLICATE, OTHER = range(3)


@dataclass(frozen=True, kw_only=True, repr=False)
class Provenance(Parts):
    """The origins of a trace's cached prompt tokens.

    Attributes
    ----------
    table : (len(WRITERS), 3, 3) ndarray of int64
        Cached tokens by writer, by HOLDERS (whose earlier requests had the block) and by FIRSTS (who stored it first).
        In a bounded cache both are of the resident copy: who computed it, and who had it since.
    capacity : int or None
        Blocks; None if nothing is evicted.
    policy : str
    """

    names: tuple = ORIGINS
    table: np.ndarray = field(repr=False)
    capacity: int | None = None
    policy: str = "lru"
    sort = "origin"

    @property
    def hit_tokens(self):
        """Cached tokens of each request, (n_requests,) int64."""
        return self.prompt_tokens - self.part("uncached")

    def as_dict(self):
        """Return the sums as JSON values."""
        writers = dict(zip(WRITERS, self.table.sum(axis=(1, 2)).tolist(), strict=True))
        if not writers["message"]:
            del writers["message"]
        holders = dict(zip(HOLDERS, self.table.sum(axis=(0, 2)).tolist(), strict=True))
        bound = {"capacity_blocks": self.capacity, "policy": self.policy}
        return {
            "requests": len(self), "prompt_tokens": int(self.prompt_tokens.sum()),
            "hit_tokens": int(self.hit_tokens.sum()), "partition_tokens": self.totals(),
            "holders_tokens": holders, "writers_tokens": writers, **({} if self.capacity is None else bound),
            **({"notes": self.notes} if self.notes else {}),
        }  # fmt: skip

    def to_frame(self):
        """Return a row per request: which it is, `prompt_tokens`, `hit_tokens`, and the tokens of each origin."""
        frame = super().to_frame()
        frame.insert(frame.columns.get_loc("prompt_tokens") + 1, "hit_tokens", self.hit_tokens)
        return frame


class _Segments(NamedTuple):
    """Cached tokens of each request from the first on, cut where holder or first storer change."""

    offsets: np.ndarray  # (n_requests + 1,) int64
    ends: np.ndarray  # int64: up to which token of the prompt each goes
    holders: np.ndarray  # int8, of HOLDERS
    firsts: np.ndarray  # int8, of FIRSTS


def find_provenance(trace, block_size, said=None, *, outputs=False, capacity=None, policy="lru", walks=None):
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
        Of the trace, if they are known already.

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
    if capacity is None:
        segments = _cut_holders(walks, conversation, twins, block_size, outputs)
    else:
        segments = _cut_copies(walks, trace, (conversation, twins), block_size, outputs, capacity, policy)
    writers = find_writers(trace.tokens, said)
    parts, table, odd = _label(segments, trace.rows, walks.prompt_tokens, writers)
    return Provenance(
        tokens=parts, prompt_tokens=walks.prompt_tokens, requests=name_requests(trace), table=table, capacity=capacity,
        policy=getattr(policy, "name", policy), notes=_note(said, odd),
    )  # fmt: skip


def _note(said, odd):
    if said is None:
        return ["who wrote a message is not known of this trace, nor which conversations are equal"]
    return [f"who wrote {odd:,} cached tokens is not known: their prompts hold other messages than the log"] * (odd > 0)


def _find_twins(trace, conversation, said):
    """Return a number for each conversation, equal for conversations with equal messages."""
    twins = np.arange(conversation.max(initial=-1) + 1)
    if said is not None:
        twins[conversation] = said.twins[trace.rows]
    return twins


def _cut_holders(walks, conversation, twins, block_size, outputs):
    found = find_holders(walks, conversation, outputs=outputs)
    return _Segments(*_cut_by_holder(walks, found, conversation, twins, block_size))


@njit(cache=True, nogil=True)
def _cut_by_holder(walks, found, conversation, twins, block_size):
    n = len(conversation)
    offsets, count = np.zeros(n + 1, np.int64), 0
    ends = np.empty(len(walks.nodes), np.int64)
    holders, firsts = np.empty(len(ends), np.int8), np.empty(len(ends), np.int8)
    for i in range(n):
        most = max(walks.prompt_tokens[i] - 1, 0) // block_size * block_size
        start = 0
        for k in range(walks.offsets[i], walks.prompt_stop[i]):
            end = min(walks.ends[k] // block_size * block_size, most)
            if walks.ends[k] > max(found.own[i], found.other[i]):
                break
            if end == start:
                continue
            is_own, is_other = walks.ends[k] <= found.own[i], walks.ends[k] <= found.other[i]
            holders[count] = BOTH if is_own and is_other else OWN_ONLY if is_own else OTHER_ONLY
            firsts[count] = _relate(conversation[i], found.firsts[k], twins)
            ends[count], start = end, end
            count += 1
        offsets[i + 1] = count
    return offsets, ends[:count].copy(), holders[:count].copy(), firsts[:count].copy()


@njit(nogil=True)
def _relate(one, other, twins):
    return SELF if one == other else DUPLICATE if twins[one] == twins[other] else OTHER


def _cut_copies(walks, trace, conversations, block_size, outputs, capacity, policy):
    blocks = cut_blocks(walks, trace, block_size, outputs=outputs).list_blocks()
    hits = replay(blocks, capacity, policy)
    limits = np.maximum(walks.prompt_tokens - 1, 0) // block_size
    conversation, twins = conversations
    order = np.argsort(conversation, kind="stable")
    before = _find_own_before(blocks.ids, blocks.offsets, conversation, order, blocks.n_distinct)
    kept = hits, np.minimum(hits, limits)
    return _Segments(*_cut_by_copy(blocks.ids, blocks.offsets, before, kept, conversation, twins, block_size))


@njit(cache=True, nogil=True)
def _find_own_before(ids, offsets, conversation, order, n_distinct):
    """Return, for each access, the last request before it of its conversation that accessed the block; -1 for none."""
    last = np.full(n_distinct, -1, np.int32)
    before = np.empty(len(ids), np.int32)
    for i in order:
        for k in range(offsets[i], offsets[i + 1]):
            request = last[ids[k]]
            before[k] = request if request >= 0 and conversation[request] == conversation[i] else -1
            last[ids[k]] = i
    return before


@njit(cache=True, nogil=True)
def _cut_by_copy(ids, offsets, own_before, kept, conversation, twins, block_size):
    """Cut by who computed the resident copy, the last request that missed the block, and who accessed it since."""
    hits, counted = kept
    computed = np.full(ids.max() + 1 if len(ids) else 0, -1, np.int32)
    has_others = np.zeros(len(computed), np.bool_)  # conversations that accessed the copy, beside the one that made it
    starts, count = np.zeros(len(hits) + 1, np.int64), 0
    ends, holders, firsts = np.empty(len(ids), np.int64), np.empty(len(ids), np.int8), np.empty(len(ids), np.int8)
    for i in range(len(hits)):
        for k in range(offsets[i], offsets[i + 1]):
            block, place = ids[k], k - offsets[i]
            if place >= hits[i]:
                computed[block], has_others[block] = i, False
                continue
            maker = conversation[computed[block]]
            if place < counted[i]:
                is_own = own_before[k] >= computed[block]
                is_other = has_others[block] or maker != conversation[i]
                holder = BOTH if is_own and is_other else OWN_ONLY if is_own else OTHER_ONLY
                first = _relate(conversation[i], maker, twins)
                if place == 0 or firsts[count - 1] != first or holders[count - 1] != holder:
                    holders[count], firsts[count] = holder, first
                    count += 1
                ends[count - 1] = (place + 1) * block_size
            has_others[block] |= maker != conversation[i]
        starts[i + 1] = count
    return starts, ends[:count].copy(), holders[:count].copy(), firsts[:count].copy()


@njit(cache=True, nogil=True)
def _label(segments, rows, prompt_tokens, of):
    """Return the origins by request, the table of all, and how many cached tokens of messages have no known writer."""
    n, odd = len(rows), 0
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
