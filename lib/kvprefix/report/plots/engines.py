"""Draw the engine study: the way from the unbounded accounting to an engine, engines and hybrids side by side."""

import textwrap

import numpy as np
from matplotlib.ticker import PercentFormatter

from kvprefix.files.words import count
from kvprefix.report.plots.axes import PAGE_IN, STACKED_BELOW_IN, add_legend, log_axes, make_axes, rate_axes
from kvprefix.report.plots.places import label_ends
from kvprefix.report.plots.styles import style_bars, style_lines
from kvprefix.report.rounding import percent, points
from kvprefix.stats.intervals import move_interval, spread_over
from kvprefix.studies.engines import CHAIN, list_engines
from kvprefix.studies.hybrids import HYBRIDS, UNBOUNDED, name_pool


def draw_chain(frame, pool=None, *, width_in=PAGE_IN):
    """Draw what each cause gains or costs at one pool, and the rates after each of them over all pools.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.engines.study_engines`.
    pool : int, optional
        Blocks; by default the middle one, `choose_pool`.

    Returns
    -------
    figure, data
    """
    pool = choose_pool(frame) if pool is None else pool
    frame = frame[frame["case"].isin(CHAIN)]
    figure, (left, right) = make_axes(width_in, 3.0, 2, width_ratios=(1, 1.1))
    _draw_steps(left, frame[frame["pool"] == pool])
    left.set(xlabel=f"token hit rate at {count(pool, 'block')}; steps in points")
    for name, look in style_lines(CHAIN).items():
        spread = spread_over(frame[frame["case"] == name], "pool", "token")
        right.plot(spread.index, spread["mean"], label=CHAIN[name].label, linewidth=1.1, markersize=3, **look)
        right.fill_between(spread.index, spread["min"], spread["max"], color=look["color"], alpha=0.2, linewidth=0)
    right.axvline(pool, color="#BBBBBB", linewidth=4, zorder=0.5)
    right.set(xlabel="pool (blocks, log scale)", ylabel="token hit rate")
    rate_axes(right)
    log_axes(right, "x", most=2)
    label_ends([right])
    return figure, frame


def choose_pool(frame):
    """Return the pool in the middle, the smaller one of two.

    >>> import pandas as pd
    >>> int(choose_pool(pd.DataFrame({"pool": [40, 10, 20, 30, 10]})))
    20
    """
    pools = np.sort(frame["pool"].unique())
    return pools[(len(pools) - 1) // 2]


def _draw_steps(axes, frame):
    """Draw a bar from the rate before each cause to the rate after it, with the 95 % interval of the rate."""
    rates = frame.groupby("case")["token"].mean()[list(CHAIN)].to_numpy()
    first = frame.dropna(subset="low").set_index("case").loc[list(CHAIN)]
    places, before = np.arange(len(CHAIN))[::-1], np.concatenate(([0], rates[:-1]))
    look = {"height": 0.6, "edgecolor": "white", "linewidth": 0.4}
    for k, (place, start, rate) in enumerate(zip(places, before, rates, strict=True)):
        color, hatch = ("#BBBBBB", "") if not k else ("#6FA8C9", "") if rate >= start else ("#E08A00", "////")
        axes.barh(place, rate - start, left=start, color=color, hatch=hatch, **look)
    axes.vlines(rates[:-1], places[1:] - 0.3, places[:-1] + 0.3, color="#777777", linewidth=0.5, zorder=0.8)
    low, high = move_interval(first["low"].to_numpy(), first["high"].to_numpy(), first["token"].to_numpy(), rates)
    error = np.clip([rates - low, high - rates], 0, None)
    axes.errorbar(rates, places, xerr=error, fmt="|", color="#222222", markersize=7, linewidth=0.8)
    steps = [f"{points(step)} → ".replace("-", "−") for step in 100 * np.diff(rates)]
    letters = 20 if axes.figure.get_figwidth() < STACKED_BELOW_IN else 40
    names = [textwrap.fill(case.label, letters) for case in CHAIN.values()]
    said = zip(names, ["", *steps], rates, strict=True)
    axes.set_yticks(places, [f"{name}\n{step}{percent(rate)}" for name, step, rate in said])
    axes.set(xlim=(0, None), ylim=(-0.6, len(CHAIN) - 0.4))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def draw_engines(frame, *, width_in=PAGE_IN):
    """Draw the engines' token hit rates at each pool, mean and range over seeds. Returns (figure, data)."""
    cases = list_engines()
    engines = list(dict.fromkeys(case.engine for case in cases.values()))
    known = [case for case in cases.values() if case.look]
    known.sort(key=lambda case: (engines.index(case.engine), case.look["hatch"]))  # each engine's plain bars first
    looks = style_bars(cases, {case.name: case.look for case in known})
    return _draw_bars(frame, cases, looks, width_in)


def draw_hybrids(frame, *, width_in=PAGE_IN):
    """Draw full attention and the hybrid side by side at each pool, as `draw_engines`. Returns (figure, data)."""
    looks = style_bars(HYBRIDS, {case.name: case.look for case in HYBRIDS.values()})
    return _draw_bars(frame, HYBRIDS, looks, width_in)


def _draw_bars(frame, cases, looks, width_in):
    """Draw a bar per case at each pool; the pool without a bound is the last one."""
    figure, axes = make_axes(width_in, 2.8)
    pools = np.array(sorted(frame["pool"].unique(), key=lambda pool: (pool == UNBOUNDED, pool)))
    width = 0.8 / len(looks)
    crowded = len(pools) * len(looks) > 3.5 * width_in  # numbers side by side would touch
    for k, (name, look) in enumerate(looks.items()):
        spread = spread_over(frame[frame["case"] == name], "pool", "token").loc[pools]
        error = [spread["mean"] - spread["min"], spread["max"] - spread["mean"]]
        bars = axes.bar(
            np.arange(len(pools)) + (k - (len(looks) - 1) / 2) * width, spread["mean"], width, yerr=error,
            label=cases[name].label, edgecolor="white", linewidth=0.4, error_kw={"linewidth": 0.8}, **look,
        )  # fmt: skip
        rates = [f"{100 * rate:.1f}" for rate in spread["mean"]]
        axes.bar_label(bars, rates, fontsize=6, padding=1.5, rotation=90 if crowded else 0)
    axes.set(xlabel="pool (blocks)", ylabel="token hit rate")
    axes.set_xticks(np.arange(len(pools)), [name_pool(pool) for pool in pools])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12 if crowded else 0.05)
    rate_axes(axes)
    add_legend(axes, 3)
    return figure, frame[frame["case"].isin(cases)]
