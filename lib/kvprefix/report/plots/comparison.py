"""Draw several reports in one frame: differences, distributions, curves. No numbers are made here."""

import numpy as np
import pandas as pd

from kvprefix.files.escape import one_line, plain_label
from kvprefix.report.plots.axes import (
    PAGE_IN,
    add_legend,
    compute_ecdf,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.styles import style_lines, style_mode
from kvprefix.stats.intervals import spread_over

LONGEST = 34  # characters of a report's name in a legend
POINTS = 600  # of a distribution


def draw_differences(measures, *, width_in=PAGE_IN):
    """Draw each report's differences from the first, a panel per mode; bars are 95 % intervals. Returns (figure, data).

    Parameters
    ----------
    measures : dict of str to list of `comparison.differences.Beside`
        Of each mode; those that are no shares, and those that two reports do not both know, are left out.
    width_in : float
        In inches.
    """
    shares = {
        mode: [one for one in some if one.share and any(it["difference"] is not None for it in one.against.values())]
        for mode, some in measures.items()
    }
    names = list(dict.fromkeys(one.keys["measure"] for some in shares.values() for one in some))
    labels = list(dict.fromkeys(label for some in shares.values() for one in some for label in one.against))
    height = 0.9 + len(names) * max(0.2, 0.11 * len(labels))
    figure, panels = make_axes(width_in, height, len(shares), sharey=True)
    places, step = np.arange(len(names))[::-1], 0.7 / max(len(labels), 1)
    rows = []
    for axes, (mode, some) in zip(np.atleast_1d(panels), shares.items(), strict=True):
        axes.axvline(0, color="#333333", linewidth=0.8)
        for k, (label, look) in enumerate(_style(labels, skip=1).items()):
            found = pd.DataFrame([{"mode": mode, "measure": one.keys["measure"], "report": label, **one.against[label]}
                                  for one in some if label in one.against])  # fmt: skip
            at = places[[names.index(name) for name in found["measure"]]] + step * ((len(labels) - 1) / 2 - k)
            ends = found[["low", "difference", "high"]].astype(float).to_numpy() * 100
            bars = np.clip([ends[:, 1] - ends[:, 0], ends[:, 2] - ends[:, 1]], 0, None)
            axes.errorbar(
                ends[:, 1], at, xerr=bars, fmt=look["marker"], color=look["color"], markersize=3.5, linewidth=1,
                capsize=1.5, label=_short(label),
            )  # fmt: skip
            rows.append(found)
        axes.set_title(style_mode(mode)["label"], fontsize=8)
        axes.set(xlabel="difference (points)", ylim=(-0.6, len(names) - 0.4))
        axes.set_yticks(places, names)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.08)
    if len(labels) > 1:
        add_legend(np.atleast_1d(panels)[0], _columns(labels, width_in))
    return figure, pd.concat(rows, ignore_index=True)


def draw_sharing(fractions, *, width_in=PAGE_IN):
    """Draw the distribution of the sharing fraction, a line per report, a panel per mode. Returns (figure, data).

    Parameters
    ----------
    fractions : dict of str to dict
        Mode to label to an ndarray, a value per request.
    width_in : float
        In inches.
    """
    curves = {mode: {label: compute_ecdf(one, points=POINTS) for label, one in some.items()}
              for mode, some in fractions.items()}  # fmt: skip
    options = {"xlabel": "sharing fraction", "ylabel": "share of requests", "xlim": (0, 1), "ylim": (0, 1.01)}
    figure, panels, data = _draw_steps(curves, ("sharing_fraction", "share_of_requests"), options, width_in)
    for axes in panels:
        percent_axes(axes, x=True)
    return figure, data


def draw_gaps(gaps, *, width_in=PAGE_IN):
    """Draw the distribution of reuse gaps, each gap once, from the reports' own curves. Returns (figure, data).

    Parameters
    ----------
    gaps : dict of str to dict
        Mode to label to (x, y), seconds and the share of reuses that come no later.
    width_in : float
        In inches.
    """
    curves = {
        mode: {label: (np.maximum(x, 1e-3), y) for label, (x, y) in some.items()} for mode, some in gaps.items()
    }
    options = {"xlabel": "reuse gap (s, log scale)", "ylabel": "share of reuses", "ylim": (0, 1.01)}
    figure, panels, data = _draw_steps(curves, ("reuse_gap_s", "share_of_reuses"), options, width_in)
    for axes, some in zip(panels, curves.values(), strict=True):
        percent_axes(axes)
        note_if_empty(axes, sum(len(x) for x, _ in some.values()), "no block is accessed twice")
        log_axes(axes, "x")
        axes.minorticks_off()
    return figure, data


def draw_hit_counts(accesses, *, width_in=PAGE_IN):
    """Draw the share of blocks with at least x accesses, a line per report. Returns (figure, data).

    Parameters
    ----------
    accesses : dict of str to dict
        Mode to label to an ndarray, the accesses of each block.
    width_in : float
        In inches.
    """
    curves = {mode: {label: _count_at_least(one) for label, one in some.items()} for mode, some in accesses.items()}
    options = {"xlabel": "accesses of a block, x (log scale)", "ylabel": "share of blocks with at least x\n(log scale)"}
    figure, panels, data = _draw_steps(curves, ("accesses", "share_at_least"), options, width_in, where="pre")
    for axes, some in zip(panels, curves.values(), strict=True):
        note_if_empty(axes, sum(len(x) for x, _ in some.values()), "no prompt fills a block")
        log_axes(axes, "xy")
        axes.minorticks_off()
    return figure, data


