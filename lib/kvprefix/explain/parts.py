"""Parts of each request's prompt tokens that sum to them: what provenance and misses both give."""

import contextlib
from dataclasses import dataclass, field

import numpy as np

from kvprefix.files.shown import Shown

NAMES = ("request_id", "conversation_index", "turn")  # of a request, where they are known


@dataclass(frozen=True, kw_only=True, repr=False)
class Parts(Shown):
    """Prompt tokens of each request, by part.

    Attributes
    ----------
    names : tuple of str
        Of the parts.
    tokens : (n_requests, n_parts) ndarray of int64
        Each row sums to the request's prompt tokens.
    prompt_tokens : (n_requests,) ndarray of int64
    requests : dict of str to ndarray
        Columns that say which request it is: NAMES.
    notes : list of str
        What to know before reading the numbers.

    Raises
    ------
    ArithmeticError
        Parts that do not sum to the prompt's tokens, or a negative part.
    """

    names: tuple
    tokens: np.ndarray
    prompt_tokens: np.ndarray
    requests: dict
    notes: list = field(default_factory=list)

    def __post_init__(self):
        wrong = (self.tokens.sum(axis=1) != self.prompt_tokens) | (self.tokens < 0).any(axis=1)
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise ArithmeticError(
                f"request {first}: the parts {self.tokens[first].tolist()} do not sum to its prompt's "
                f"{self.prompt_tokens[first]} tokens"
            )

    def __len__(self):
        return len(self.prompt_tokens)

    def part(self, name):
        """Return the tokens of one part by request, (n_requests,) int64."""
        return self.tokens[:, self.names.index(name)]

    def totals(self):
        """Return the tokens of each part of all requests, by name."""
        return dict(zip(self.names, self.tokens.sum(axis=0).tolist(), strict=True))

    def describe(self):
        """Return each part's share of all prompt tokens."""
        whole = max(int(self.prompt_tokens.sum()), 1)
        totals, notes = self.totals().items(), {"notes": "; ".join(self.notes)} if self.notes else {}
        shares = {name.replace("_", " "): f"{100 * n / whole:.2f} % ({n:,} tokens)" for name, n in totals}
        return {"what": f"Prompt tokens of {len(self):,} requests by {self.sort}", **shares, **notes}

    def to_frame(self):
        """Return a row per request: which it is, `prompt_tokens`, and the tokens of each part."""
        import pandas as pd

        parts = dict(zip(self.names, self.tokens.T, strict=True))
        return pd.DataFrame({**self.requests, "prompt_tokens": self.prompt_tokens, **parts})


@dataclass(frozen=True, kw_only=True, repr=False)
class Origins(Parts):
    """Prompt tokens by where they come from; the last part is `uncached`.

    Attributes
    ----------
    capacity : int or None
        Blocks of the cache; None if nothing is evicted.
    policy : str
    """

    capacity: int | None = None
    policy: str = "lru"
    sort = "origin"

    @property
    def hit_tokens(self):
        """Cached tokens of each request, (n_requests,) int64."""
        return self.prompt_tokens - self.part("uncached")

    def wrap(self, more):
        """Return the sums as JSON values, with those of `more` behind the parts."""
        bound = {"capacity_blocks": self.capacity, "policy": self.policy}
        return {
            "requests": len(self), "prompt_tokens": int(self.prompt_tokens.sum()),
            "hit_tokens": int(self.hit_tokens.sum()), "partition_tokens": self.totals(), **more,
            **({} if self.capacity is None else bound), **({"notes": self.notes} if self.notes else {}),
        }  # fmt: skip

    def to_frame(self):
        """Return a row per request: which it is, `prompt_tokens`, `hit_tokens`, and the tokens of each origin."""
        frame = super().to_frame()
        frame.insert(frame.columns.get_loc("prompt_tokens") + 1, "hit_tokens", self.hit_tokens)
        return frame


def name_requests(trace):
    """Return the columns that say which request of a Trace each is, those that it has."""
    named = {}
    for name in NAMES:
        with contextlib.suppress(KeyError):  # studies need no names
            named[name] = trace.column(name)
    return named


def name_listed(trace):
    """Return the columns that say which request of a PrefixTrace each is."""
    turn = np.full(len(trace), -1) if trace.turn is None else trace.turn
    return {"request_id": np.arange(len(trace)).astype(str), "conversation_index": trace.conversation, "turn": turn}
