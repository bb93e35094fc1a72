"""Draw the cache study: curves over capacity, block sizes, policies, working sets. No numbers are made here."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, NullFormatter, NullLocator

from kvprefix.cache.policies import POLICIES, label_policy
from kvprefix.files.escape import plain_label
from kvprefix.files.words import count
from kvprefix.report.plots.axes import (
    PAGE_IN,
    STYLE,
    add_legend,
    compute_ecdf,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.styles import style_lines
from kvprefix.stats.intervals import spread_over

WEIGHTINGS = {
    "token": {"label": "by token", "color": "#10507A", "linestyle": "-"},
    "block": {"label": "by block", "color": "#E08A00", "linestyle": (0, (4, 1.5))},
    "request_mean": {"label": "mean of requests", "color": "#666666", "linestyle": (0, (1, 1.2))},
}


def draw_lru_curve(curve, ceiling, block_size, model):
    """Draw LRU's hit rate over capacity, a line per weighting, with the range over seeds. Returns (figure, data).

    Parameters
    ----------
    curve : pandas.DataFrame
        Of `studies.cache.study_lru`.
    ceiling : dict
        Of `cache.curve.rate_unbounded`.
    block_size : int
    model : models.memory.Model
        The upper axis is in GiB of its KV cache.
    """
    figure, axes = make_axes(PAGE_IN, 3.2)
    for name, style in style_lines(ceiling, WEIGHTINGS).items():
        spread = spread_over(curve, "capacity_blocks", name)
        axes.plot(spread.index, spread["mean"], **{"label": name.replace("_", " "), **style})
        axes.fill_between(spread.index, spread["min"], spread["max"], color=style["color"], alpha=0.25, linewidth=0)
        axes.axhline(ceiling[name], color=style["color"], linestyle=style["linestyle"], linewidth=0.7)
    axes.set(ylabel="LRU hit rate (thin: unbounded)")
    _capacity_axes(axes, block_size, model)
    add_legend(axes, 3)
    return figure, curve


def draw_policies(frame, ceiling, block_size, model):
    """Draw every policy's token hit rate over capacity, mean and range over seeds. Returns (figure, data)."""
    figure, axes = make_axes(PAGE_IN, 3.6)
    for policy, style in style_lines(frame["policy"].unique(), _list_looks()).items():
        spread = spread_over(frame[frame["policy"] == policy], "capacity_blocks", "token")
        label = plain_label(label_policy(policy))
        axes.plot(spread.index, spread["mean"], label=label, markersize=3.5, linewidth=1.1, **style)
        axes.fill_between(spread.index, spread["min"], spread["max"], color=style["color"], alpha=0.2, linewidth=0)
    axes.axhline(ceiling["token"], color="#333333", linewidth=0.7, linestyle=(0, (2, 2)), label="unbounded")
    axes.set(ylabel="token hit rate")
    _capacity_axes(axes, block_size, model)
    add_legend(axes, 5)
    return figure, frame


def _list_looks():
    """Return the lines of the policies that have a look of their own, as legends list them."""
    with_look = sorted((one for one in POLICIES.values() if one.look), key=lambda one: one.look.rank)
    return {one.name: one.look.as_line() for one in with_look}


def draw_block_sizes(frame):
    """Draw unbounded hit rates, and LRU's at equal memory, over block size. Returns (figure, data)."""
    figure, (left, right) = make_axes(PAGE_IN, 2.6, 2)
    whole = frame[frame["memory_tokens"].isna()]
    for name, style in WEIGHTINGS.items():
        left.plot(whole["block_size"], whole[name], marker="o", markersize=2.5, **style)
    left.set(ylabel="hit rate, unbounded")
    bounded = frame.dropna(subset="memory_tokens")
    for memory, style in style_lines(np.sort(bounded["memory_tokens"].unique())).items():
        color, spread = style["color"], spread_over(bounded[bounded["memory_tokens"] == memory], "block_size", "token")
        right.plot(spread.index, spread["mean"], markersize=2.5, **{**style, "marker": "o"})
        right.fill_between(spread.index, spread["min"], spread["max"], color=color, alpha=0.25, linewidth=0)
        right.annotate(f"{_tokens(memory)} tokens", (spread.index[0], spread["mean"].iloc[0]), color=color,
                       xytext=(2, -8), textcoords="offset points", fontsize=7)  # fmt: skip
    right.set(ylabel="LRU token hit rate")
    for axes in (left, right):
        _block_size_axis(axes, whole["block_size"])
        rate_axes(axes)
    add_legend(left, 3)
    return figure, frame


