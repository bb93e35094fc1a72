"""Hit rates of a trace at many capacities under many policies: the library behind ``python -m kvprefix curve``.

It chooses the reader, rates the hits of `cache.curve` and `cache.replay`, and shows the result as a table.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from kvprefix.blocks.prefix_trace import PrefixTrace, make_prefix_trace
from kvprefix.cache.curve import (
    count_hits_at,
    count_seen,
    describe_warmup,
    first_counted,
    measure_distances,
    rate_hits,
    rate_unbounded,
)
from kvprefix.cache.policies import find_policy, label_policy
from kvprefix.cache.replay import check_capacity, replay_each
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.sessions import rate_sessions
from kvprefix.cache.tree import replay_tree
from kvprefix.files.checks import check_block_size, check_type
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import plain_text
from kvprefix.files.progress import show_progress
from kvprefix.files.shown import Shown, show_rate
from kvprefix.formats.entry import Options
from kvprefix.formats.lookup import recognise, refuse_unknown
from kvprefix.formats.read import check_timing

_RATES = {"block": "block", "token": "token", "request_mean": "request mean"}


def measure_file(
    path, policies, capacities=None, *, block_size=None, warmup=0.0, timing=None, tokenizer="bundled", server="vllm",
    progress=False, announce=None,
):  # fmt: skip
    """Sweep a trace file; return all that the command prints as JSON.

    Parameters
    ----------
    path : path-like
        As in `load_accesses`.
    policies : sequence of str
    capacities : sequence of int, optional
        Blocks; `default_capacities` if not given.
    block_size, warmup, timing, tokenizer, server, progress
        As in `load_accesses` and `sweep`.
    announce : callable, optional
        Called with a text if the replays of a trace that was read must be compiled first.

    Returns
    -------
    dict
        `trace` (what was read, with `notes` on what was put right), `unbounded` (the rates of a cache that never
        evicts), `curves` (of `sweep`) and, if requests follow one another, `sessions` (of `rate_sessions`).
    """
    _check(policies, capacities or [], warmup)
    accesses = load_accesses(path, block_size, timing, tokenizer=tokenizer, server=server)
    trace = {
        "path": str(path),
        "requests": len(accesses),
        "block_accesses": len(accesses.ids),
        "distinct_blocks": accesses.n_distinct,
        "block_size": accesses.block_size,
        "warmup": warmup,
        "notes": accesses.info.get("notes", []),
    }
    if announce and not is_compiled(policies):
        announce("note: the replays are compiled first, once; this takes up to half a minute")
    capacities = default_capacities(accesses) if capacities is None else capacities
    sessions = rate_sessions(accesses, warmup=warmup)
    return {
        "trace": trace,
        "unbounded": rate_unbounded(accesses, warmup=warmup),
        **({"sessions": sessions} if sessions else {}),
        "curves": sweep(accesses, policies, capacities, warmup=warmup, progress=progress),
    }


def load_accesses(path, block_size=None, timing=None, *, tokenizer="bundled", server="vllm"):
    """Read a trace of any kind, told apart by its first bytes and its first line; chats are tokenised.

    Parameters
    ----------
    path : path-like
        In any format of `formats.registry`.
    block_size : int, optional
        Tokens per block. If not given: what the trace was made for or says, else the format's usual size.
    timing : Timing, optional
        Of a trace of sessions: when they start, and their requests follow.
    tokenizer, server : str
        Of chats, as in `formats.read.read_trace`.
    """
    if block_size is not None:
        check_block_size(block_size)
    found = recognise(path) or refuse_unknown(path)
    check_timing(path, found, timing)
    options = Options(block_size=block_size, tokenizer=tokenizer, server=server, progress=False, timing=timing)
    read = (found.tokenise or found.read)(path, options)
    if found.holds == "blocks":
        return read
    accesses = _cut_tokens(read, block_size, found.block_size)
    notes = [*read.info["log"]["notes"], *accesses.info["notes"]] if found.tokenise else accesses.info["notes"]
    return replace(accesses, info={**accesses.info, "notes": notes})


def _cut_tokens(trace, block_size, usual):
    """Return the accesses of a trace with tokens; without a block size, those of the one that it was made for."""
    from kvprefix.traces.clock import count_early_turns

    made, notes = trace.info.get("parameters", {}), list(trace.info.get("notes", []))
    accesses = make_prefix_trace(trace, made.get("block_size", usual) if block_size is None else block_size)
    columns = {name: trace.column(name) for name in ("conversation_index", "turn", "arrival_s", "output_tokens")}
    early = count_early_turns(columns, made.get("ttft_s", 0.0), made.get("time_per_output_token_s", 0.0))
    if early:
        notes.append(f"{early:,} turns arrive before the reply that they follow is complete: for comparison only")
    return replace(accesses, info={**accesses.info, "notes": notes})


def default_capacities(accesses):
    """Return up to eight round numbers of blocks, 1 or 3 times a power of ten, up to the distinct blocks.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> default_capacities(make_prefix_trace(make_trace_of([range(500)]), 10))
    [1, 3, 10, 30]
    """
    most = max(accesses.n_distinct, 1)
    numbers = [first * 10**k for k in range(len(str(most))) for first in (1, 3)]
    return [number for number in numbers if number <= most][-8:]


def sweep(accesses, policies, capacities, *, warmup=0.0, progress=False):
    """Rate every policy at every capacity.

    Parameters
    ----------
    accesses : PrefixTrace
    policies : sequence of str or Policy
        Names in POLICIES, or policies; their settings are the defaults.
    capacities : sequence of int
        Blocks.
    warmup : float
        The share of the requests that fill the cache before any is counted: 0 a cold start, 0.5 the last half.
    progress : bool
        Show a bar on stderr, if that is a terminal.

    Returns
    -------
    Sweep
        A list of dicts: `policy`, `capacity_blocks`, and the hit rates `block`, `token` and `request_mean` (as in
        `Curve`), policy after policy, in the order given. LRU's come from one pass over the trace, the other
        policies' from one replay per capacity.

    Examples
    --------
    >>> from kvprefix.traces.trace import make_trace_of
    >>> accesses = make_prefix_trace(make_trace_of([[1, 2, 9], [1, 3, 9], [1, 2, 9], [1, 3, 9]]), 1)
    >>> [(row["policy"], row["block"]) for row in sweep(accesses, ["lru", "opt"], [2])]
    [('lru', 0.25), ('opt', 0.3333333333333333)]
    """
    check_type(accesses, PrefixTrace, "trace")
    _check(policies, capacities, warmup)
    found = [find_policy(one) for one in policies]
    rows = Sweep()
    rows.warmup = warmup
    with show_progress(len(found) * len(capacities), "replaying", " replays", shown=progress) as bar:
        for policy in found:
            for capacity, hits in zip(capacities, _replay(accesses, capacities, policy), strict=True):
                rates = rate_hits(accesses, hits, warmup=warmup)
                rows.append({"policy": policy.name, "capacity_blocks": capacity, **rates})
                bar.update()
    return rows


def _replay(accesses, capacities, policy):
    if policy is not LRU:
        return replay_each(accesses, capacities, policy)
    limited = [min(capacity, accesses.n_distinct) for capacity in capacities]
    return np.ascontiguousarray(count_hits_at(accesses, measure_distances(accesses), limited).T)


class Sweep(list):
    """Rows of rates, a dict per policy and capacity; prints, tables and draws itself."""

    warmup = 0.0
    __repr__, _repr_html_, plot = Shown.__repr__, Shown._repr_html_, Shown.plot

    def describe(self):
        """Return each policy's token hit rate at each capacity."""
        lines = {}
        for row in self:
            rate = f"{show_rate(row['token'])} at {row['capacity_blocks']:,}"
            lines.setdefault(label_policy(row["policy"]), []).append(rate)
        lines = {policy: ", ".join(rates) for policy, rates in lines.items()}
        counted = f"by prompt token; {describe_warmup(self.warmup)}"
        return {"what": "Token hit rate of each policy at each capacity in blocks", **lines, "counted": counted}

    def to_frame(self):
        """Return the rows as a DataFrame: `policy`, `capacity_blocks`, `block`, `token`, `request_mean`."""
        import pandas as pd

        return pd.DataFrame(list(self))


