"""Draw the four figures whose names are fixed, and save them without a notebook. No numbers are made here."""

import numpy as np
import pandas as pd

from kvprefix.report.captions import caption_figure
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    STACKED_BELOW_IN,
    add_legend,
    complete_caption,
    compute_ecdf,
    draw_lines,
    line_style,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
    save_figure,
)
from kvprefix.report.plots.styles import style_mode
from kvprefix.report.rounding import percent
from kvprefix.stats.intervals import interval
from kvprefix.stats.resampling import FRACTIONS, read_rate


def draw_sharing_cdf(results, *, width_in=COLUMN_IN):
    """Draw the distribution of the sharing fraction over requests, a line per mode. Returns (figure, its data)."""
    lines = {
        mode: (
            compute_ecdf(result.sharing.sharing_fraction),
            f"mean {percent(result.stats['sharing_fraction']['mean'])}",
        )
        for mode, result in results.items()
    }
    figure, axes = make_axes(width_in)
    data = draw_lines(axes, lines, "sharing_fraction", "share_of_requests")
    for mode, result in results.items():
        low, high = interval(result.resampled.cdf)
        axes.fill_between(FRACTIONS, low, high, color=style_mode(mode)["color"], alpha=0.25, linewidth=0)
    axes.set(
        xlim=(0, 1), ylim=(0, 1.01), xlabel="sharing fraction (cached / prompt tokens)", ylabel="share of requests"
    )
    percent_axes(axes, x=True)
    add_legend(axes, 2)
    return figure, data


def draw_gap_cdf(results, *, width_in=COLUMN_IN):
    """Draw the distribution of reuse gaps, weighted by block and by request. Returns (figure, its data)."""
    figure, axes = make_axes(width_in)
    frames = []
    for mode, (_, sharing, _, _) in results.items():
        for weighting, weights, width in (("block", None, 1.6), ("request", sharing.run_weights, 0.8)):
            x, y = compute_ecdf(sharing.run_gap_s, weights, lengths=sharing.gap_runs.lengths)
            style = line_style(mode, f"by {weighting}")
            axes.step(np.maximum(x, 1e-3), y, where="post", **{**style, "linewidth": width})
            frames.append(pd.DataFrame({"mode": mode, "weighting": weighting, "reuse_gap_s": x, "share": y}))
    axes.set(ylim=(0, 1.01), xlabel="reuse gap (s, log scale)", ylabel="share of reuses")
    percent_axes(axes)
    note_if_empty(axes, sum(len(frame) for frame in frames), "no block is accessed twice")
    log_axes(axes, "x")
    add_legend(axes, 2)
    return figure, pd.concat(frames, ignore_index=True)


def draw_hit_distribution(results, *, width_in=COLUMN_IN):
    """Draw the share of blocks with at least x accesses, both axes logarithmic. Returns (figure, its data)."""
    figure, axes = make_axes(width_in)
    frames = []
    for mode, (_, sharing, stats, _) in results.items():
        counts, at = np.unique(sharing.block_runs.accesses, return_inverse=True)
        blocks = np.bincount(at, sharing.block_runs.lengths, len(counts)).astype(np.int64)
        share = blocks[::-1].cumsum()[::-1] / max(blocks.sum(), 1)
        mean = stats["block_hit_count"]["mean"]
        style = line_style(mode, "none" if mean is None else f"mean {mean:.2f}")
        axes.step(counts, share, where="pre", marker="o" if mode == "multi_turn" else "s", markersize=2, **style)
        frames.append(pd.DataFrame({"mode": mode, "accesses": counts, "blocks": blocks, "share_at_least": share}))
    axes.set(xlabel="accesses of a block, x (log scale)", ylabel="share of blocks with at least x\n(log scale)")
    note_if_empty(axes, sum(len(frame) for frame in frames), "no prompt fills a block")
    log_axes(axes, "xy")
    add_legend(axes, 2)
    return figure, pd.concat(frames, ignore_index=True)


def draw_comparison(results, *, width_in=PAGE_IN):
    """Draw both modes' main numbers side by side: rates, and the mean hit count. Returns (figure, its data)."""
    rates = {
        "mean sharing\nfraction": "sharing_fraction.mean",
        "median sharing\nfraction": "sharing_fraction.median",
        "token\nhit rate": "token_hit_rate",
        "block\nreuse rate": "block_reuse_rate",
        "blocks reused\nfraction": "blocks_reused_fraction",
    }
    counts = {"mean block\nhit count": "block_hit_count.mean"}
    figure, (left, right) = make_axes(width_in, 2.4, 2, width_ratios=[5, 1.4])
    data = pd.concat([_draw_bars(left, results, rates, 100, "{:.1f}"), _draw_bars(right, results, counts, 1, "{:.2f}")])
    left.set(ylabel="percent", ylim=(0, max(10, 1.18 * left.dataLim.ymax)))
    right.set(ylabel="accesses per block", ylim=(0, 1.18 * max(1, right.dataLim.ymax)))
    add_legend(left, 2)
    return figure, data


def _draw_bars(axes, results, measures, factor, label):
    frames, width = [], 0.76 / len(results)
    for k, (mode, result) in enumerate(results.items()):
        known = np.array([read_rate(result.stats, name) for name in measures.values()], float)  # NaN if there is none
        values = np.nan_to_num(known)
        found = [result.stats["intervals"][name] for name in measures.values()]
        low, high = np.array([pair or (value, value) for pair, value in zip(found, values, strict=True)]).T
        style, places = style_mode(mode), np.arange(len(values)) + (k - (len(results) - 1) / 2) * width
        bars = axes.bar(
            places, values * factor, width, label=style["label"],
            facecolor=style["color"], edgecolor="white", linewidth=0.6, hatch=style["hatch"],
        )  # fmt: skip
        errors = np.maximum([values - low, high - values], 0) * factor
        for color, linewidth in (("white", 2.0), ("black", 0.8)):  # to be seen on a dark bar
            axes.errorbar(
                places, values * factor, errors, fmt="none", ecolor=color,
                elinewidth=linewidth, capsize=1.5, capthick=linewidth, label="_nolegend_",
            )  # fmt: skip
        for bar, value, top in zip(bars, known * factor, (values * factor + errors[1]), strict=True):
            axes.annotate(
                "–" if np.isnan(value) else label.format(value), (bar.get_x() + width / 2, top), (0, 2),
                textcoords="offset points", ha="center", va="bottom", fontsize=6.5,
            )  # fmt: skip
        names = [name.replace("\n", " ") for name in measures]
        frames.append(pd.DataFrame({"mode": mode, "measure": names, "value": known, "low": low, "high": high}))
    names = measures if axes.figure.get_figwidth() >= STACKED_BELOW_IN else [one.replace(" ", "\n") for one in measures]
    axes.set_xticks(np.arange(len(measures)), names)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    return pd.concat(frames)


FIGURES = {
    "sharing_fraction_cdf": draw_sharing_cdf,
    "block_hit_distribution": draw_hit_distribution,
    "reuse_gap_cdf": draw_gap_cdf,
    "comparison": draw_comparison,
}


def draw_figures(results, folder):
    """Draw and save the four figures, each as PNG and PDF with its numbers (CSV) and its caption (text)."""
    stats = {mode: result.stats for mode, result in results.items()}
    for name, draw in FIGURES.items():
        figure, data = draw(results)
        save_figure(figure, data, complete_caption(caption_figure(name, stats), figure), folder / name)
