"""The study of agent sessions: how they grow and pause, what an unbounded cache gives each, what a pause costs.

Tables only. What depends on when sessions start is measured over several draws, as other studies (`table`); the rest
is a property of the trace.
"""

import numpy as np
import pandas as pd
from numba import njit

from kvprefix.blocks.sessions import PERSON, TOOL, UNKNOWN
from kvprefix.cache.curve import count_hits_at, count_seen, measure_distances
from kvprefix.cache.sessions import rate_each
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.cache import measure_seeds, spread_capacities
from kvprefix.studies.draws import is_settled
from kvprefix.studies.table import draw

FOLLOWS = {TOOL: "a tool's result", PERSON: "a person's message", UNKNOWN: "not told"}
PAUSES_S = (0, 10, 60, 600, 3600, np.inf)  # edges of the classes of pauses
TURNS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # requests of a main agent at which the growth is read


def describe_sessions(sessions):
    """Return a row per session.

    Parameters
    ----------
    sessions : SessionTrace

    Returns
    -------
    pandas.DataFrame
        `requests`, `subagents`, `subagent_requests`, `prompt_tokens` and `hit_tokens` (of all requests, without a
        bound, sessions in the file's order), `subagent_prompt_tokens` and `subagent_hit_tokens` (of sub-agents'),
        `first_prompt`, `largest_prompt`, `output_tokens`, `blocks` (distinct, of ids that no other session has before
        it), `duration_s`, `compactions`, `token` (the hit rate).
    """
    one, is_sub = sessions.accesses, sessions.agent > 0
    hits = one.hit_tokens(count_seen(one.ids, one.offsets))
    frame = pd.DataFrame({
        "requests": 1, "subagent_requests": is_sub, "prompt_tokens": one.prompt_tokens, "hit_tokens": hits,
        "subagent_prompt_tokens": one.prompt_tokens * is_sub, "subagent_hit_tokens": hits * is_sub,
        "output_tokens": one.output_tokens, "compactions": find_compactions(sessions),
        "blocks": np.diff(np.maximum.accumulate(np.append(0, _find_most(one.ids, one.offsets)))),
    })  # fmt: skip
    rows = frame.groupby(one.conversation).sum()
    prompts = pd.Series(one.prompt_tokens).groupby(one.conversation)
    subagents = pd.Series(sessions.agent[is_sub]).groupby(one.conversation[is_sub]).nunique()
    return rows.assign(
        subagents=subagents.reindex(rows.index, fill_value=0), first_prompt=prompts.first(),
        largest_prompt=prompts.max(), duration_s=pd.Series(one.finish_s).groupby(one.conversation).max(),
        token=rows["hit_tokens"] / rows["prompt_tokens"].clip(lower=1),
    ).reset_index(drop=True)  # fmt: skip


@njit(cache=True, nogil=True)
def _find_most(ids, offsets):
    """Return one more than the largest block so far that each request lists; ids are numbered as first seen."""
    most, found = 0, np.zeros(len(offsets) - 1, np.int64)
    for i in range(len(found)):
        for k in range(offsets[i], offsets[i + 1]):
            most = max(most, ids[k] + 1)
        found[i] = most
    return found


def find_compactions(sessions):
    """Say which requests do not continue the one before them of their agent: they lack one of its full blocks.

    Parameters
    ----------
    sessions : SessionTrace

    Returns
    -------
    (n_requests,) ndarray of bool
    """
    one = sessions.accesses
    same = _count_common(one.ids, one.offsets, one.previous)
    full = one.prompt_tokens[one.previous] // one.block_size
    return (one.previous >= 0) & (same < np.minimum(full, one.blocks[one.previous]))


@njit(cache=True, nogil=True)
def _count_common(ids, offsets, previous):
    """Return how many leading blocks each request shares with the one before it; 0 if there is none."""
    same = np.zeros(len(previous), np.int64)
    for i in range(len(previous)):
        if previous[i] < 0:
            continue
        a, b = offsets[i], offsets[previous[i]]
        most = min(offsets[i + 1] - a, offsets[previous[i] + 1] - b)
        while same[i] < most and ids[a + same[i]] == ids[b + same[i]]:
            same[i] += 1
    return same


def tabulate_compactions(sessions):
    """Return a row per request that does not continue the one before it: the tokens before, after and in common."""
    one, rows = sessions.accesses, np.flatnonzero(find_compactions(sessions))
    same = _count_common(one.ids, one.offsets, one.previous)[rows]
    before, after = one.prompt_tokens[one.previous[rows]], one.prompt_tokens[rows]
    return pd.DataFrame({
        "session": one.conversation[rows], "before": before, "after": after, "shared": same * one.block_size,
        "shorter": after < before,
    })  # fmt: skip


def tabulate_misses(sessions):
    """Return what is missed without a bound, by the place of the request that misses it.

    Parameters
    ----------
    sessions : SessionTrace

    Returns
    -------
    pandas.DataFrame
        `what` (first: a session's first request; subagent: a sub-agent's first; anew: one that does not continue the
        one before it; more: one that does), `requests`, `missed_tokens`, `share` of all that is missed.
    """
    one = sessions.accesses
    missed = one.prompt_tokens - one.hit_tokens(count_seen(one.ids, one.offsets))
    begins, anew = one.previous < 0, find_compactions(sessions)
    kinds = {
        "first": begins & (sessions.agent == 0), "subagent": begins & (sessions.agent > 0), "anew": anew,
        "more": ~begins & ~anew,
    }  # fmt: skip
    rows = [{"what": what, "requests": own.sum(), "missed_tokens": missed[own].sum()} for what, own in kinds.items()]
    table = pd.DataFrame(rows)
    return table.assign(share=table["missed_tokens"] / max(missed.sum(), 1))


