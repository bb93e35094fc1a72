"""Draw the cache study: curves over capacity, block sizes, policies, working sets. No numbers are made here."""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator

from kvprefix.cache.policies import LIBRARY, POLICIES, label_policy
from kvprefix.cache.rules.lru import LRU
from kvprefix.files.escape import plain_label
from kvprefix.files.words import count
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    STYLE,
    add_legend,
    compute_ecdf,
    log_axes,
    log_ticks,
    make_axes,
    note_if_empty,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.places import label_ends, mark_places
from kvprefix.report.plots.styles import DASH_DOTTED, GREEN, WEIGHTINGS, style_lines
from kvprefix.stats.intervals import pair_differences, spread_over

ENGINE_LOOK = {"color": GREEN, "linestyle": DASH_DOTTED, "marker": "D"}


def draw_lru_curve(curve, ceiling, block_size, model, engine=None, marks=(), points=(), *, width_in=PAGE_IN):
    """Draw LRU's hit rate over capacity, a line per weighting, with the range over seeds, and an engine's beside it.

    Parameters
    ----------
    curve : pandas.DataFrame
        Of `studies.cache.study_lru`.
    ceiling : dict
        Of `cache.curve.rate_unbounded`.
    block_size : int
    model : models.memory.Model
        The upper axis is in GiB of its KV cache.
    engine : (str, pandas.DataFrame), optional
        The label of an engine and its curve, of `studies.engines.study_engine_curve`.
    marks : sequence of (str, float)
        Labels and capacities in blocks that are marked: the knee, the memory that cards leave.
    points : sequence of (float, float)
        Capacities, and what the engine hits there with the model's own groups of layers, if these are several.

    Returns
    -------
    figure, data
    """
    figure, axes = make_axes(width_in, 3.4)
    frames = []
    for name, style in style_lines(ceiling, WEIGHTINGS).items():
        _draw_spread(axes, spread_over(curve, "capacity_blocks", name), {"label": name.replace("_", " "), **style})
        axes.axhline(ceiling[name], color=style["color"], linestyle=style["linestyle"], linewidth=0.7)
    if engine:
        label, frame = engine
        look = {"label": f"{plain_label(label)}, replies cached, by token", "markersize": 2.5, **ENGINE_LOOK}
        _draw_spread(axes, spread_over(frame, "capacity_blocks", "token"), look)
        axes.axhline(frame["unbounded"].mean(), color=GREEN, linestyle=DASH_DOTTED, linewidth=0.7)
        frames = [frame.assign(what="engine")]
        if points:
            frames.append(pd.DataFrame(points, columns=["capacity_blocks", "token"]).assign(what="groups"))
            own = f"the same, groups of layers of {plain_label(model.name)}"
            axes.plot(*np.transpose(points), label=own, color=GREEN, linestyle="", marker="o", markerfacecolor="white",
                      zorder=3)  # fmt: skip
    axes.set(ylabel="hit rate (thin: unbounded)")
    note_if_empty(axes, max(ceiling.values()), "nothing is ever hit")
    _capacity_axes(axes, block_size, model)
    add_legend(axes, 4)
    mark_places(axes, [(plain_label(label), blocks) for label, blocks in marks])
    return figure, pd.concat([curve.assign(what="lru"), *frames], ignore_index=True)


