"""The numbers a report holds: summaries, per-request and per-block tables, and the statistics of a mode.

Names and keys are fixed, because people's scripts read them. Nothing is written or drawn here.
"""

import platform
from importlib import metadata
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

import kvprefix
from kvprefix.blocks.sharing import find_trace_reuse, limit_hits, measure_hits_with_outputs
from kvprefix.stats.resampling import resample_mode
from kvprefix.stats.runs import add_runs, cumulate_runs, find_percentiles
from kvprefix.traces.clock import count_early_turns

_QUANTILES = {"p5": 5, "p25": 25, "median": 50, "p75": 75, "p95": 95, "p99": 99}
_PACKAGES = ("numba", "numpy", "pandas", "pyarrow", "tokenizers", "transformers")


def summarize(values, weights=None, lengths=None):
    """Summarise numbers: mean, standard deviation (of the population), extremes and quantiles.

    Parameters
    ----------
    values : (n,) array_like
    weights : (n,) array_like, optional
        Without them quantiles interpolate linearly (numpy's default); with them a quantile is the least value at which
        the weighted distribution reaches it.
    lengths : (n,) array_like of int, optional
        How often each value, with its weight, stands in a row; once if not given.

    Returns
    -------
    dict
        Keys `mean std min p5 p25 median p75 p95 p99 max`, each a float; all None if there are no values.

    Examples
    --------
    >>> summarize([1, 2, 3, 4])["median"], summarize([])["mean"]
    (2.5, None)
    >>> summarize([1, 2, 3], weights=[1, 1, 8])["median"]
    3.0
    >>> summarize([1, 5], lengths=[3, 1])["mean"]
    2.0
    """
    values = np.asarray(values, float)
    lengths = np.ones(len(values), np.int64) if lengths is None else np.asarray(lengths)
    names = ["mean", "std", "min", *_QUANTILES, "max"]
    if not len(values):
        return dict.fromkeys(names)
    percents, order = list(_QUANTILES.values()), np.argsort(values, kind="stable")
    if weights is None:
        quantiles = find_percentiles(values[order], lengths[order], percents)
        total, weights = int(lengths.sum()), np.ones(1)
    else:
        weights = np.asarray(weights, float)
        reached = cumulate_runs(weights[order], lengths[order])
        targets = np.array(percents) / 100 * reached[-1]
        quantiles = values[order][np.minimum(np.searchsorted(reached, targets), len(values) - 1)]
        total = add_runs(weights, lengths)
    mean = add_runs(values * weights, lengths) / total
    variance = add_runs((values - mean) ** 2 * weights, lengths) / total
    numbers = [mean, np.sqrt(variance), values.min(), *quantiles, values.max()]
    return {name: float(number) for name, number in zip(names, numbers, strict=True)}


def tabulate_requests(trace, sharing, accountings=None):
    """Return the per-request table, in arrival order.

    Columns: `request_id conversation_index conversation_id turn arrival_s prompt_tokens output_tokens prompt_blocks
    hit_blocks cached_tokens sharing_fraction`; with `accountings` (of `measure_accountings`) also
    `cached_tokens_with_generated`, `prompt_tokens_no_template` and `cached_tokens_no_template`, the latter two without
    values if the tokenizer does not tell the template's tokens.
    """
    columns = [
        "request_id",
        "conversation_index",
        "conversation_id",
        "turn",
        "arrival_s",
        "prompt_tokens",
        "output_tokens",
    ]
    table = trace.requests[columns].assign(
        prompt_blocks=sharing.prompt_blocks,
        hit_blocks=sharing.hit_blocks,
        cached_tokens=sharing.hit_tokens,
        sharing_fraction=sharing.sharing_fraction,
    )
    if accountings is None:
        return table
    bare = accountings.get("without_template_tokens.")
    return table.assign(
        cached_tokens_with_generated=accountings["with_generated_tokens."].cached_tokens,
        prompt_tokens_no_template=bare.prompt_tokens if bare else None,
        cached_tokens_no_template=bare.cached_tokens if bare else None,
    )


def tabulate_blocks(runs):
    """Return the per-block table (pyarrow) of some TimedRuns, in order of first access.

    Columns: `block_id depth accesses first_access_s last_access_s mean_reuse_gap_s` (null for a block accessed once).
    """
    numbers, depth = runs.number_blocks()
    once = runs.accesses <= 1
    gap = (runs.last_access_s - runs.first_access_s) / np.maximum(runs.accesses - 1, 1)
    accesses, first_s, last_s, gap, once = (
        np.repeat(column, runs.lengths)
        for column in (runs.accesses, runs.first_access_s, runs.last_access_s, gap.round(6), once)
    )
    return pa.table({
        "block_id": numbers,
        "depth": depth,
        "accesses": accesses,
        "first_access_s": first_s,
        "last_access_s": last_s,
        "mean_reuse_gap_s": pa.array(gap, mask=once),
    })  # fmt: skip


