"""The bounded cache again in plain Python, on prefixes as strings, and random small traces for it.

A request is a path, a string with a letter a block: "abc" accesses the blocks "a", "ab" and "abc". So a block's parent
is the string without its last letter. Every eviction looks at all resident blocks anew; nothing here is fast.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from kvprefix.blocks.prefix_trace import PrefixTrace

SETTINGS = {"slru": 0.8, "s3fifo": 0.1, "gdsf": 3.3e-5, "ttl": 600.0}


class Small(NamedTuple):
    """A trace's paths, and the same as the library's arrays."""

    paths: list
    accesses: PrefixTrace


def split_path(path):
    """Return the blocks of a path: its prefixes."""
    return [path[:end] for end in range(1, len(path) + 1)]


def count_leading(blocks, resident):
    """Return how many leading blocks are resident."""
    return next((n for n, block in enumerate(blocks) if block not in resident), len(blocks))


def list_distinct(paths):
    """Return the distinct blocks as first seen."""
    return list(dict.fromkeys(block for path in paths for block in split_path(path)))


def make_small(paths, *, block_size=2, arrival_s=None, finish_s=None, last_weight=None, prompt_tokens=None):
    """Make a small trace; unless told, a request a second, which ends at once and has a token after its blocks."""
    distinct = list_distinct(paths)
    blocks = np.array([len(path) for path in paths], np.int64)
    arrival_s = np.arange(len(paths), dtype=float) if arrival_s is None else np.array(arrival_s, float)
    accesses = PrefixTrace(
        block_size=block_size,
        ids=np.array([distinct.index(block) for path in paths for block in split_path(path)], np.int32),
        offsets=np.concatenate(([0], np.cumsum(blocks))),
        last_weight=np.full(len(paths), block_size) if last_weight is None else np.array(last_weight, np.int64),
        prompt_tokens=blocks * block_size + 1 if prompt_tokens is None else np.array(prompt_tokens, np.int64),
        parent=np.array([distinct.index(block[:-1]) if block[:-1] else -1 for block in distinct], np.int32),
        depth=np.array([len(block) - 1 for block in distinct], np.int32),
        arrival_s=arrival_s,
        finish_s=arrival_s if finish_s is None else np.array(finish_s, float),
        conversation=np.arange(len(paths)),
    )
    return Small(paths, accesses)


@st.composite
def small_traces(draw, max_requests=14, max_blocks=8):
    """Draw a few requests over two letters, most of which continue an earlier one; times are in quarter seconds."""
    n, block_size = draw(st.integers(1, max_requests)), draw(st.integers(1, 3))
    paths, prompt_tokens, last_weight = [], [], []
    for _ in range(n):
        before = draw(st.sampled_from(["", *paths]))
        path = (before[: draw(st.integers(0, len(before)))] + draw(st.text("ab", max_size=3)))[:max_blocks]
        past_end, partial = draw(st.integers(0, 2)), draw(st.integers(0, block_size - 1))
        paths.append(path)  # its last block is cut, or full and followed by `past_end` tokens
        cut = partial if path else 0
        prompt_tokens.append(len(path) * block_size + (cut - block_size if cut else past_end))
        last_weight.append(cut or (block_size if past_end else 0))
    waits, services = (draw(st.lists(st.integers(0, top), min_size=n, max_size=n)) for top in (8, 20))
    arrival_s = np.cumsum(waits) / 4
    return make_small(
        paths, block_size=block_size, arrival_s=arrival_s, finish_s=arrival_s + np.array(services) / 4,
        last_weight=last_weight, prompt_tokens=prompt_tokens,
    )  # fmt: skip


def make_random(seed, n_requests=400, max_blocks=8):
    """Make a trace of random walks from the root that prefer the first letters; a few hundred blocks in all."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, max_blocks + 1, n_requests)
    paths = ["".join(rng.choice(list("abcd"), length, p=[0.55, 0.25, 0.15, 0.05])) for length in lengths]
    arrival_s = np.cumsum(rng.integers(0, 9, n_requests)) / 4
    return make_small(paths, arrival_s=arrival_s, finish_s=arrival_s + rng.integers(0, 17, n_requests) / 4)


@dataclass
class Entry:
    """What is known of a resident block: the requests (positions) that stored it and used it last, and its uses."""

    stored: int
    used: int
    uses: int = 1