def draw_normalised(frame, *, width_in=COLUMN_IN):
    """Draw each trace's hit rate, as a share of its maximum, over the share of its blocks that the cache holds.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.normalise.normalise_curves`.

    Returns
    -------
    figure, data
    """
    figure, axes = make_axes(width_in, 2.8)
    for trace, look in style_lines(frame["trace"].unique()).items():
        one = frame[frame["trace"] == trace].sort_values("share_of_blocks")
        label = f"{plain_label(trace)} (maximum {100 * one['maximum'].iloc[0]:.1f} %)"
        every = max(len(one) // 10, 1)
        axes.plot(one["share_of_blocks"], one["share_of_maximum"], label=label, markersize=2.5, markevery=every, **look)
    axes.set(xlabel="capacity / distinct blocks of the trace (log scale)", ylabel="token hit rate / its maximum")
    note_if_empty(axes, frame["share_of_maximum"].notna().sum(), "nothing is ever hit")
    log_axes(axes, "x")
    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    percent_axes(axes)
    axes.set_ylim(0, 1.02)
    add_legend(axes, 3)
    return figure, frame


def draw_policies(frame, ceiling, block_size, model, fine=None, *, width_in=PAGE_IN):
    """Draw the policies' token hit rates over capacity, and what each wins or loses against LRU.

    The optimum, LRU and policies that are not the library's own stand out; what lies between the first two is shaded.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `studies.cache.study_policies`. Marks are its means over seeds, bands their range.
    ceiling : dict
        Of `cache.curve.rate_unbounded`.
    block_size : int
    model : models.memory.Model
    fine : pandas.DataFrame, optional
        Of `studies.cache.study_fine`: the lines of its policies have these capacities, and its seeds.

    Returns
    -------
    figure, data
        `data` has the rows of both frames and `points`, the difference to LRU of the same seed.
    """
    data = _join(frame, fine)
    looks = style_lines(frame["policy"].unique(), _list_looks())
    figure, (left, right) = make_axes(width_in, max(3.6, 1.4 + 0.125 * len(looks)), 2, width_ratios=(4, 3))
    lines, bounds = {}, [name for name in looks if name in POLICIES and POLICIES[name].is_bound]
    for name, look in looks.items():
        own = data[data["policy"] == name]
        lines[name] = own if fine is None or name not in set(fine["policy"]) else own[own["seed"].isin(fine["seed"])]
        look = {**(look if _stands_out(name) else _mute(look)), "label": plain_label(label_policy(name))}
        marked = lines[name]["capacity_blocks"].drop_duplicates().sort_values().isin(frame["capacity_blocks"])
        look["markevery"] = np.flatnonzero(marked).tolist()
        _draw_spread(left, spread_over(lines[name], "capacity_blocks", "token"), look)
        if name not in (LRU.name, *bounds):
            _draw_spread(right, spread_over(lines[name], "capacity_blocks", "points"), look)
    right.axhline(0, label=plain_label(LRU.label), **{**looks[LRU.name], "marker": ""})
    left.axhline(ceiling["token"], color="#333333", linewidth=0.7, linestyle=(0, (2, 2)), label="unbounded")
    note_if_empty(left, ceiling["token"], "nothing is ever hit")
    left.set(ylabel="token hit rate")
    right.set(ylabel="against LRU (points)")
    _capacity_axes(left, block_size, model)
    _capacity_axis(right, block_size)
    if bounds:
        _shade_headroom(left, *(spread_over(lines[name], "capacity_blocks", "token") for name in (LRU.name, bounds[0])))
    bold = [plain_label(label_policy(name)) for name in looks if _stands_out(name)]
    label_ends([left, right], bold)
    return figure, data


def _join(frame, fine):
    """Return the rows of both frames, each once, and their points against LRU."""
    joined = frame if fine is None else pd.concat([frame, fine], ignore_index=True)
    joined = joined.drop_duplicates(["seed", "policy", "capacity_blocks"]).sort_values("capacity_blocks", kind="stable")
    return pair_differences(joined, "policy", LRU.name)


def _stands_out(name):
    return name == LRU.name or name not in LIBRARY or POLICIES[name].is_bound


def _mute(look):
    return {**look, "color": "#8A8A8A", "linewidth": 0.8, "markersize": 2.5, "zorder": 1.8}


def _shade_headroom(axes, lru, bound):
    """Shade what lies between LRU and its bound, and name it where it is highest."""
    both = lru.index.intersection(bound.index)
    low, high = lru.loc[both, "mean"], bound.loc[both, "mean"]
    axes.fill_between(both, low, high, color="#F4DFA8", alpha=0.6, linewidth=0, zorder=0.5)
    inner = (high - low).iloc[1:-1] if len(both) > 2 else high - low  # at the axes' edge there is no room
    widest = inner.idxmax()
    if inner[widest] > 0:
        axes.text(widest, (high[widest] + low[widest]) / 2, "headroom", fontsize=7, style="italic", ha="center",
                  va="center", bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5})  # fmt: skip


def _list_looks():
    """Return the lines of the policies that have a look of their own, as legends list them."""
    with_look = sorted((one for one in POLICIES.values() if one.look), key=lambda one: one.look.rank)
    return {one.name: one.look.as_line() for one in with_look}


def draw_working_set(times_s, sizes, block_size, model, *, width_in=PAGE_IN):
    """Draw the working set over time. `sizes` maps a label to its distinct blocks. Returns (figure, data)."""
    figure, axes = make_axes(width_in, 2.5)
    for label, style in style_lines(sizes).items():
        idle = (sizes[label] == 0) & (np.maximum.accumulate(sizes[label]) > 0)  # no line on a logarithmic axis
        axes.plot(times_s / 3600, np.where(idle, np.nan, np.maximum(sizes[label], 1)), label=label,
                  **{**style, "marker": ""})  # fmt: skip
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


def draw_reuse(gap_s, distances, reuse, *, width_in=PAGE_IN):
    """Draw reuse gaps beside stack distances, and how reuse spreads over blocks. Returns (figure, data).

    Parameters
    ----------
    gap_s, distances : ndarray
        Of each reuse: seconds since the last access, and distinct blocks accessed since.
    reuse : (share_of_blocks, share_of_reuse)
        Of `cache.working_set.rank_reuse`.
    """
    figure, axes = make_axes(width_in, 2.3, 3)
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


def _draw_spread(axes, spread, look):
    """Draw a line of means over seeds, and the band of their range."""
    axes.plot(spread.index, spread["mean"], **{"linewidth": 1.2, "markersize": 3.5, **look})
    axes.fill_between(spread.index, spread["min"], spread["max"], color=look["color"], alpha=0.2, linewidth=0)


def _capacity_axis(axes, block_size):
    axes.set(xlabel=f"capacity (blocks of {count(block_size, 'token')}, log scale)")
    log_axes(axes, "x")


def _capacity_axes(axes, block_size, model):
    """Label the capacity in blocks, in tokens below and in GiB above."""
    factor = block_size * model.bytes_per_token / 2**30
    axes.set(xlabel=f"capacity (blocks of {count(block_size, 'token')})")
    log_axes(axes, "x")
    rate_axes(axes)
    mean = "mean " if model.cache and not model.cache.is_even else ""
    size = f"{plain_label(model.name)} ({mean}{model.bytes_per_token / 1024:,.0f} KiB per token)"
    _add_scale(axes, "top", factor, f"GiB of KV cache, {size}").xaxis.set_major_formatter("{x:,g}")
    below = _add_scale(axes, "bottom", block_size, "capacity (tokens, log scale)")
    with mpl.rc_context(STYLE):  # it makes the ticks anew
        below.spines["bottom"].set_position(("outward", 30))


def _add_scale(axes, place, factor, label):
    """Add a scale to a logarithmic x axis, whose numbers are those of the axis times a factor."""
    with mpl.rc_context(STYLE):
        scale = axes.secondary_xaxis(place, functions=(lambda x: x * factor, lambda x: x / factor))
        scale.set_xlabel(label)
        log_ticks(scale.xaxis, *np.multiply(axes.get_xlim(), factor), most=3)
    return scale
