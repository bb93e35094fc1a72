"""What the curves over capacity show: facts of LRU's knee, of an engine's curve, of traces in one frame."""

import numpy as np

from kvprefix.models.memory import to_gib
from kvprefix.report.facts.cache import measure_spread
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.knee import count_gains, find_knee

FEW = 4  # capacities that sentences name
SHARES = (0.01, 0.1)  # of a trace's distinct blocks, at which traces are compared


@gives_facts
def facts_knee(curve, block_size, model):
    """Return where LRU's token hit rate has its knee on the logarithmic axis; `blocks` is None if it has none.

    The curve is the mean over seeds of `studies.cache.study_lru`.
    """
    mean = curve.groupby("capacity_blocks")["token"].mean()
    knee = find_knee(mean.index, mean)
    if knee is None:
        return {"blocks": None}
    blocks, (before, after) = mean.index[knee], count_gains(mean.index, mean, knee)
    return {
        "blocks": blocks, "tokens": blocks * block_size, "model": model.name,
        "gib": to_gib(blocks, block_size, model.bytes_per_token), "token_hit_rate": mean.iloc[knee],
        "share_of_largest": mean.iloc[knee] / mean.iloc[-1], "points_before": 100 * before, "points_after": 100 * after,
        "least": mean.index[0], "most": mean.index[-1],
    }  # fmt: skip


def mark_knee(facts):
    """Return the knee as marks of a figure over capacity: (label, blocks), none if there is no knee."""
    return [("knee", facts["blocks"])] if facts["blocks"] else []


@gives_facts
def facts_engine_curve(frame, curve, engine, block_size, model):
    """Return an engine's token hit rate over its pool, replies cached, beside LRU's of prompts only.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.engines.study_engine_curve`.
    curve : pandas.DataFrame
        Of `studies.cache.study_lru`; between its capacities LRU's rate is interpolated on the logarithmic axis.
    engine : str
        Its label.
    block_size : int
    model : models.memory.Model
    """
    lru = curve.groupby("capacity_blocks")["token"].mean()
    grid = np.sort(frame["capacity_blocks"].unique())
    capacities = []
    for blocks in grid[np.unique(np.linspace(0, len(grid) - 1, FEW).round().astype(int))]:
        rates = frame[frame["capacity_blocks"] == blocks]["token"]
        capacities.append({
            "blocks": blocks, "gib": to_gib(blocks, block_size, model.bytes_per_token),
            "token_hit_rate": measure_spread(rates), "prompts_only": np.interp(np.log(blocks), np.log(lru.index), lru),
        })  # fmt: skip
    return {
        "engine": engine, "model": model.name, "capacities": capacities, "unbounded": frame["unbounded"].mean(),
        "draws": frame["seed"].nunique(),
    }  # fmt: skip


@gives_facts
def facts_normalised(frame):
    """Return how much of its maximum each trace reaches with a cache of a share of its blocks; None below its curve."""
    traces = []
    for trace, one in frame.groupby("trace", sort=False):
        one, first = one.sort_values("share_of_blocks"), one.iloc[0]
        place, rate = np.log(one["share_of_blocks"]), one["share_of_maximum"]
        reached = np.interp(np.log(SHARES), place, rate, left=np.nan)
        shares = [{"of_blocks": share, "of_maximum": one} for share, one in zip(SHARES, reached, strict=True)]
        known = {"maximum": first["maximum"], "blocks": first["distinct_blocks"]}
        traces.append({"trace": trace, **known, "shares": shares})
    return {"traces": traces}