def draw_loss(frame):
    """Draw the cached tokens that larger blocks lose, beside half a block per request. Returns (figure, data)."""
    small = frame["block_size"].min()
    whole = frame[frame["memory_tokens"].isna() & (frame["block_size"] > small)]
    figure, axes = make_axes()
    sizes = whole["block_size"]
    axes.plot(sizes, whole["lost_tokens"], marker="o", markersize=3, color="#10507A", label="measured")
    label = f"half a block: (B - {small}) / 2"
    axes.plot(sizes, (sizes - small) / 2, color="#666666", linestyle=(0, (4, 1.5)), label=label)
    axes.set(ylabel="cached tokens lost per request\n(log scale)")
    note_if_empty(axes, (whole["lost_tokens"] > 0).sum(), "no larger block loses a token")
    log_axes(axes, "y")
    _block_size_axis(axes, sizes)
    add_legend(axes, 2)
    return figure, whole.assign(half_a_block=(sizes - small) / 2)[["block_size", "lost_tokens", "half_a_block"]]


def draw_working_set(times_s, sizes, block_size, model):
    """Draw the working set over time. `sizes` maps a label to its distinct blocks. Returns (figure, data)."""
    figure, axes = make_axes(PAGE_IN, 2.5)
    for label, style in style_lines(sizes).items():
        axes.plot(times_s / 3600, np.maximum(sizes[label], 1), label=label, **{**style, "marker": ""})
    axes.set(xlabel="time (hours)", ylabel="distinct blocks in the window\n(log scale)")
    note_if_empty(axes, sum(blocks.any() for blocks in sizes.values()), "no prompt fills a block")
    log_axes(axes, "y")
    factor = block_size * model.bytes_per_token / 2**30
    with mpl.rc_context(STYLE):
        right = axes.secondary_yaxis("right", functions=(lambda x: x * factor, lambda x: x / factor))
        right.set_ylabel(f"GiB, {plain_label(model.name)}")
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    add_legend(axes, 3)
    return figure, pd.DataFrame({"time_s": times_s, **sizes})


def draw_reuse(gap_s, distances, reuse):
    """Draw reuse gaps beside stack distances, and how reuse spreads over blocks. Returns (figure, data).

    Parameters
    ----------
    gap_s, distances : ndarray
        Of each reuse: seconds since the last access, and distinct blocks accessed since.
    reuse : (share_of_blocks, share_of_reuse)
        Of `cache.working_set.rank_reuse`.
    """
    figure, axes = make_axes(PAGE_IN, 2.3, 3)
    gap, distance = compute_ecdf(gap_s), compute_ecdf(distances)
    keep = np.unique(np.linspace(0, len(reuse[0]) - 1, 2000).round().astype(int))
    panels = {
        "reuse gap (s, log scale)": (np.maximum(gap[0], 1e-3), gap[1]),
        "stack distance (blocks, log scale)": (np.maximum(distance[0], 1), distance[1]),
        "hottest share of blocks": (reuse[0][keep], reuse[1][keep]),
    }
    frames = []
    for one, (label, (x, y)) in zip(axes, panels.items(), strict=True):
        one.plot(x, y, color="#10507A", drawstyle="default" if "hottest" in label else "steps-post")
        one.set(xlabel=label, ylim=(0, 1.01), ylabel="share of reuses")
        percent_axes(one, x="hottest" in label)
        note_if_empty(one, len(gap_s), "no block is accessed twice")
        log_axes(one, "x" if "log" in label else "")
        frames.append(pd.DataFrame({"panel": label, "x": x, "share_of_reuses": y}))
    return figure, pd.concat(frames, ignore_index=True)


def _capacity_axes(axes, block_size, model):
    factor = block_size * model.bytes_per_token / 2**30
    axes.set(xlabel=f"capacity (blocks of {count(block_size, 'token')}, log scale)")
    log_axes(axes, "x")
    rate_axes(axes)
    with mpl.rc_context(STYLE):
        top = axes.secondary_xaxis("top", functions=(lambda x: x * factor, lambda x: x / factor))
        name, kib = plain_label(model.name), model.bytes_per_token / 1024
        top.set_xlabel(f"GiB of KV cache, {name} ({kib:,.0f} KiB per token, log scale)")
        top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        below = axes.secondary_xaxis("bottom", functions=(lambda x: x * block_size, lambda x: x / block_size))
        below.spines["bottom"].set_position(("outward", 30))
        below.set_xlabel("capacity (tokens, log scale)")


def _block_size_axis(axes, sizes):
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_major_formatter(FixedFormatter([str(size) for size in sizes]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("block size (tokens, log scale)")


def _tokens(count):
    return f"{count / 1e6:g}M" if count >= 1e6 else f"{count / 1e3:g}K" if count >= 1e3 else f"{count:g}"
