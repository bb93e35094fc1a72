"""Draw the study of agent sessions: growth, pauses, hit rates by session, what a pause costs. No numbers made here."""

import numpy as np
import pandas as pd
from matplotlib.ticker import FixedLocator

from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    add_legend,
    compute_ecdf,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.styles import BLUE, GREY, style_lines, style_ramp
from kvprefix.stats.intervals import spread_over

TICKS = ("< 10 s", "10–60 s", "1–10 min", "10–60 min", "> 1 h")  # the classes of `studies.agents.PAUSES_S`
UNBOUNDED = {"color": "#333333", "linewidth": 0.8, "linestyle": (0, (2, 2))}


def draw_sessions(growth, pauses, *, width_in=PAGE_IN):
    """Draw how the prompts of sessions grow, and how long agents pause, by what follows. Returns (figure, data).

    Parameters
    ----------
    growth : pandas.DataFrame
        Of `studies.agents.tabulate_growth`.
    pauses : dict of str to ndarray
        Seconds, by what follows the answer.
    """
    figure, (left, right) = make_axes(width_in, 2.5, 2)
    low, median, high = (growth[name] / 1000 for name in ("low", "median", "high"))
    left.plot(growth["request"], median, color=BLUE, marker="o", markersize=3)
    left.fill_between(growth["request"], low, high, color=BLUE, alpha=0.2, linewidth=0)
    left.set(xlabel="request of a session (log scale)", ylabel="prompt (thousand tokens)")
    log_axes(left, "x")
    if growth["request"].max() < 10:  # whole requests alone
        left.xaxis.set_major_locator(FixedLocator(growth["request"]))
    left.set_ylim(0)
    frames = [growth.assign(panel="growth")]
    for label, look in style_lines(pauses).items():
        x, y = compute_ecdf(np.maximum(pauses[label], 1))
        right.step(x, y, where="post", label=label, **{**look, "marker": ""})
        frames.append(pd.DataFrame({"panel": "pauses", "after": label, "pause_s": x, "share": y}))
    right.set(xlabel="pause (s, log scale)", ylabel="share of requests", ylim=(0, 1.01))
    note_if_empty(right, sum(map(len, pauses.values())), "no request follows another")
    percent_axes(right)
    log_axes(right, "x")
    add_legend(right, 3)
    return figure, pd.concat(frames, ignore_index=True)


def draw_session_rates(rates, unit="session", *, width_in=COLUMN_IN):
    """Draw the distribution of hit rates over sessions, a line per capacity. Returns (figure, data).

    Parameters
    ----------
    rates : pandas.DataFrame
        Of `studies.agents.rate_sessions_at`.
    unit : str
        What a rate is of.
    """
    figure, axes = make_axes(width_in, 2.6)
    sizes = np.sort(rates["capacity_blocks"].dropna().unique())
    looks = {size: {**look, "label": f"{size:,.0f} blocks"} for size, look in style_ramp(sizes).items()}
    for size, look in looks.items():
        x, y = compute_ecdf(rates.loc[rates["capacity_blocks"] == size, "token"])
        axes.step(x, y, where="post", **{**look, "marker": ""})
    x, y = compute_ecdf(rates.loc[rates["capacity_blocks"].isna(), "token"])
    axes.step(x, y, where="post", label="unbounded", **UNBOUNDED)
    axes.set(xlabel=f"token hit rate of a {unit}", ylabel=f"share of {unit}s", xlim=(0, 1), ylim=(0, 1.01))
    percent_axes(axes, x=True)
    add_legend(axes, 3)
    return figure, rates


def draw_pauses(table, *, width_in=COLUMN_IN):
    """Draw what requests hit by the pause before them, a line per capacity of LRU, with the range over seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `studies.agents.study_pauses`.

    Returns
    -------
    figure, data
    """
    figure, axes = make_axes(width_in, 2.8)
    there = table[table["n"] > 0]
    sizes = np.sort(there["capacity_blocks"].dropna().unique())
    for size, look in style_ramp(sizes).items():
        spread = spread_over(there[there["capacity_blocks"] == size], "pause", "token")
        axes.plot(spread.index, spread["mean"], label=f"{size:,.0f} blocks", markersize=3.5, **look)
        axes.fill_between(spread.index, spread["min"], spread["max"], color=look["color"], alpha=0.2, linewidth=0)
    free = there[there["capacity_blocks"].isna()].groupby("pause")["token"].mean()
    axes.plot(free.index, free, label="unbounded", **UNBOUNDED)
    axes.set_xticks(range(len(TICKS)), TICKS)
    axes.set(xlabel="pause before the request", ylabel="token hit rate")
    note_if_empty(axes, there["n"].sum(), "no request follows another")
    rate_axes(axes)
    add_legend(axes, 3)
    return figure, table


def draw_widest(table, *, width_in=PAGE_IN):
    """Draw policies at one capacity: their token hit rates, and their points against LRU, with 95 % intervals.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `facts.agents.select_widest`. A mark is hollow if its policy is not told apart from LRU.

    Returns
    -------
    figure, data
    """
    figure, (left, right) = make_axes(width_in, 1.1 + 0.17 * len(table), 2, sharey=width_in == PAGE_IN)
    panels = (left, "token hit rate", "95 % low", "95 % high"), (right, "against LRU", "low", "high")
    for axes, value, low, high in panels:
        for y, row in enumerate(table.to_dict("records")):
            known = {LRU.label: (BLUE, "o"), OPT.label: ("black", "^")}
            color, mark = known.get(row["policy"], (GREY, "s"))
            hollow = row["verdict"] in ("equal", "not separated")
            axes.plot([row[low], row[high]], [y, y], color=color, linewidth=1.2)
            axes.plot(row[value], y, mark, color=color, markersize=4, markerfacecolor="white" if hollow else color)
        axes.set_yticks(range(len(table)), [plain_label(one) for one in table["policy"]])
        axes.set_ylim(len(table) - 0.5, -0.5)
    right.axvline(0, color=BLUE, linewidth=0.7)
    left.set(xlabel="token hit rate", xlim=(0, 1))
    left.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    right.set(xlabel="against LRU (points)")
    return figure, table
