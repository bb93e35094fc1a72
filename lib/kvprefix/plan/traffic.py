"""The traffic that a plan is made for: its block accesses, its tokens if they are known, and what runs at once."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from kvprefix.blocks.prefix_trace import PrefixTrace, select_requests
from kvprefix.blocks.prefix_tree import PrefixTree
from kvprefix.blocks.stretches import cut_paths
from kvprefix.cache.cluster.rates import find_steady
from kvprefix.cache.cluster.replay import SERVICE, Service, find_finish
from kvprefix.engines.vllm import VLLM
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.traces.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests at their times, as replicas see them.

    Attributes
    ----------
    blocks : PrefixTrace
        Accesses, replies among them if they are known.
    looked_up : (n_requests,) ndarray of int64
        Blocks of each prompt.
    trace : Trace or None
        The tokens; None of a trace of block ids.
    tree : PrefixTree or None
        Of the trace's tokens with their replies.
    service : Service
        How long requests are outstanding.
    seed : int
        Of routers that choose at random.
    notes : tuple of str
        What was put right, or inferred, when the data were read.
    """

    blocks: PrefixTrace
    looked_up: np.ndarray
    trace: Trace | None = None
    tree: PrefixTree | None = None
    service: Service = SERVICE
    seed: int = 0
    notes: tuple = ()

    def __len__(self):
        return len(self.blocks)

    @property
    def prompts(self):
        """Prompt tokens, (n_requests,) int64."""
        return self.blocks.prompt_tokens

    @cached_property
    def steady_s(self):
        """Seconds in which the middle half of the requests arrives; 0 if there is no time between."""
        arrival_s = self.blocks.arrival_s[find_steady(self.blocks.arrival_s)]
        return float(np.ptp(arrival_s)) if len(arrival_s) else 0.0

    def rate_per_s(self, values):
        """Return a sum over requests per second, while their middle half arrives; None if there is no time."""
        return float(np.sum(values[find_steady(self.blocks.arrival_s)])) / self.steady_s if self.steady_s else None

    def count_running(self):
        """Return the tokens that all running requests hold, the mean over time; None if there is no time."""
        outputs = 0 if self.blocks.output_tokens is None else self.blocks.output_tokens
        runs_s = find_finish(self.blocks, self.service) - self.blocks.arrival_s
        return self.rate_per_s(runs_s * (self.prompts + outputs))

    def play(self, rate):
        """Return the same requests, arriving `rate` times as fast."""
        arrival_s, runs_s = self.blocks.arrival_s / rate, self.blocks.finish_s - self.blocks.arrival_s
        return replace(self, blocks=replace(self.blocks, arrival_s=arrival_s, finish_s=arrival_s + runs_s))

    def select(self, requests):
        """Return some of the requests, in their order."""
        if len(requests) == len(self):
            return self
        return replace(
            self, blocks=select_requests(self.blocks, requests), looked_up=self.looked_up[requests],
            trace=None if self.trace is None else self._take(requests),
        )  # fmt: skip

    def _take(self, requests):
        trace = self.trace
        contexts = None if trace.contexts is None else trace.contexts[requests]
        columns = {"prompt_tokens": self.prompts[requests], "arrival_s": self.blocks.arrival_s[requests]}
        return replace(trace, requests=columns, rows=trace.rows[requests], contexts=contexts)

    def replay_engine(self, requests, groups, pool):
        """Replay the requests of one replica as vLLM does: the cached tokens of each prompt, -1 if it never fits."""
        if len(groups) == 1 and groups[0].kind == "full":
            engine, size = VLLM(block_size=pool.block_size, blocks=pool.blocks), pool.block_size
        else:
            engine = VLLMHybrid(groups, blocks=pool.blocks)
            size = engine.layout.hashed
        trace = self._take(requests)
        return engine.replay(trace, cut_paths(self.tree, trace.rows, size, trace.contexts)).hit_tokens
