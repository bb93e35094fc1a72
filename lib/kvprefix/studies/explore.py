"""The core of the explorer: hit rates of a workload under settings that change by the second.

What settings share is kept: the tokens and the tree of their prefixes. Other times only put requests in another order,
and another block size cuts the tree elsewhere, so either costs a pass over the stretches of blocks.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kvprefix.blocks.stretches import StretchTrace, cut_trace
from kvprefix.cache.characteristic import MOST_OF_WINDOW, find_times, find_window
from kvprefix.cache.curve import Curve
from kvprefix.cache.policies import POLICIES
from kvprefix.cache.recency import lru_curve, measure_recency
from kvprefix.cache.replay import replay
from kvprefix.cache.rules.lru import LRU
from kvprefix.models.memory import load_model, to_blocks, to_gib
from kvprefix.studies.table import find_tree
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import make_trace


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a reader moves: four parameters of a report, and three choices that a report shows side by side.

    Attributes
    ----------
    arrival_rate : float
        Conversations that start per second.
    think_median_s : float
        Seconds.
    block_size : int
        Tokens.
    kv_model : str
        In whose KV cache the memory is measured.
    gib : float
        Memory of the cache, in GiB.
    policy : str
        A name in POLICIES.
    replies : bool
        Whether generated tokens are cached too, from their request's arrival on.
    """

    arrival_rate: float
    think_median_s: float
    block_size: int
    kv_model: str
    gib: float = 40.0
    policy: str = LRU.name
    replies: bool = False

    @classmethod
    def of(cls, parameters, **choices):
        """Return the settings that a report's Parameters hold, with choices of memory, policy and replies."""
        return cls(**{name: getattr(parameters, name) for name in VARIED}, **choices)

    def change(self, parameters):
        """Return a report's Parameters with these settings; raise InputError if one of them cannot be used."""
        return replace(parameters, **{name: getattr(self, name) for name in VARIED})

    @property
    def bytes_per_token(self):
        """Bytes of the model's KV cache per token."""
        return load_model(self.kv_model).bytes_per_token

    @property
    def capacity_blocks(self):
        """Whole blocks that the memory holds."""
        return int(to_blocks(self.gib, self.block_size, self.bytes_per_token))


VARIED = tuple(name for name in Settings.__dataclass_fields__ if name in Parameters.__dataclass_fields__)


class Warm:
    """A workload whose prefix trees stay; see `view`.

    Parameters
    ----------
    workload : Experiment
    """

    def __init__(self, workload):
        self.workload, self._key, self._measured = workload, None, None

    def view(self, settings):
        """Measure LRU's curve under some settings; only what they change is computed.

        Returns
        -------
        View

        Raises
        ------
        InputError
            Settings that no report can have.
        """
        parameters = settings.change(self.workload.parameters)
        key = parameters.with_absolute_files(), settings.replies
        if key != self._key:
            trace = make_trace(replace(self.workload, parameters=parameters), "multi_turn")
            tree = find_tree(trace.tokens, settings.replies)
            stretches = cut_trace(tree, trace, settings.block_size)
            self._measured = stretches, lru_curve(stretches, measure_recency(stretches))
            self._key = key
        return View(settings, *self._measured)


@dataclass(frozen=True)
class View:
    """What the settings give.

    Attributes
    ----------
    settings : Settings
    stretches : StretchTrace
        What the cache sees: with replies, a request's blocks are its prompt's and then its reply's.
    curve : Curve
        LRU's, at every capacity; of the prompts' accesses alone, which can be hit.
    """

    settings: Settings
    stretches: StretchTrace
    curve: Curve

    @cached_property
    def accesses(self):
        """What the cache sees block by block, as a PrefixTrace."""
        return self.stretches.list_blocks()

    def rate(self, capacity_blocks, policy=LRU.name):
        """Return a policy's token hit rate at a capacity: LRU's is read off the curve, any other is a replay."""
        if policy == LRU.name or capacity_blocks < 1:
            return float(self.curve.at(capacity_blocks)["token"])
        prompt_tokens, size = self.stretches.prompt_tokens, self.stretches.block_size
        hits = np.minimum(replay(self.accesses, capacity_blocks, policy), np.maximum(prompt_tokens - 1, 0) // size)
        return float(size * hits.sum() / max(prompt_tokens.sum(), 1))

    def gib(self, capacity_blocks):
        """Return the GiB that blocks take in the model's KV cache."""
        return to_gib(capacity_blocks, self.settings.block_size, self.settings.bytes_per_token)

    def list_capacities(self, points=7):
        """Return the capacities in blocks at which a policy other than LRU is replayed, the settings' own first."""
        own, most = max(self.settings.capacity_blocks, 1), max(self.stretches.n_distinct, 1)
        spread = np.geomspace(max(most // 500, 1), most, points).round().astype(int).tolist()
        return [own, *(capacity for capacity in dict.fromkeys(spread) if not 0.7 < capacity / own < 1.4)]

    def trace_curve(self, points=300):
        """Return the curve to draw: GiB, and LRU's token hit rates there, (m,) float64 each."""
        most = max(self.stretches.n_distinct, 2)
        capacities = np.unique(np.geomspace(1, most, points).round().astype(np.int64))
        return self.gib(capacities), self.curve.at(capacities)["token"]

    def survival_s(self):
        """Return how long a block survives in the settings' memory under LRU without an access, in seconds.

        NaN if the trace is too short to show it: the time is more than MOST_OF_WINDOW of the window in which
        `cache.characteristic` measures it.
        """
        start, end = find_window(self.accesses)
        (time_s,) = find_times(self.accesses, [self.settings.capacity_blocks])
        return float(time_s) if time_s <= MOST_OF_WINDOW * (end - start) else np.nan


def measure_point(view):
    """Measure the settings' point: numbers by name, of which `facts.explore` makes facts.

    Returns
    -------
    dict
        `capacity_blocks`, `distinct_blocks`; the token hit rates `lru`, `lru_next` (with one GiB more), `unbounded` and
        `rate` (the chosen policy's); `survival_s`.
    """
    settings, capacity = view.settings, view.settings.capacity_blocks
    further = replace(settings, gib=settings.gib + 1).capacity_blocks
    return {
        "capacity_blocks": capacity, "distinct_blocks": view.stretches.n_distinct, "lru": view.rate(capacity),
        "lru_next": view.rate(further), "unbounded": float(view.curve.token[-1]),
        "rate": view.rate(capacity, POLICIES[settings.policy].name), "survival_s": view.survival_s(),
    }  # fmt: skip
