"""Draw a workload: a conversation's turns, turns and lengths over all of them, arrivals over time."""

import numpy as np
import pandas as pd

from kvprefix.files.words import count
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    add_legend,
    compute_ecdf,
    draw_lines,
    line_style,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
)
from kvprefix.report.plots.styles import SERIES


def draw_turns_of(requests, cached_tokens, *, width_in=COLUMN_IN):
    """Draw one conversation: cached and computed prompt tokens of each turn. Returns (figure, its data)."""
    computed = requests["prompt_tokens"].to_numpy() - cached_tokens
    turns = np.arange(1, len(requests) + 1)
    figure, axes = make_axes(width_in)
    multi, single = SERIES["multi_turn"], SERIES["single_turn"]
    look = {"width": 0.7, "edgecolor": "white", "linewidth": 0.6} if len(turns) <= 100 else {"width": 1}  # no gaps
    axes.bar(turns, cached_tokens, label="cached", facecolor=multi["color"], **look)
    hatch = single["hatch"] if len(turns) <= 100 else None
    axes.bar(turns, computed, bottom=cached_tokens, label="to compute", facecolor=single["color"], hatch=hatch, **look)
    axes.set(xlabel="turn", ylabel="prompt tokens")
    axes.set_xlim(0.4, len(requests) + 0.6)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.grid(axis="x", visible=False)
    add_legend(axes, 2)
    return figure, pd.DataFrame({"turn": turns, "cached_tokens": cached_tokens, "computed_tokens": computed})


def draw_turn_counts(requests, *, width_in=COLUMN_IN):
    """Draw the share of conversations with at least x turns, both axes logarithmic. Returns (figure, its data)."""
    per_conversation = requests.groupby("conversation_index").size()
    turns, conversations = np.unique(per_conversation, return_counts=True)
    share = conversations[::-1].cumsum()[::-1] / conversations.sum()
    figure, axes = make_axes(width_in)
    style = {**line_style("multi_turn", ""), "label": None}
    axes.step(turns, share, where="pre", marker="o", markersize=2, **style)
    axes.set(xlabel="turns of a conversation, x (log scale)",
             ylabel="share of conversations\nwith at least x (log scale)")  # fmt: skip
    log_axes(axes, "xy")
    return figure, pd.DataFrame({"turns": turns, "conversations": conversations, "share_at_least": share})


def draw_lengths(traces, *, width_in=PAGE_IN):
    """Draw the distributions of prompt tokens (both modes) and of generated tokens. Returns (figure, its data)."""
    figure, (left, right) = make_axes(width_in, 2.4, 2, sharey=True)
    frames = []
    for axes, column in ((left, "prompt_tokens"), (right, "output_tokens")):
        lines = {}
        for mode, trace in traces.items():
            values = trace.requests[column][trace.requests[column] > 0]
            lines[mode] = (compute_ecdf(values), f"median {values.median():,.0f}" if len(values) else "none")
        frames.append(draw_lines(axes, lines, "tokens", "share_of_requests").assign(what=column))
        name = "prompt" if column == "prompt_tokens" else "generated"
        axes.set(ylim=(0, 1.01), xlabel=f"{name} tokens of a request (log scale)")
        percent_axes(axes)
        note_if_empty(axes, len(frames[-1]), f"no request has {name} tokens")
        log_axes(axes, "x")
        axes.legend(loc="best", fontsize=7, handlelength=2.4, frameon=False)
    left.set_ylabel("share of requests")
    return figure, pd.concat(frames, ignore_index=True)


def draw_arrivals(traces, bins=120, *, width_in=PAGE_IN):
    """Draw the requests per second over time, a line per mode. Returns (figure, its data)."""
    end = max(np.percentile(trace.arrival_s, 99.5) for trace in traces.values()) or 1.0  # 1 s if all arrive at 0
    edges = np.linspace(0, end, bins + 1)
    lines = {}
    for mode, trace in traces.items():
        counts, _ = np.histogram(trace.arrival_s, edges)
        rate = counts / (edges[1] - edges[0])
        lines[mode] = ((edges[:-1] / 60, rate), count(len(trace), "request"))
    figure, axes = make_axes(width_in, 2.2)
    data = draw_lines(axes, lines, "minute", "requests_per_s")
    axes.set(xlim=(0, end / 60), ylim=(0, None), xlabel="time (min)", ylabel="requests per second")
    add_legend(axes, 2)
    return figure, data


def draw_turn_gaps(requests, *, width_in=COLUMN_IN):
    """Draw the time between the arrivals of consecutive turns of a conversation. Returns (figure, its data)."""
    gap = (
        requests.sort_values(["conversation_index", "turn"]).groupby("conversation_index")["arrival_s"].diff().dropna()
    )
    x, y = compute_ecdf(np.maximum(gap, 1e-3))
    figure, axes = make_axes(width_in)
    if len(gap):
        axes.step(x, y, where="post", **line_style("multi_turn", f"median {gap.median():,.0f} s"))
        add_legend(axes)
    axes.set(ylim=(0, 1.01), xlabel="from a turn to the next (s, log scale)", ylabel="share of turns")
    percent_axes(axes)
    note_if_empty(axes, len(gap), "no conversation has a second turn")
    log_axes(axes, "x")
    return figure, pd.DataFrame({"gap_s": x, "share": y})
