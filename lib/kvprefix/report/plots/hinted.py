"""Draw the study of policies with hints: how much of the gap between LRU and the optimum each closes."""

import numpy as np

from kvprefix.cache.hinted import HINTED
from kvprefix.cache.policies import label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import PAGE_IN, add_legend, make_axes, note_if_empty, percent_axes
from kvprefix.report.plots.styles import style_bars
from kvprefix.report.rounding import number, percent
from kvprefix.stats.intervals import spread_over

LEAST = -0.2  # the lowest share that is drawn, unless a bar above zero is as high: losses have no end


def draw_hinted(frame, *, width_in=PAGE_IN):
    """Draw the share of the gap that each policy closes: a group of bars per capacity, with the range over seeds.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.hinted.study_hinted`. A bar is the mean of a policy's gains over that of the optimum's; one that
        goes on below the axes ends there, and has a white mark.

    Returns
    -------
    figure, data
    """
    figure, axes = make_axes(width_in, 2.8)
    rates = frame.pivot_table(index="capacity_blocks", columns="policy", values="token")
    gap = rates[OPT.name] - rates[LRU.name]
    looks = {name: look for name, look in style_bars(HINTED).items() if name in rates}
    closed = rates[list(looks)].sub(rates[LRU.name], axis=0).div(gap.where(gap > 0), axis=0)
    least, width = min(LEAST, -closed.fillna(0).to_numpy().max()), 0.8 / len(looks)
    crowded = closed.size > 3.5 * width_in  # numbers side by side would touch
    for k, (name, look) in enumerate(looks.items()):
        ends = spread_over(frame[frame["policy"] == name], "capacity_blocks", "closed")[["min", "max"]]
        heights, ends = closed[name].clip(least), ends.clip(least)
        places = np.arange(len(rates)) + (k - (len(looks) - 1) / 2) * width
        bars = axes.bar(
            places, heights, width, yerr=[(heights - ends["min"]).clip(0), (ends["max"] - heights).clip(0)],
            label=plain_label(label_policy(name)), edgecolor="white", linewidth=0.4, error_kw={"linewidth": 0.8},
            **look,
        )  # fmt: skip
        below = places[closed[name] < least]
        axes.plot(below, np.full(len(below), 0.93 * least), "v", color="white", markersize=3)
        shown = [number(100 * one, ".1f") for one in closed[name]]
        axes.bar_label(bars, shown, fontsize=6, padding=1.5, rotation=90 if crowded else 0)
    axes.axhline(0, color="#222222", linewidth=0.7)
    named = [f"{size:,}\n{percent(one[LRU.name])}\n{percent(one[OPT.name])}" for size, one in rates.iterrows()]
    axes.set_xticks(np.arange(len(rates)), named)
    axes.set(xlabel="capacity (blocks); LRU's rate; the optimum's", ylabel="share of the gap closed")
    axes.set_xlim(-0.5, len(rates) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.3 if crowded else 0.15)
    note_if_empty(axes, closed.notna().to_numpy().any(), "the optimum hits no more than LRU")
    percent_axes(axes)
    add_legend(axes, 5)
    return figure, frame