def tabulate_growth(sessions, turns=TURNS):
    """Return the prompt tokens of main agents at some of their requests: `request` (from 1), `sessions`, quartiles."""
    main = sessions.main_only().accesses
    rows = []
    for turn in turns:
        prompts = main.prompt_tokens[main.turn == turn - 1]
        if len(prompts):
            low, median, high = np.percentile(prompts, [25, 50, 75])
            rows.append({"request": turn, "sessions": len(prompts), "low": low, "median": median, "high": high})
    return pd.DataFrame(rows)


def tabulate_gaps(sessions):
    """Return how long main agents pause, by what follows: `after`, `n`, `median_s`, `p90_s`, `share` of the time."""
    found, rows = list_pauses(sessions), []
    total = sum(own.sum() for own in found.values())
    for label, own in found.items():
        half, most = np.percentile(own, [50, 90])
        rows.append({"after": label, "n": len(own), "median_s": half, "p90_s": most, "share": own.sum() / (total or 1)})
    return pd.DataFrame(rows, columns=["after", "n", "median_s", "p90_s", "share"])


def list_pauses(sessions):
    """Return the pauses of main agents in seconds, by what follows the answer; what never does is left out."""
    gap, main = measure_pauses(sessions.accesses), sessions.agent == 0
    found = {label: gap[main & (sessions.after == after)] for after, label in FOLLOWS.items()}
    return {label: one for label, one in found.items() if len(one)}


def measure_pauses(accesses):
    """Return the seconds from the answer before each request to it, 0 or more; NaN for an agent's first request."""
    before = accesses.previous
    return np.where(before >= 0, np.maximum(accesses.arrival_s - accesses.finish_s[before], 0), np.nan)


def study_pauses(experiment, *, points=5):
    """Measure under LRU what a request hits by how long its agent paused before it.

    Parameters
    ----------
    experiment : SessionExperiment
    points : int
        Capacities, at equal ratios from a 200th to a third of all distinct blocks.

    Returns
    -------
    pandas.DataFrame
        `seed`, `capacity_blocks` (NaN: unbounded), `pause` (the class, from 0 on), `n` requests, `token`, their token
        hit rate, and for the first seed `low` and `high`, its 95 % interval over resampled sessions.
    """
    return measure_seeds(
        experiment, "pauses", [points, PAUSES_S[1:-1]], measure_pause_hits, (points,),
        enough=lambda table: is_settled(table.fillna({"capacity_blocks": 0}), ["capacity_blocks", "pause"]),
    )  # fmt: skip


def measure_pause_hits(experiment, seed, points):
    """Measure pauses on one draw; the rows of `study_pauses` for its seed."""
    accesses = draw(experiment, experiment.parameters.block_size, seed=seed)
    capacities = choose_capacities(accesses.n_distinct, points)
    hits = count_hits_at(accesses, measure_distances(accesses), capacities)
    hits = np.column_stack([hits, count_seen(accesses.ids, accesses.offsets)])
    tokens, pauses, frames = accesses.hit_tokens(hits), measure_pauses(accesses), []
    for k in range(len(PAUSES_S) - 1):
        own = (pauses >= PAUSES_S[k]) & (pauses < PAUSES_S[k + 1])
        prompt = accesses.prompt_tokens[own]
        frame = pd.DataFrame({
            "seed": seed, "capacity_blocks": [*capacities.astype(float), np.nan], "pause": k, "n": int(own.sum()),
            "token": tokens[own].sum(axis=0) / max(prompt.sum(), 1), "low": np.nan, "high": np.nan,
        })  # fmt: skip
        if seed == experiment.parameters.seed and own.any():
            frame["low"], frame["high"] = interval(bootstrap_rates(tokens[own], prompt, accesses.conversation[own]))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def choose_capacities(n_distinct, points=5):
    """Return capacities in blocks from a 200th to a third of all distinct blocks, at equal ratios."""
    return spread_capacities(max(n_distinct // 3, 1), points, max(n_distinct // 200, 1))


def rate_sessions_at(experiment, capacities):
    """Return the token hit rate of each session under LRU at some capacities and without a bound, on one draw.

    Returns
    -------
    pandas.DataFrame
        `capacity_blocks` (NaN: unbounded), `token`; a row per session that has prompt tokens, capacity after capacity.
    """
    accesses = draw(experiment, experiment.parameters.block_size)
    hits = count_hits_at(accesses, measure_distances(accesses), capacities)
    tokens = accesses.hit_tokens(np.column_stack([hits, count_seen(accesses.ids, accesses.offsets)]))
    sizes = [*np.asarray(capacities, float), np.nan]
    frames = [pd.DataFrame({"capacity_blocks": size, "token": rate_each(accesses, tokens[:, k])})
              for k, size in enumerate(sizes)]  # fmt: skip
    return pd.concat(frames, ignore_index=True)
