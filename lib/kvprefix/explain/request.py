"""One request explained: its blocks, the earlier prompt that it is nearest to, and what became of what it misses."""

from dataclasses import dataclass, field

import numpy as np
from numba import njit

from kvprefix.cache.curve import measure_distances
from kvprefix.cache.evictions import record_evictions
from kvprefix.cache.policies import find_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.files.shown import Shown
from kvprefix.files.words import count

SIGNS = {
    "hit": "#", "routing": "R", "policy": "P", "capacity": "C", "sub_block_inside": "s", "sub_block_tail": "t",
    "isolation": "I", "generated_not_cached": "g", "last_sampled_token": "l", "template_divergence": "T",
    "last_token": "L", "cold": ".", "first_seen": ".",
}  # fmt: skip
WIDTH = 64  # signs of a line of a strip
LINES = 16  # of a strip at most


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The earlier request whose prompt and reply share most with a prompt; the latest of several.

    Attributes
    ----------
    request : int
        Its position; -1 if no request shares a token.
    tokens : int
        Leading tokens that both have.
    """

    request: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """What became of the first block that a request misses though it was stored.

    Attributes
    ----------
    block : int
        Its 0-based place in the prompt.
    last : int
        The position of the request that accessed it last.
    evicted_by : int or None
        That of the request for which it was evicted; None if it was not kept then, -1 if the policy does not tell.
    missed_by : int or None
        How many more blocks an LRU cache would have needed; None under another policy.
    """

    block: int
    last: int
    evicted_by: int | None
    missed_by: int | None


@dataclass(frozen=True, kw_only=True, repr=False)
class OneRequest(Shown):
    """What a request hits and misses, and why.

    Attributes
    ----------
    name : str
        The request's id.
    position : int
        Among all requests, in arrival order.
    block_size : int
    prompt_tokens : int
    arrival_s : float
    capacity : int or None
        Blocks; None if nothing is evicted.
    classes, origins : dict of str to int
        Tokens of the prompt by cause, and of its hits by origin.
    turns : list of dict
        The conversation's last requests up to this one: `request_id`, `turn`, `arrival_s`, `prompt_tokens`,
        `hit_tokens`.
    nearest : Nearest
    eviction : Eviction or None
    where : str
        Where the two prompts part, in words.
    before, here, there : str
        The text before that place, and after it in this prompt and in the earlier one; empty if tokens are not known.
    earlier_turns : int
        Its requests before those.
    places : dict of str to str
        Names and times of the requests that `nearest` and `eviction` name.
    notes : list of str
    """

    name: str
    position: int
    block_size: int
    prompt_tokens: int
    arrival_s: float
    capacity: int | None
    classes: dict
    origins: dict
    turns: list
    nearest: Nearest
    eviction: Eviction | None
    where: str = ""
    before: str = ""
    here: str = ""
    there: str = ""
    earlier_turns: int = 0
    places: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)

    def describe(self):
        """Return the first lines of `say`."""
        tokens = {name.replace("_", " "): f"{n:,} tokens" for name, n in self.classes.items()}
        return {"what": f"Request {self.name}", **tokens}

    def say(self):
        """Yield lines of text that explain the request."""
        bound = "nothing is evicted" if self.capacity is None else f"a cache of {count(self.capacity, 'block')}"
        tokens = count(self.prompt_tokens, "prompt token")
        yield f"{self.name}: {tokens}, at {self.arrival_s:,.1f} s; {bound}, {self.block_size} tokens per block"
        yield "turns:" if self.earlier_turns == 0 else f"turns, without {count(self.earlier_turns, 'earlier one')}:"
        for one in self.turns:
            yield (
                f"  {one['request_id']} at {one['arrival_s']:,.1f} s: {one['hit_tokens']:,} of "
                f"{one['prompt_tokens']:,} tokens hit"
            )
        lines, per_sign = self.strip()
        yield f"blocks, {'one' if per_sign == 1 else per_sign} per sign:"
        yield from (f"  {line}" for line in lines)
        for name, n in self.classes.items():
            share = 100 * n / self.prompt_tokens
            yield f"  {SIGNS[name]} {name.replace('_', ' ')}: {count(n, 'token')} ({share:.1f} %)"
        if self.origins:
            parts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in self.origins.items())
            yield f"hit tokens by origin: {parts}"
        yield from self._say_nearest()
        yield from self._say_eviction()

    def _say_nearest(self):
        if self.nearest.request < 0:
            yield "no earlier prompt begins alike"
            return
        place = self.places[str(self.nearest.request)]
        yield f"nearest earlier prompt: {place}, {count(self.nearest.tokens, 'token')} alike; {self.where}".rstrip("; ")
        for label, text in (("both", self.before), ("here", self.here), ("there", self.there)):
            if text:
                yield f"  {label:<5} {text}"

    def _say_eviction(self):
        one = self.eviction
        if one is None:
            return
        gone = "not kept then" if one.evicted_by is None else "evicted since"
        if (one.evicted_by or -1) >= 0:
            gone = f"evicted for {self.places[str(one.evicted_by)]}"
        short = "" if one.missed_by is None else f"; {count(one.missed_by, 'more block')} would have kept it"
        yield f"block {one.block}: last used by {self.places[str(one.last)]}, {gone}{short}"

    def strip(self):
        """Return the prompt's blocks as signs, the widest class of each; see SIGNS."""
        return draw_strip(self.classes, self.prompt_tokens, self.block_size)