class Lru:
    """The resident blocks under LRU; every other policy says what it does differently."""

    def __init__(self, small, capacity, setting):
        self.paths, self.accesses, self.capacity, self.setting = *small, capacity, setting
        self.order = {block: number for number, block in enumerate(list_distinct(self.paths))}
        self.resident = {}

    def find_leaves(self, pinned):
        parents = {block[:-1] for block in self.resident}
        return [block for block in self.resident if block not in parents and block not in pinned]

    def first_out(self, leaves):
        """Return the leaf of the lowest score; of equal ones the deepest, then the one first seen."""
        return min(leaves, key=lambda block: (self.score(block), -len(block), self.order[block]))

    def score(self, block):
        return self.resident[block].used

    def expire(self, now, pinned):
        """Drop what is too old."""

    def hit(self, blocks, now):
        for block in blocks:
            self.resident[block].used = now
            self.resident[block].uses += 1

    def choose(self, leaves, block, now):
        """Return the leaf that goes for a block, or None to leave the block out."""
        return self.first_out(leaves) if leaves else None

    def evict(self, victim):
        del self.resident[victim]

    def store(self, block, now):
        self.resident[block] = Entry(now, now)


class Fifo(Lru):
    def score(self, block):
        return self.resident[block].stored


class Lfu(Lru):
    def score(self, block):
        return self.resident[block].uses, self.resident[block].used


class Gdsf(Lru):
    def __init__(self, *args):
        super().__init__(*args)
        self.scores, self.evicted_score = {}, 0.0

    def score(self, block):
        return self.scores[block]

    def set_score(self, block):
        position = self.accesses.block_size * (len(block) - 0.5)  # the middle of the block, in tokens
        self.scores[block] = self.evicted_score + self.resident[block].uses * (1 + self.setting * position)

    def hit(self, blocks, now):
        super().hit(blocks, now)
        for block in blocks:
            self.set_score(block)

    def evict(self, victim):
        super().evict(victim)
        self.evicted_score = self.scores[victim]

    def store(self, block, now):
        super().store(block, now)
        self.set_score(block)


class Ttl(Lru):
    def expire(self, now, pinned):
        arrival_s = self.accesses.arrival_s
        while old := [
            leaf for leaf in self.find_leaves(pinned)
            if arrival_s[now] - arrival_s[self.resident[leaf].used] > self.setting
        ]:  # fmt: skip
            for leaf in old:
                self.evict(leaf)


class Slru(Lru):
    def __init__(self, *args):
        super().__init__(*args)
        self.protected = []  # least recently used first

    def hit(self, blocks, now):
        super().hit(blocks, now)
        self.protected = [block for block in self.protected if block not in blocks] + blocks[::-1]
        while len(self.protected) > self.setting * self.capacity:
            self.resident[self.protected.pop(0)].used = now  # back on probation, as if just used

    def choose(self, leaves, block, now):
        on_probation = [leaf for leaf in leaves if leaf not in self.protected]
        return super().choose(on_probation or leaves, block, now)

    def evict(self, victim):
        super().evict(victim)
        self.protected = [block for block in self.protected if block != victim]


class S3Fifo(Lru):
    def __init__(self, *args):
        super().__init__(*args)
        self.small, self.main = [], []  # oldest first
        self.hits, self.ghosts = {}, []  # ghosts: evicted from the small queue, latest last; None where one came back

    def hit(self, blocks, now):
        for block in blocks:
            self.hits[block] = min(self.hits[block] + 1, 3)

    def choose(self, leaves, block, now):
        while leaves:
            small, main = ([leaf for leaf in queue if leaf in leaves] for queue in (self.small, self.main))
            if small and (len(self.small) > self.setting * self.capacity or not main):
                if self.hits[small[0]] < 2:
                    return small[0]
                self.small.remove(small[0])
                self.main.append(small[0])
                self.hits[small[0]] = 0
            else:
                if self.hits[main[0]] == 0:
                    return main[0]
                self.main.remove(main[0])
                self.main.append(main[0])
                self.hits[main[0]] -= 1
        return None

    def evict(self, victim):
        super().evict(victim)
        if victim in self.small:
            self.small.remove(victim)
            self.ghosts.append(victim)
        else:
            self.main.remove(victim)

    def store(self, block, now):
        super().store(block, now)
        self.hits[block] = 0
        main_room = int(self.capacity - self.setting * self.capacity)  # whole blocks: so many ghosts are remembered
        remembered = self.ghosts[max(len(self.ghosts) - main_room, 0) :]
        (self.main if block in remembered else self.small).append(block)
        self.ghosts = [None if ghost == block else ghost for ghost in self.ghosts]


class Opt(Lru):
    def find_next(self, block, now):
        later = (i for i in range(now + 1, len(self.paths)) if self.paths[i].startswith(block))
        return next(later, len(self.paths))

    def choose(self, leaves, block, now):
        if not leaves:
            return None
        farthest = max(leaves, key=lambda leaf: self.find_next(leaf, now))
        return farthest if self.find_next(farthest, now) >= self.find_next(block, now) else None


