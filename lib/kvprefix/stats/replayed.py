"""The result of replaying requests through a bounded cache, of whatever kind."""

from dataclasses import dataclass, field

import numpy as np

from kvprefix.files.shown import Shown, show_rate


@dataclass(frozen=True, kw_only=True, repr=False)
class Replayed(Shown):
    """The result of a replay.

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
        The name of what replayed them.
    details : dict
        Further results. `describe` shows those that are texts.
    """

    hit_tokens: np.ndarray
    prompt_tokens: np.ndarray
    evictions: int | None = None
    waited_s: np.ndarray | None = None
    label: str = ""
    details: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.hit_tokens)

    def describe(self):
        """Return the hit rate, evictions and waits."""
        fits = self.hit_tokens >= 0
        lines = {"what": f"Replay of {len(self):,} requests through {self.label or 'a cache'}"}
        lines["token hit rate"] = (
            f"{show_rate(self.hit_rate)} ({self.hit_tokens[fits].sum():,} of {self.prompt_tokens[fits].sum():,} tokens)"
        )
        if not fits.all():
            lines["never fit"] = f"{(~fits).sum():,} requests, not counted"
        if self.evictions is not None:
            lines["evictions"] = f"{self.evictions:,} blocks"
        if self.waited_s is not None:
            lines["waited"] = f"{(self.waited_s > 0).sum():,} requests"
        return lines | {name: one for name, one in self.details.items() if isinstance(one, str)}

    def to_frame(self):
        """Return a row per request: `prompt_tokens`, `hit_tokens` and, if requests overlap, `waited_s`."""
        import pandas as pd

        columns = {"prompt_tokens": self.prompt_tokens, "hit_tokens": self.hit_tokens, "waited_s": self.waited_s}
        return pd.DataFrame({name: column for name, column in columns.items() if column is not None})

    @property
    def hit_rate(self):
        """Hit tokens over prompt tokens of the requests that fit; NaN if there is none."""
        fits = self.hit_tokens >= 0
        total = self.prompt_tokens[fits].sum()
        return float(self.hit_tokens[fits].sum() / total) if total else float("nan")