def draw_strip(classes, prompt_tokens, block_size):
    """Return blocks as lines of signs; the classes stand in their order, from the first token on.

    Returns
    -------
    lines : list of str
    per_sign : int
        Blocks of each sign: 1, or more if the prompt is long.

    Examples
    --------
    >>> draw_strip({"hit": 4, "sub_block_inside": 1, "cold": 4}, 9, 2)
    (['##s..'], 1)
    """
    if not prompt_tokens:
        return [], 1
    blocks = -(-prompt_tokens // block_size)
    per_sign = max(-(-blocks // (WIDTH * LINES)), 1)
    edges = np.arange(0, blocks + per_sign, per_sign) * block_size
    edges = np.minimum(edges[: -(-blocks // per_sign) + 1], prompt_tokens)
    ends = np.cumsum(list(classes.values()))
    spans = zip(ends, classes.values(), strict=True)
    filled, names = np.stack([np.diff(np.clip(edges, end - size, end)) for end, size in spans]), list(classes)
    signs = "".join(SIGNS[names[k]] for k in filled.argmax(axis=0))
    return [signs[at : at + WIDTH] for at in range(0, len(signs), WIDTH)], per_sign


def find_nearest(walks, position):
    """Return the Nearest of a request.

    Parameters
    ----------
    walks : Walks
    position : int

    Examples
    --------
    >>> from kvprefix.explain.walks import make_walks
    >>> from kvprefix.traces.trace import make_trace_of
    >>> find_nearest(make_walks(make_trace_of([[1, 2, 3], [1, 2], [1, 2, 4]])), 2)
    Nearest(request=1, tokens=2)
    """
    request, tokens = _find_nearest(walks, position)
    return Nearest(request=int(request), tokens=int(tokens))


@njit(cache=True, nogil=True)
def _find_nearest(walks, position):
    last = np.full(walks.n_nodes, -1)
    for i in range(position):
        last[walks.nodes[walks.offsets[i] : walks.offsets[i + 1]]] = i
    request, tokens = -1, 0
    for k in range(walks.offsets[position], walks.prompt_stop[position]):
        if last[walks.nodes[k]] < 0:
            break
        request, tokens = last[walks.nodes[k]], walks.ends[k]
    return request, tokens


def find_nearest_listed(trace, position):
    """Return the Nearest of a request of a PrefixTrace: by whole blocks."""
    ids = trace.ids[: trace.offsets[position]]
    own = trace.ids[trace.offsets[position] : trace.offsets[position + 1]]
    shared = int(np.isin(own, ids).sum())
    if not shared:
        return Nearest(request=-1, tokens=0)
    request = np.searchsorted(trace.offsets, np.flatnonzero(ids == own[shared - 1])[-1], side="right") - 1
    return Nearest(request=int(request), tokens=int(trace.hit_tokens(_one(trace, position, shared))[position]))


def _one(trace, position, blocks):
    hits = np.zeros(len(trace), np.int64)
    hits[position] = blocks
    return hits


def find_eviction(blocks, position, hit, stored, capacity, policy="lru"):
    """Find what became of the first block that a request misses though an earlier one had it.

    Parameters
    ----------
    blocks : PrefixTrace
    position : int
    hit, stored : int
        The request's leading blocks that it hits, and that were ever stored.
    capacity : int
    policy : str or Policy

    Returns
    -------
    Eviction or None
        None if it misses no such block.

    Examples
    --------
    Room for two blocks: the third request evicts block 1, and a cache of three would have kept it.

    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.traces.trace import make_trace_of
    >>> trace = make_prefix_trace(make_trace_of([[1], [2], [3], [1]]), 1)
    >>> find_eviction(trace, 3, 0, 1, 2)
    Eviction(block=0, last=0, evicted_by=2, missed_by=1)
    """
    if hit >= stored:
        return None
    policy, at = find_policy(policy), blocks.offsets[position] + hit
    block = blocks.ids[at]
    last = int(np.searchsorted(blocks.offsets, np.flatnonzero(blocks.ids[:at] == block)[-1], side="right")) - 1
    evicted_by = -1
    if policy.make_rule is not None:
        evictions = record_evictions(blocks, capacity, policy)
        some = evictions.request[(evictions.block == block) & (evictions.request < position)]
        some = some[some > last]
        evicted_by = int(some[-1]) if len(some) else None
    missed_by = int(measure_distances(blocks)[at]) - capacity if policy is LRU else None
    return Eviction(block=int(hit), last=last, evicted_by=evicted_by, missed_by=missed_by)


def read_row(parts, position):
    """Return the parts of one request that are not 0, by name."""
    row = parts.tokens[position].tolist()
    return {name: n for name, n in zip(parts.names, row, strict=True) if n}
