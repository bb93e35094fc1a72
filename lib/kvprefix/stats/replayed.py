"""What a replay of requests through a bounded cache gave, whatever replayed them."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay gave.

    Attributes
    ----------
    hit_tokens : (n,) ndarray of int64
        Each request's prompt tokens that were cached when it was admitted; -1 for a prompt that never fits.
    prompt_tokens : (n,) ndarray of int64
    evictions : int, optional
        How many cached blocks were evicted.
    waited_s : (n,) ndarray of float64, optional
        How long each request waited for blocks, in seconds.
    label : str
        What replayed them.
    details : dict
        What else is to be said of it.
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
        """Hit tokens over prompt tokens of the requests that fit; NaN if there is none."""
        fits = self.hit_tokens >= 0
        total = self.prompt_tokens[fits].sum()
        return float(self.hit_tokens[fits].sum() / total) if total else float("nan")
