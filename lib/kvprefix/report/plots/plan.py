"""Draw plans: memory of cards, replicas and routers, the next step, DRAM by size, loading, and assumptions."""

import textwrap

import numpy as np
import pandas as pd

from kvprefix.files.escape import plain_label
from kvprefix.files.words import count
from kvprefix.report.plots.axes import (
    COLUMN_IN,
    PAGE_IN,
    add_legend,
    log_axes,
    make_axes,
    note_if_empty,
    percent_axes,
    rate_axes,
)
from kvprefix.report.plots.styles import BLUE, DASHED, DOTTED, GREY, LIGHT_BLUE, ORANGE, WHOLE, style_lines

_PARTS = {  # of a replica's memory
    "weights_gib": {"label": "weights", "facecolor": GREY},
    "engine_gib": {"label": "engine, and not used", "facecolor": "#DDDDDD", "hatch": "...."},
    "kv_gib": {"label": "KV blocks", "facecolor": BLUE},
}  # fmt: skip


def draw_pools(rows, *, width_in=COLUMN_IN):
    """Draw what a replica's memory holds on each card. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `facts.plan.list_pools`.
    """
    figure, axes = make_axes(width_in, 0.9 + 0.24 * len(rows))
    places, left = np.arange(len(rows)), np.zeros(len(rows))
    for name, look in _PARTS.items():
        axes.barh(places, rows[name], 0.7, left, edgecolor="white", linewidth=0.4, **look)
        left += rows[name].to_numpy()
    for place, end, row in zip(places, left, rows.to_dict("records"), strict=True):
        text = "does not fit" if pd.isna(row["blocks"]) else f"{row['blocks']:,.0f} blocks"
        axes.annotate(text, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set(xlabel="memory of a replica's cards (GiB)", xlim=(0, 1.3 * max(left.max(initial=0), 1)))
    axes.set_yticks(places, [plain_label(one) for one in rows["card"]])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    add_legend(axes, 3)
    return figure, rows


def draw_plans(table, setup, *, width_in=PAGE_IN):
    """Draw hits and the wait for the first token over replicas, a line per router. Returns (figure, data).

    Parameters
    ----------
    table : pandas.DataFrame
        Of `plan.choose.average_draws`; plans without a second tier are drawn.
    setup : Setup
    """
    figure, axes = make_axes(width_in, 2.7, columns=2)
    rows, time = table[table["dram_gib"] == 0], f"ttft_p{setup.slo_percentile}"
    for router, look in style_lines(rows["router"].unique()).items():
        one = rows[rows["router"] == router].sort_values("replicas")
        look = {**look, "markersize": 4, "label": plain_label(router)}
        axes[0].plot(one["replicas"], one["token"], **look)
        axes[0].fill_between(one["replicas"], one["low"], one["high"], color=look["color"], alpha=0.15, linewidth=0)
        axes[1].plot(one["replicas"], one[time], **{**look, "label": None})
    axes[1].axhline(setup.slo_ttft, color="black", linestyle=DOTTED, linewidth=1)
    axes[1].annotate(
        f"aim: {setup.slo_ttft:g} s", (1, setup.slo_ttft), (-2, 2), xycoords=("axes fraction", "data"),
        textcoords="offset points", ha="right", va="bottom", fontsize=7,
    )  # fmt: skip
    note_if_empty(axes[1], rows[time].notna().any(), "all queues grow without bound")
    for one in axes:
        one.set(xlabel="replicas")
        log_axes(one, "x")
        one.set_xticks(sorted(rows["replicas"].unique()), [str(n) for n in sorted(rows["replicas"].unique())])
        one.minorticks_off()
    axes[0].set(ylabel="token hit rate")
    rate_axes(axes[0])
    axes[1].set(ylabel=f"TTFT p{setup.slo_percentile} (s, log scale)")
    log_axes(axes[1], "y")
    axes[1].yaxis.set_major_formatter("{x:g}")
    axes[1].margins(y=0.15)
    add_legend(axes[0], 6)
    return figure, rows


def draw_routers(rows, percentile, *, width_in=COLUMN_IN):
    """Draw each router's hits against its wait for the first token. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Plans of one number of replicas.
    percentile : int
        Of the wait.
    """
    figure, axes = make_axes(width_in, 2.6)
    time = f"ttft_p{percentile}"
    shown = rows.dropna(subset=time)
    for k, (router, look) in enumerate(style_lines(rows["router"]).items()):
        one = shown[shown["router"] == router]
        ends = np.abs(one[["low", "high"]].T.to_numpy() - one["token"].to_numpy())
        axes.errorbar(
            one["token"], one[time], xerr=ends if len(one) else None, markersize=max(10 - k, 4), linewidth=0,
            elinewidth=1, markeredgecolor="white", markeredgewidth=0.6, color=look["color"], marker=look["marker"],
            label=plain_label(router),
        )  # fmt: skip
    note_if_empty(axes, len(shown), "all queues grow without bound")
    axes.set(xlabel="token hit rate", ylabel=f"TTFT p{percentile} (s, log scale)")
    log_axes(axes, "y")
    percent_axes(axes, x=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(0.12)
    add_legend(axes, 3)
    return figure, rows


def draw_steps(rows, *, width_in=COLUMN_IN):
    """Draw what each step wins: hits, and dollars saved beside its cost. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `facts.plan.list_steps`.
    """
    figure, axes = make_axes(width_in, 1.9, columns=2)
    places, labels = np.arange(len(rows)), [plain_label(one) for one in rows["step"]]
    axes[0].barh(places, rows["points"], 0.5, facecolor=BLUE)
    axes[0].set(xlabel="points of token hit rate")
    looks = {"saved": {"facecolor": LIGHT_BLUE, "hatch": "////"}, "cost": {"facecolor": ORANGE}}
    for shift, (name, look) in zip((-0.2, 0.2), looks.items(), strict=True):
        axes[1].barh(places + shift, rows[f"usd_{name}"].fillna(0), 0.4, label=name, linewidth=0.4, **look)
    note_if_empty(axes[1], rows["usd_cost"].notna().any(), "no price is known")
    axes[1].set(xlabel="$ per hour")
    for one in axes:
        one.axvline(0, color="black", linewidth=0.6)
        one.set_yticks(places, labels)
        one.set_ylim(len(rows) - 0.4, -0.6)
        one.grid(axis="y", visible=False)
    add_legend(axes[1], 2)
    return figure, rows


def draw_dram(rows, pool_gib, price, *, width_in=PAGE_IN):
    """Draw hits over the size of DRAM, and what a further GiB is worth beside its price. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `plan.choose.value_dram`.
    pool_gib, price : float
        Of a replica's pool; of a GiB and hour.
    """
    figure, axes = make_axes(width_in, 2.5, columns=2)
    axes[0].plot(rows["dram_gib"], rows["token"], color=BLUE, marker="o", markersize=3)
    axes[0].fill_between(rows["dram_gib"], rows["low"], rows["high"], color=BLUE, alpha=0.2, linewidth=0)
    axes[0].axvline(pool_gib, color="black", linestyle=DOTTED, linewidth=1)
    axes[0].annotate(
        "size of the pool", (pool_gib, 0), (2, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
        fontsize=7, rotation=90,
    )  # fmt: skip
    axes[0].set(ylabel="token hit rate")
    rate_axes(axes[0])
    note_if_empty(axes[1], rows["usd_per_gib_hour"].notna().any(), "no price of the card is known")
    axes[1].plot(rows["dram_gib"], 1000 * rows["usd_per_gib_hour"], color=ORANGE, marker="s", markersize=3,
                 linestyle=DASHED, label="a further GiB saves")  # fmt: skip
    axes[1].axhline(1000 * price, color=GREY, linestyle=WHOLE, label="a GiB costs")
    axes[1].set(ylabel="$ per hour and 1,000 GiB")
    axes[1].set_ylim(bottom=min(0, 1100 * rows["usd_per_gib_hour"].min()) if len(rows) else 0)
    for one in axes:
        one.set(xlabel="DRAM per replica (GiB, log scale)")
        log_axes(one, "x")
    add_legend(axes[1], 2)
    return figure, rows


def draw_break_even(rows, bandwidth, *, width_in=COLUMN_IN):
    """Draw from which bandwidth on loading a prefix is faster than computing it. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `plan.choose.find_break_even`.
    bandwidth : float
        GiB per second of a replica's DRAM.
    """
    figure, axes = make_axes(width_in, 2.4)
    axes.plot(rows["tokens"], rows["gib_per_s"], color=BLUE, marker="o", markersize=3, label="loading equals computing")
    axes.axhline(bandwidth, color=ORANGE, linestyle=DASHED, label="DRAM")
    axes.set(xlabel="prefix (tokens, log scale)", ylabel="bandwidth (GiB/s, log scale)")
    log_axes(axes, "xy")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.2)
    add_legend(axes, 2)
    return figure, rows


def draw_varied(rows, setup, *, width_in=COLUMN_IN):
    """Draw the wait for the first token of what is chosen under each assumption. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        `Plans.varied`.
    setup : Setup
    """
    figure, axes = make_axes(width_in, 0.9 + 0.3 * len(rows))
    places = np.arange(len(rows))
    axes.barh(places, rows["ttft"].fillna(0), 0.6, facecolor=LIGHT_BLUE)
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        text = "no plan keeps the aim"
        if not pd.isna(row["replicas"]):
            dram = f",\n{row['dram_gib']:,.0f} GiB" if row["dram_gib"] else ""
            text = f"{count(int(row['replicas']), 'replica')}{dram}: {100 * row['token']:.1f} % hit"
        end = 0 if pd.isna(row["ttft"]) else row["ttft"]
        axes.annotate(text, (end, place), (3, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set(xlabel=f"TTFT p{setup.slo_percentile} (s)", ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlim(0, 2.4 * (rows["ttft"].max() if rows["ttft"].notna().any() else setup.slo_ttft))
    axes.set_yticks(places, [textwrap.fill(one, 18) for one in rows["assumption"]])
    axes.grid(axis="y", visible=False)
    return figure, rows
