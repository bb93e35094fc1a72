"""Draw the engine study: the way from the unbounded accounting to an engine, and engines side by side."""

import numpy as np

from kvprefix.files.words import count
from kvprefix.report.plots.axes import PAGE_IN, add_legend, make_axes, rate_axes
from kvprefix.report.plots.styles import style_bars
from kvprefix.stats.intervals import move_interval, spread_over
from kvprefix.studies.engines import CHAIN, list_engines


def draw_chain(frame):
    """Draw what each cause gains or costs, a panel per pool; marks at the bars' ends show rate and 95 % interval.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.engines.study_engines`.

    Returns
    -------
    figure, data
    """
    pools = frame["pool"].unique()
    figure, panels = make_axes(PAGE_IN, 2.6, len(pools), sharex=True, sharey=True)
    places = np.arange(len(CHAIN))[::-1]
    for axes, pool in zip(np.atleast_1d(panels), pools, strict=True):
        chosen = frame[(frame["pool"] == pool) & frame["case"].isin(CHAIN)]
        rates = chosen.groupby("case")["token"].mean()[list(CHAIN)].to_numpy()
        first = chosen.dropna(subset="low").set_index("case").loc[list(CHAIN)]
        before = np.concatenate(([0], rates[:-1]))
        gains = rates >= before
        colors = ["#BBBBBB", *np.where(gains[1:], "#6FA8C9", "#E08A00")]
        hatches = ["", *np.where(gains[1:], "", "////")]
        look = {"color": colors, "edgecolor": "white", "linewidth": 0.4}
        bars = axes.barh(places, rates - before, left=before, height=0.6, **look)
        for bar, hatch in zip(bars, hatches, strict=True):
            bar.set_hatch(hatch)
        low, high = move_interval(first["low"].to_numpy(), first["high"].to_numpy(), first["token"].to_numpy(), rates)
        error = np.clip([rates - low, high - rates], 0, None)
        axes.errorbar(rates, places, xerr=error, fmt="|", color="#222222", markersize=8, linewidth=0.8)
        for place, rate in zip(places, rates, strict=True):
            where = {"textcoords": "offset points", "ha": "center", "fontsize": 6.5}
            axes.annotate(f"{100 * rate:.1f}", (rate, place), (0, 8), **where)
        axes.set(xlim=(0, 1), ylim=(-0.6, len(CHAIN) - 0.2), xlabel="token hit rate")
        axes.set_title(count(pool, "block"), fontsize=8)
        axes.set_xticks([0, 0.5, 1], ["0", "50%", "100%"])
        axes.set_yticks(places, [case.label for case in CHAIN.values()])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
    return figure, frame[frame["case"].isin(CHAIN)]


def draw_engines(frame):
    """Draw the engines' token hit rates at each pool, mean and range over seeds. Returns (figure, data)."""
    figure, axes = make_axes(PAGE_IN, 2.8)
    cases = list_engines()
    engines = list(dict.fromkeys(case.engine for case in cases.values()))
    known = [case for case in cases.values() if case.look]
    known.sort(key=lambda case: (engines.index(case.engine), case.look["hatch"]))  # each engine's plain bars first
    looks = style_bars(cases, {case.name: case.look for case in known})
    pools, width = np.sort(frame["pool"].unique()), 0.8 / len(looks)
    for k, (name, look) in enumerate(looks.items()):
        spread = spread_over(frame[frame["case"] == name], "pool", "token")
        error = [spread["mean"] - spread["min"], spread["max"] - spread["mean"]]
        bars = axes.bar(
            np.arange(len(pools)) + (k - (len(looks) - 1) / 2) * width, spread["mean"], width, yerr=error,
            label=cases[name].label, edgecolor="white", linewidth=0.4, error_kw={"linewidth": 0.8}, **look,
        )  # fmt: skip
        axes.bar_label(bars, [f"{100 * rate:.1f}" for rate in spread["mean"]], fontsize=6, padding=1.5)
    axes.set(xlabel="pool (blocks)", ylabel="token hit rate")
    axes.set_xticks(np.arange(len(pools)), [f"{pool:,}" for pool in pools])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    rate_axes(axes)
    add_legend(axes, 3)
    return figure, frame[frame["case"].isin(cases)]
