"""What every replay returns, of a bounded cache and of an engine alike. No cache is known here."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What each request of a trace hit in a replay.

    Attributes
    ----------
    hit_tokens : (n,) ndarray of int64
        Prompt tokens that were cached; -1 for a request that was not served.
    prompt_tokens : (n,) ndarray of int64
    evictions : int, optional
        Blocks that left the cache, if they are counted.
    waited_s : (n,) ndarray of float64, optional
        Seconds that each request waited, if time is known.
    label : str
        What was replayed, as figures and tables show it.
    details : dict
        What else a replay counts.
    """

    hit_tokens: np.ndarray
    prompt_tokens: np.ndarray
    evictions: int | None = None
    waited_s: np.ndarray | None = None
    label: str = ""
    details: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.hit_tokens)

    @property
    def hit_rate(self):
        """Hit tokens over prompt tokens, both summed over the requests that were served; 0 if there are none."""
        served = self.hit_tokens >= 0
        prompt_tokens = self.prompt_tokens[served].sum()
        return float(self.hit_tokens[served].sum() / prompt_tokens) if prompt_tokens else 0.0
