"""Draw where hits come from and why the rest is missed: areas over capacity, bars by turn, strips of one request.

A part has the same colour everywhere; neighbours differ in grey, and hatches tell the others apart.
"""

import numpy as np
import pandas as pd

from kvprefix.report.labels import LABELS
from kvprefix.report.plots.axes import COLUMN_IN, PAGE_IN, add_legend, log_axes, make_axes, note_if_empty, percent_axes
from kvprefix.report.plots.styles import BLUE, GREEN, GREY, LIGHT_BLUE, ORANGE, PURPLE, RED
from kvprefix.studies.explain_tables import TURNS

LEAST = 0.0005  # of a stack: a part that is nowhere more is not drawn
PALE, SAND, WHITE = "#E9E9E9", "#E0B050", "white"
LOOKS = {
    "template": (GREY, ""), "system_prompt": (PURPLE, "...."), "own_turns": (BLUE, ""),
    "duplicate": (ORANGE, "////"), "other_conversation": (GREEN, ""), "uncached": (WHITE, ""),
    "hit": (BLUE, ""), "routing": (PURPLE, "...."), "policy": (LIGHT_BLUE, ""), "capacity": (ORANGE, "////"),
    "sub_block": (GREY, "xxxx"), "isolation": (GREEN, "...."), "generated_not_cached": (SAND, "...."),
    "last_tokens": ("#333333", ""), "template_divergence": (RED, "\\\\\\\\"), "cold": (PALE, ""),
    "first_seen": (PALE, ""),
}  # fmt: skip
TOGETHER = {
    "sub_block_inside": "sub_block", "sub_block_tail": "sub_block", "last_sampled_token": "last_tokens",
    "last_token": "last_tokens",
}  # fmt: skip
JOINED = "Part of a block: inside it, or the end of a known prompt; last token: the last sampled one, too."
NAMES = LABELS | {"sub_block": "part of a block", "last_tokens": "last token"}


def draw_areas(table, *, width_in=PAGE_IN):
    """Draw the shares of prompt tokens over capacity as stacked areas, the mean over seeds. Returns (figure, data).

    Parameters
    ----------
    table : pandas.DataFrame
        Of `study_origins` or `study_causes`.
    """
    figure, axes = make_axes(width_in, 2.9)
    bounded = table[table["capacity_blocks"] > 0]
    shares = _sum_parts(bounded, ["capacity_blocks"], "token")
    shares = shares / bounded["seed"].nunique()
    x, low = shares.index.to_numpy(), np.zeros(len(shares))
    for part in shares:
        if part != "uncached":
            high = low + shares[part].to_numpy()
            axes.fill_between(x, low, high, linewidth=0.5, **_look(part))
            low = high
    axes.set(xlabel="capacity (blocks, log scale)", ylabel="share of prompt tokens")
    top = low.max() if "uncached" in shares else 1.0
    note_if_empty(axes, low.any(), "no prompt token is cached")
    note_if_empty(axes, len(x) > 1 or not low.any(), "one capacity holds all blocks")
    if len(x) > 1:
        axes.set_xlim(x.min(), x.max())
    log_axes(axes, "x")
    axes.set_ylim(0, max(min(1.08 * top, 1.0), 0.01))
    percent_axes(axes)
    add_legend(axes, 4)
    return figure, table


def draw_turns(table, *, width_in=COLUMN_IN):
    """Draw the shares of prompt tokens by turn as stacked bars. Returns (figure, data).

    Parameters
    ----------
    table : pandas.DataFrame
        Of `studies.explain_tables.tabulate_turns`.
    """
    figure, axes = make_axes(width_in, 2.8)
    shares = _sum_parts(table, ["from_turn"], "token")
    _stack(axes, shares, np.arange(len(shares)), upright=True)
    axes.set_xticks(range(len(shares)), [_name_turns(turn) for turn in shares.index])
    axes.set(xlabel="turn", ylabel="share of prompt tokens", ylim=(0, 1))
    note_if_empty(axes, set(shares) - {"uncached"}, "no prompt token is cached")
    axes.grid(axis="x", visible=False)
    percent_axes(axes)
    add_legend(axes, 4)
    return figure, table


def _name_turns(turn):
    """Return the name of a class of turns, counted from 1.

    >>> [_name_turns(turn) for turn in (0, 1, 2, 32)]
    ['1', '2', '3–4', '33+']
    """
    at = TURNS.index(turn)
    last = TURNS[at + 1] if at + 1 < len(TURNS) else None
    return f"{turn + 1}+" if last is None else f"{turn + 1}" if last == turn + 1 else f"{turn + 1}–{last}"


def draw_strips(strips, block_size, *, width_in=PAGE_IN):
    """Draw requests as strips of blocks, each token in the colour of its class. Returns (figure, data).

    Parameters
    ----------
    strips : list of (str, dict of str to int)
        Each request's name, and its prompt's tokens by class, from the first token on; the last one is explained.
    block_size : int
        Tokens per block; the blocks of the last strip are marked if there is room for them.
    """
    rows = [{"request": name, "part": part, "tokens": n} for name, classes in strips for part, n in classes.items()]
    data = pd.DataFrame(rows)
    figure, axes = make_axes(width_in, 1.1 + 0.2 * len(strips))
    shares = _sum_parts(data, ["request"], "tokens").reindex([name for name, _ in strips])
    places = np.arange(len(strips))[::-1]
    _stack(axes, shares, places, upright=False)
    last = int(shares.iloc[-1].sum())
    blocks_per_in = last / block_size / width_in
    if blocks_per_in <= 60:
        thickness = 0.4 if blocks_per_in <= 16 else 0.15
        axes.vlines(np.arange(0, last + 1, block_size), -0.39, 0.39, color="white", linewidth=thickness)
    axes.set_yticks(places, [name if len(name) <= 18 else f"{name[:17]}…" for name, _ in strips])
    axes.set(xlabel="token of the prompt", ylabel="request", xlim=(0, max(int(shares.sum(axis=1).max()), 1)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(axis="y", visible=False)
    add_legend(axes, 4)
    return figure, data


def _sum_parts(table, keys, value):
    """Return a column per part in the order of the stack; those that are nowhere LEAST of it are left out."""
    drawn = table.assign(part=table["part"].map(lambda part: TOGETHER.get(part, part)))
    wide = drawn.pivot_table(index=keys[0], columns="part", values=value, aggfunc="sum", sort=True).fillna(0)
    least = LEAST * wide.sum(axis=1)
    return wide[[part for part in LOOKS if part in wide and (wide[part] > least).any()]]


def _stack(axes, shares, places, *, upright):
    low = np.zeros(len(shares))
    for part in shares:
        sizes = shares[part].to_numpy()
        if part != "uncached" and upright:
            axes.bar(places, sizes, 0.8, low, linewidth=0.5, **_look(part))
        elif part != "uncached":
            axes.barh(places, sizes, 0.78, low, linewidth=0, **_look(part))
        low += sizes


def _look(part):
    color, hatch = LOOKS[part]
    return {"facecolor": color, "hatch": hatch, "edgecolor": "white", "label": NAMES[part]}