def draw_lru_curves(study, unbounded, *, width_in=PAGE_IN):
    """Draw LRU's hit rate over capacity in blocks and in tokens, and as a share of each unbounded rate.

    Parameters
    ----------
    study : comparison.curves.Study
    unbounded : dict of str to float
        Label to the unbounded token hit rate.
    width_in : float
        In inches.

    Returns
    -------
    figure, data
    """
    figure, panels = make_axes(width_in, 2.7, 3)
    rows = []
    for (label, look), frame in zip(_style([one.label for one in study.reports]).items(), study.frames, strict=True):
        spread = spread_over(frame, "tokens", "token")
        blocks = frame.groupby("tokens")["capacity_blocks"].first()
        whole = unbounded[label] or np.nan
        for axes, x, scale in zip(panels, (blocks, spread.index, spread.index), (1, 1, 1 / whole), strict=True):
            axes.plot(x, spread["mean"] * scale, label=_short(label), **{**look, "marker": ""})
            axes.fill_between(x, spread["min"] * scale, spread["max"] * scale, color=look["color"], alpha=0.2,
                              linewidth=0)  # fmt: skip
        rows.append(pd.DataFrame({"report": label, "capacity_blocks": blocks, "capacity_tokens": spread.index,
                                  "token": spread["mean"], "of_unbounded": spread["mean"] / whole}))  # fmt: skip
    names = (("blocks", "LRU hit rate"), ("tokens", "LRU hit rate"), ("tokens", "share of own unbounded rate"))
    for axes, (unit, rate) in zip(panels, names, strict=True):
        axes.set(xlabel=f"capacity ({unit}, log scale)", ylabel=rate)
        log_axes(axes, "x")
        rate_axes(axes)
    add_legend(panels[0], _columns([one.label for one in study.reports], width_in))
    return figure, pd.concat(rows, ignore_index=True)


def draw_policies(study, names, *, width_in=PAGE_IN):
    """Draw policies' hit rates over capacity in tokens: a colour per report, a dash per policy. Returns (figure, data).

    Parameters
    ----------
    study : comparison.curves.Study
    names : dict of str to str
        Of the policies that are drawn to their labels.
    width_in : float
        In inches.
    """
    figure, axes = make_axes(width_in, 2.9)
    labels = [one.label for one in study.reports]
    dashes = {name: look["linestyle"] for name, look in style_lines(names).items()}
    rows = []
    for (label, look), frame in zip(_style(labels).items(), study.frames, strict=True):
        for name, policy in names.items():
            spread = spread_over(frame[frame["name"] == name], "tokens", "token")
            line = {**look, "linestyle": dashes[name], "marker": ""}
            axes.plot(spread.index, spread["mean"], label=f"{_short(label)}: {plain_label(policy)}", **line)
            rows.append(spread.reset_index().assign(report=label, policy=name))
    axes.set(xlabel="capacity (tokens, log scale)", ylabel="token hit rate")
    log_axes(axes, "x")
    rate_axes(axes)
    add_legend(axes, _columns([f"{label}: policy" for label in labels for _ in names], width_in))
    return figure, pd.concat(rows, ignore_index=True)


def _draw_steps(curves, names, options, width_in, where="post"):
    """Draw step lines, a panel per mode; `names` are of the data's columns x and y. Returns (figure, panels, data)."""
    figure, panels = make_axes(width_in, 2.4, len(curves), sharey=True)
    panels, rows = np.atleast_1d(panels), []
    labels = list(dict.fromkeys(label for some in curves.values() for label in some))
    looks = _style(labels)
    for axes, (mode, some) in zip(panels, curves.items(), strict=True):
        for label, (x, y) in some.items():
            look = {**looks[label], "marker": ""}
            axes.step(x, y, where=where, label=_short(label), **look)
            rows.append(pd.DataFrame({"mode": mode, "report": label, names[0]: x, names[1]: y}))
        axes.set(**options)
        axes.set_title(style_mode(mode)["label"], fontsize=8)
    add_legend(panels[0], _columns(labels, width_in))
    return figure, panels, pd.concat(rows, ignore_index=True)


def _count_at_least(accesses):
    counts, blocks = np.unique(accesses, return_counts=True)
    return counts, blocks[::-1].cumsum()[::-1] / max(blocks.sum(), 1)


def _style(labels, skip=0):
    """Return the look of each report, the first the widest line: one on top of another is seen.

    With `skip` 1 the first is not drawn, and the others keep their looks.
    """
    looks = style_lines([*range(skip), *labels])
    return {label: {**looks[label], "linewidth": max(2.2 - 0.5 * k, 0.8)} for k, label in enumerate(labels)}


def _short(label):
    return plain_label(one_line(label, LONGEST))


def _columns(labels, width_in):
    """Return how many columns of a legend fit."""
    longest = max((min(len(label), LONGEST + 1) for label in labels), default=1)
    return max(1, min(len(labels), int(width_in / (0.45 + 0.065 * longest))))