class Accounting(NamedTuple):
    """What each request finds cached under one accounting: (n_requests,) ndarrays of int64, and a rate."""

    prompt_tokens: np.ndarray
    cached_tokens: np.ndarray
    block_reuse_rate: float | None = None

    @property
    def sharing_fraction(self):
        """Cached tokens over prompt tokens of each request; 0 for an empty prompt."""
        return self.cached_tokens / np.maximum(self.prompt_tokens, 1)


def measure_accountings(trace, sharing):
    """Account a trace in three ways: a dict of Accounting by the prefix of a rate's name in the statistics.

    Prompts only (no prefix); with generated tokens, which stay cached too; without the template's own tokens. The last
    is left out if the tokenizer does not tell which tokens these are.
    """
    size, prompt_tokens = sharing.block_size, sharing.prompt_tokens
    with_outputs = measure_hits_with_outputs(trace, size) * size
    found = {
        "": Accounting(prompt_tokens, sharing.hit_tokens),
        "with_generated_tokens.": Accounting(prompt_tokens, with_outputs),
    }
    if trace.tokens.own_is_template.any():
        found["without_template_tokens."] = _account_without_template(trace.without_template(), size)
    return found


def _account_without_template(bare, size):
    reuse, prompt_tokens = find_trace_reuse(bare, size), np.asarray(bare.requests["prompt_tokens"])
    accesses = int(reuse.blocks.sum())
    rate = float(reuse.reused.sum() / accesses) if accesses else None
    return Accounting(prompt_tokens, limit_hits(reuse.reused, prompt_tokens, size) * size, rate)


def describe_mode(trace, sharing, accountings=None, resampled=None):
    """Return the statistics of one mode: the content of `*_stats.json`.

    All rates are for a cold, unbounded cache of prompt blocks. `with_generated_tokens` and `without_template_tokens`
    hold the main rates under the other two accountings, `intervals` the 95 % intervals of all rates over resampled
    conversations.
    """
    accountings = accountings or measure_accountings(trace, sharing)
    resampled = resampled or resample_mode(trace, sharing, accountings)
    requests, info = trace.requests, trace.info
    gap_s, lengths = sharing.run_gap_s, sharing.gap_runs.lengths
    parameters = {
        **info["parameters"],
        "data_sha256": info["dataset"]["sha256"],
        "tokenizer_sha256": info["tokenizer"]["sha256"],
        "tokenizer_has_template": info["tokenizer"]["has_template"],
        "tokenizer_encoder": info["tokenizer"]["encoder"],
        "versions": list_versions(),
    }
    return {
        "mode": info["mode"],
        "parameters": parameters,
        "dataset": info["dataset"],
        "requests": len(trace),
        "requests_without_reply": int((requests["output_tokens"] == 0).sum()),
        "early_turns": count_early_turns(requests, parameters["ttft_s"], parameters["time_per_output_token_s"]),
        "duration_s": float(trace.arrival_s[-1]),
        "prompt_tokens": _summarize_with_total(requests["prompt_tokens"]),
        "output_tokens": _summarize_with_total(requests["output_tokens"]),
        "sharing_fraction": summarize(sharing.sharing_fraction),
        "block_hit_count": summarize(sharing.block_runs.accesses, lengths=sharing.block_runs.lengths),
        "reuse_gap_s": summarize(gap_s, lengths=lengths),
        "reuse_gap_s_request_weighted": summarize(gap_s, sharing.run_weights, lengths),
        "token_hit_rate": sharing.token_hit_rate,
        "block_reuse_rate": sharing.block_reuse_rate,
        "blocks_reused_fraction": sharing.blocks_reused_fraction,
        "blocks": {"accesses": sharing.n_accesses, "distinct": sharing.n_distinct},
        "with_generated_tokens": _describe_accounting(accountings["with_generated_tokens."]),
        "without_template_tokens": _describe_without_template(accountings.get("without_template_tokens.")),
        "intervals": resampled.intervals(),
    }


def list_versions():
    """Return the versions of Python, the library and the packages that results depend on."""
    return {
        "python": platform.python_version(),
        "kvprefix": kvprefix.__version__,
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def _summarize_with_total(column):
    return {"total": int(column.sum()), **summarize(column)}


def _describe_accounting(accounting):
    prompt_tokens = accounting.prompt_tokens.sum()
    return {
        "token_hit_rate": float(accounting.cached_tokens.sum() / prompt_tokens) if prompt_tokens else None,
        "sharing_fraction": summarize(accounting.sharing_fraction),
    }


def _describe_without_template(accounting):
    if accounting is None:
        nothing = dict.fromkeys(["token_hit_rate", "block_reuse_rate"])
        return {"prompt_tokens": None, **nothing, "sharing_fraction": summarize([])}
    return {
        "prompt_tokens": _summarize_with_total(pd.Series(accounting.prompt_tokens)),
        "block_reuse_rate": accounting.block_reuse_rate,
        **_describe_accounting(accounting),
    }
