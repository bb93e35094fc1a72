"""Compare results of the same requests: what each hits, and on how many requests they differ."""

import numpy as np

from kvprefix.files.paths import InputError
from kvprefix.files.shown import Shown, show_rate


class Comparison(Shown):
    """Results side by side; the others are compared with the first.

    Attributes
    ----------
    results : dict
        Label: result, each with `hit_tokens` and `prompt_tokens` per request.
    """

    def __init__(self, results):
        self.results = results

    def describe(self):
        """Return each result's hits, and how it differs from the first."""
        base, *others = self.to_frame().to_dict("records")
        lines = {base["result"]: f"{show_rate(base['hit_rate'])} of {base['prompt_tokens']:,} prompt tokens"}
        for row in others:
            what = "equal on every request"
            if row["requests_that_differ"]:
                what = f"{row['more_tokens']:+,} tokens; other hits on {row['requests_that_differ']:,} requests"
            lines[row["result"]] = f"{show_rate(row['hit_rate'])} ({what})"
        return {"what": f"Hit tokens of the same {base['requests']:,} requests", **lines}

    def to_frame(self):
        """Return a row per result: `result`, `requests`, tokens, `hit_rate`, and its difference from the first."""
        import pandas as pd

        first, rows = next(iter(self.results.values())), []
        for label, one in self.results.items():
            hits = np.maximum(one.hit_tokens, 0)
            difference = hits - np.maximum(first.hit_tokens, 0)
            tokens = int(one.prompt_tokens.sum())
            rows.append({
                "result": label, "requests": len(hits), "prompt_tokens": tokens, "hit_tokens": int(hits.sum()),
                "hit_rate": float(hits.sum() / tokens) if tokens else float("nan"),
                "more_tokens": int(difference.sum()), "requests_that_differ": int((difference != 0).sum()),
            })  # fmt: skip
        return pd.DataFrame(rows)


def compare(*results):
    """Compare results of the same requests: of `share`, of an engine's or a cache's `replay`.

    Parameters
    ----------
    *results
        Two or more, each with `hit_tokens` and `prompt_tokens`, (n_requests,) arrays of int64, and a `label`.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        Fewer than two results, one that has no hits per request, or results of other requests.
    """
    if len(results) < 2:
        raise InputError(f"compare got {len(results)} results; expected two or more")
    labels = {}
    for one in results:
        if not hasattr(one, "hit_tokens") or not hasattr(one, "prompt_tokens"):
            raise InputError(f"compare got a {type(one).__name__}; expected what `share` or a `replay` returns")
        name, k = one.label or type(one).__name__, 2
        while name in labels:
            name, k = f"{one.label} ({k})", k + 1
        labels[name] = one
    first = results[0]
    for name, one in labels.items():
        if not np.array_equal(one.prompt_tokens, first.prompt_tokens):
            raise InputError(f"{name} is of other requests than {next(iter(labels))}: their prompts differ in length")
    return Comparison(labels)
