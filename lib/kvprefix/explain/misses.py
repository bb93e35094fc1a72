"""Why the rest is missed: every prompt token is a hit, or has one cause.

The causes are nested lengths of leading tokens: what is resident, what is resident on any replica, what the optimum
would have kept, what was ever stored, what was there token by token, and so on. Each length is at least the one before
and leaves the last token, which is always computed; a class is the difference of two. So the classes sum to the prompt
exactly, and none is what an estimate leaves over.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kvprefix.cache.policies import find_policy
from kvprefix.cache.recency import count_hits, measure_recency
from kvprefix.cache.replay import check_capacity, limit_capacity, replay_each
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT, replay_lookups
from kvprefix.explain.parts import Parts, name_requests
from kvprefix.explain.routing import replay_routed
from kvprefix.explain.walks import Repeats, Walks, cut_blocks, find_repeats, make_walks
from kvprefix.explain.writers import find_known_messages, find_writers
from kvprefix.files.checks import check_block_size, check_type
from kvprefix.files.words import count
from kvprefix.traces.trace import Trace

CLASSES = (
    "hit", "routing", "policy", "capacity", "sub_block_inside", "sub_block_tail", "isolation", "generated_not_cached",
    "last_sampled_token", "template_divergence", "last_token", "cold",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class Misses(Parts):
    """The classes of a trace's prompt tokens at one capacity.

    Attributes
    ----------
    capacity : int or None
        Blocks, of each replica if there are several; None if nothing is evicted.
    policy : str
        Of eviction, or the engine that was replayed.
    """

    names: tuple = CLASSES
    capacity: int | None = None
    policy: str = "lru"
    sort = "cause"


class Known(NamedTuple):
    """What of a trace's prompts was there before, whatever the capacity.

    Attributes
    ----------
    trace : Trace
    block_size : int
    outputs : bool
        Whether generated tokens are cached.
    walks : Walks
    repeats : Repeats
    messages : (n_requests,) ndarray of int64
        Leading tokens of messages that began an earlier prompt and its reply, see `find_known_messages`.
    notes : list of str
    """

    trace: Trace
    block_size: int
    outputs: bool
    walks: Walks
    repeats: Repeats
    messages: np.ndarray
    notes: list

    @property
    def stored_tokens(self):
        """Leading tokens of blocks that were ever stored in the same context, last-token rule, (n_requests,) int64."""
        most = np.minimum(self.repeats.stored, np.maximum(self.walks.prompt_tokens - 1, 0))
        return most // self.block_size * self.block_size

    def limit(self, hit_blocks):
        """Return the tokens of hit blocks as far as an engine hits them: all but the last token, in whole blocks."""
        most = np.maximum(self.walks.prompt_tokens - 1, 0) // self.block_size
        return np.minimum(hit_blocks, most) * self.block_size


def know(trace, block_size, said=None, *, outputs=False, walks=None, writers=None):
    """Find what of each prompt was there before.

    Parameters
    ----------
    trace : Trace
    block_size : int
        Tokens per block.
    said : Said, optional
        Which messages the rows of its tokens hold. Without it, messages are not compared, and no token counts as
        `template_divergence`.
    outputs : bool
        Whether generated tokens are cached.
    walks : Walks, optional
    writers : Writers, optional
        Of the trace and of its tokens, if they are known already.

    Returns
    -------
    Known
    """
    check_type(trace, Trace, "trace")
    block_size = check_block_size(block_size)
    walks = make_walks(trace) if walks is None else walks
    messages, notes = np.zeros(len(trace), np.int64), ["messages are not known: none counts as template_divergence"]
    if said is not None:
        writers = find_writers(trace.tokens, said) if writers is None else writers
        messages = find_known_messages(trace.rows, walks.prompt_tokens, said, writers)
        odd = int((~writers.is_known[trace.rows]).sum())
        of_them = f"messages are not known of {count(odd, 'prompt')}: no token there counts as template_divergence"
        notes = [of_them] * (odd > 0)
    return Known(trace, block_size, outputs, walks, find_repeats(walks, outputs=outputs), messages, notes)


def find_misses(known, capacities, *, policy="lru", routing=None):
    """Find the cause of every missed token in caches of several sizes.

    Parameters
    ----------
    known : Known
    capacities : sequence of int or None
        Blocks of each cache; None if nothing is evicted.
    policy : str or Policy
    routing : Routing, optional
        How requests are spread over replicas: each has a cache of that capacity, under LRU.

    Yields
    ------
    Misses
        For each of the capacities.

    Raises
    ------
    InputError
        A capacity below 1, a policy that is not known, or one other than LRU with replicas.

    Examples
    --------
    Room for one block of two tokens: the third prompt finds the first one's block evicted for the second's. The optimum
    would have kept it. The last token of a prompt is always computed.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_trace_of([[1, 2, 9], [5, 6, 9], [1, 2, 9]])
    >>> (found,) = find_misses(know(trace, 2), [1])
    >>> {name: n for name, n in found.totals().items() if n}
    {'policy': 2, 'last_token': 1, 'cold': 6}
    """
    policy, capacities = find_policy(policy), [one if one is None else check_capacity(one) for one in capacities]
    replayed = _replay(known, policy, capacities) if routing is None else _route(known, policy, capacities, routing)
    for capacity, reached in zip(capacities, replayed, strict=True):
        yield classify(known, *reached, capacity=capacity, policy=policy.name)


def _replay(known, policy, capacities):
    """Yield the tokens that each request hits, those resident on any replica (the same), and those that OPT hits."""
    stretches = cut_blocks(known.walks, known.trace, known.block_size, outputs=known.outputs)
    blocks, looked_up = stretches.list_blocks(), known.walks.prompt_tokens // known.block_size
    bounded = [limit_capacity(blocks, one) for one in capacities if one is not None]
    best, hits = itertools.tee(hits for hits, _ in replay_lookups(blocks, bounded, looked_up))
    if policy is LRU:
        hits = iter(count_hits(stretches, measure_recency(stretches), bounded).T)
    elif policy is not OPT:
        hits = replay_each(blocks, bounded, policy)
    for capacity in capacities:
        if capacity is None:
            yield (known.stored_tokens,) * 3
        else:
            hit = known.limit(next(hits))
            yield hit, hit, known.limit(next(best))


def _route(known, policy, capacities, routing):
    """Yield the same of replicas."""
    blocks = cut_blocks(known.walks, known.trace, known.block_size, outputs=known.outputs).list_blocks()
    looked_up = known.walks.prompt_tokens // known.block_size
    for reached in replay_routed(blocks, policy, capacities, routing, looked_up):
        yield map(known.limit, reached)


def classify(known, hit, anywhere, best, *, capacity=None, policy="lru"):
    """Class each prompt token, from what is hit.

    Parameters
    ----------
    known : Known
    hit, anywhere, best : (n_requests,) ndarrays of int64
        Leading tokens that are hit, that are resident on any replica, and that the optimum would hit.
    capacity : int, optional
    policy : str

    Returns
    -------
    Misses
    """
    lengths, repeats = known.walks.prompt_tokens, known.repeats
    reached = [
        hit, anywhere, best, known.stored_tokens, repeats.stored, repeats.anywhere, repeats.replied, repeats.sampled,
        known.messages,
    ]  # fmt: skip
    reached = np.maximum.accumulate(np.stack(reached), axis=0)
    limited = np.minimum(reached, np.maximum(lengths - 1, 0))
    hit, routing, policy_, evicted, sub_block, *rest = np.diff(limited, axis=0, prepend=0)
    is_tail = repeats.stored >= lengths
    inside, tail = np.where(is_tail, 0, sub_block), np.where(is_tail, sub_block, 0)
    last_token = (reached[-1] >= lengths) & (lengths > 0)
    parts = [hit, routing, policy_, evicted, inside, tail, *rest, last_token]
    cold = lengths - np.sum(parts, axis=0)
    return Misses(
        tokens=np.column_stack([*parts, cold]).astype(np.int64), prompt_tokens=lengths, capacity=capacity,
        policy=policy, requests=name_requests(known.trace), notes=list(known.notes),
    )  # fmt: skip