def _check(policies, capacities, warmup):
    for policy in policies:
        find_policy(policy)
    for capacity in capacities:
        check_capacity(capacity)
    first_counted((), warmup)


def split_list(text, kind=str):
    """Split a command's comma-separated list; a part that is not of `kind` stays text, to be refused by name.

    >>> split_list("1000, 3e4", int)
    [1000, '3e4']
    """
    parts = [part.strip() for part in text.split(",")]
    return parts if kind is str else [read_number(part, kind) for part in parts]


def is_compiled(policies):
    """Say whether earlier runs left the compiled code that these policies need, so that nothing waits for it."""
    needs_tree = any(find_policy(policy).replay_free is None for policy in policies)
    return all(_is_cached(function) for function in [count_seen, *([replay_tree] if needs_tree else [])])


def _is_cached(function):
    source, start = Path(function.py_func.__code__.co_filename), function.py_func.__code__.co_firstlineno
    kept = Path(function.stats.cache_path).glob(f"{source.stem}.{function.py_func.__name__}-{start}.*.nbi")
    stamp = hashlib.sha256(source.read_bytes()).digest()  # by which numba knows its source again, whatever its time
    return any(stamp in file.read_bytes() for file in kept)


def format_result(result):
    """Return what `measure_file` returns as text: the facts, then a Markdown table."""
    from tabulate import tabulate  # takes a tenth of a second

    trace, warmup = result["trace"], result["trace"]["warmup"]
    ceiling = zip(_RATES.values(), _show_rates(result["unbounded"]), strict=True)
    facts = [
        f"{plain_text(trace['path'])}: {trace['requests']:,} requests, {trace['block_accesses']:,} block accesses, "
        f"{trace['distinct_blocks']:,} distinct blocks of {trace['block_size']} tokens",
        f"Hit rates of {describe_warmup(warmup)}: by block access, by prompt token, and the mean over requests",
        f"A cache that never evicts: {', '.join(f'{name} {rate}' for name, rate in ceiling)}",
    ]
    if "sessions" in result:
        one = result["sessions"]
        spread = ", ".join(f"{name} {100 * one[name]:.2f} %" for name in ("mean", "min", "p5", "median", "p95"))
        facts.append(f"Without a bound, the token hit rates of {one['n']:,} sessions: {spread}")
    rows = [
        [plain_text(label_policy(row["policy"])), f"{row['capacity_blocks']:,}", *_show_rates(row)]
        for row in result["curves"]
    ]
    headers = ["policy", "capacity (blocks)", *_RATES.values()]
    align = ["left", *["right"] * (len(headers) - 1)]
    return "\n".join([*facts, "", tabulate(rows, headers, "pipe", disable_numparse=True, colalign=align)])


def _show_rates(rates):
    return [f"{100 * rates[name]:.2f} %" for name in _RATES]