CACHES = {
    "lru": Lru, "fifo": Fifo, "lfu": Lfu, "slru": Slru, "s3fifo": S3Fifo, "gdsf": Gdsf, "ttl": Ttl, "opt": Opt,
}  # fmt: skip


def replay_twin(small, capacity, policy, *, setting=None, hold=False):
    """Return each request's hit blocks under a policy."""
    return _replay(small, capacity, policy, setting, hold)[0]


def count_evictions(small, capacity, policy, *, setting=None, hold=False):
    """Return the blocks that were stored and are not resident at the end, each as often as it left."""
    return _replay(small, capacity, policy, setting, hold)[1]


def _replay(small, capacity, policy, setting, hold):
    if policy == "fifo_flat":
        return replay_flat(small.paths, capacity)
    cache = CACHES.get(policy, policy)(small, capacity, SETTINGS.get(policy) if setting is None else setting)
    arrival_s, finish_s = small.accesses.arrival_s, small.accesses.finish_s
    stored = 0
    held, hits = [], []  # held: by request, the blocks that it pins until it finishes
    for i, blocks in enumerate(map(split_path, small.paths)):
        running = [held[j] for j in range(i) if hold and finish_s[j] > arrival_s[i]]
        pinned = {block for kept in running for block in kept}
        cache.expire(i, pinned)
        n_hits = count_leading(blocks, cache.resident)
        hits.append(n_hits)
        cache.hit(blocks[:n_hits], i)
        held.append(blocks[:n_hits])
        for block in blocks[n_hits:]:
            if len(cache.resident) == capacity:
                victim = cache.choose(cache.find_leaves(pinned | set(held[i])), block, i)
                if victim is None:
                    break
                cache.evict(victim)
            cache.store(block, i)
            stored += 1
            held[i].append(block)
    return hits, stored - len(cache.resident)


def replay_flat(paths, capacity):
    """Return the hit blocks, and the evictions, where the block stored first goes; a request stores `capacity`."""
    resident, hits, stored = [], [], 0  # resident: in the order of storing
    for blocks in map(split_path, paths):
        hits.append(count_leading(blocks, resident))
        for block in reversed(blocks[:capacity]):
            if block not in resident:
                resident = [*resident, block][-capacity:]
                stored += 1
    return hits, stored - len(resident)


def find_most_hits(paths, capacity):
    """Return the most hit blocks that any choice of what to keep could give: all choices are tried.

    After a request a cache may keep any `capacity` blocks of those it had and those of the request, connected or not.
    """
    best = {frozenset(): 0}
    for blocks in map(split_path, paths):
        after = {}
        for resident, hits in best.items():
            hits += count_leading(blocks, resident)
            union = resident | set(blocks)
            for kept in map(frozenset, itertools.combinations(sorted(union), min(capacity, len(union)))):
                after[kept] = max(after.get(kept, 0), hits)
        best = after
    return max(best.values())


def count_unbounded(paths):
    """Return each request's leading blocks that an earlier request accessed."""
    return [sum(block in list_distinct(paths[:i]) for block in split_path(path)) for i, path in enumerate(paths)]


def list_distances(paths):
    """Return every access's place in the LRU stack from 1 on, 0 for a new block; a request's root goes on top."""
    stack, distances = [], []
    for blocks in map(split_path, paths):
        distances += [stack.index(block) + 1 if block in stack else 0 for block in blocks]
        stack = blocks + [block for block in stack if block not in blocks]
    return distances


def rate_twin(small, hits, warmup=0.0):
    """Return the block, token and request-mean rates of hits, request by request."""
    accesses = small.accesses
    saved, tokens, shares, n_blocks, n_hits = 0, 0, [], 0, 0
    for i in range(int(warmup * len(hits)), len(hits)):
        weights = [accesses.block_size] * (len(small.paths[i]) - 1) + [int(accesses.last_weight[i])]
        saved += sum(weights[: hits[i]])
        tokens += int(accesses.prompt_tokens[i])
        n_blocks, n_hits = n_blocks + len(small.paths[i]), n_hits + hits[i]
        if accesses.prompt_tokens[i]:
            shares.append(sum(weights[: hits[i]]) / accesses.prompt_tokens[i])
    return {
        "block": n_hits / n_blocks if n_blocks else 0.0,
        "token": saved / tokens if tokens else 0.0,
        "request_mean": sum(shares) / len(shares) if shares else 0.0,
    }
