"""Draw what policies evict: by depth, age and turn. No numbers are made here."""

import numpy as np
import pandas as pd

from kvprefix.cache.policies import POLICIES, label_policy
from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import PAGE_IN, add_legend, log_axes, make_axes, note_if_empty, percent_axes
from kvprefix.report.plots.styles import style_lines

PANELS = {
    "depth": ("block of the prompt, from 1\n(log scale)", 1),
    "age": ("requests since the last access\n(log scale)", 0),
    "turn": ("turn of the last access, from 1\n(log scale)", 1),
}


def draw_evictions(frame, width_in=PAGE_IN):
    """Draw the share of each policy's evictions at or below a depth, an age and a turn. Returns (figure, data).

    `frame` is of `studies.own_policy.study_evictions`.
    """
    figure, panels = make_axes(width_in, 2.4, 3)
    looks = {one.name: one.look.as_line() for one in POLICIES.values() if one.look}
    styles, frames = style_lines(frame["policy"].unique(), looks), []
    for axes, (by, (label, first)) in zip(panels, PANELS.items(), strict=True):
        for policy, one in frame[frame["by"] == by].groupby("policy", sort=False):
            share = one["evictions"].cumsum() / one["evictions"].sum()
            x, y = np.append(one["value"].iloc[0], one["value"]) + first, np.append(0, share)
            style = {**styles[policy], "marker": ""}
            axes.step(x, y, where="post", label=plain_label(label_policy(policy)), **style)
            data = {"policy": label_policy(policy), "by": by, "at_or_below": x - first, "share": y}
            frames.append(pd.DataFrame(data))
        axes.set(xlabel=label, ylabel="share of evictions", ylim=(0, 1.01))
        percent_axes(axes)
        note_if_empty(axes, (frame["by"] == by).sum(), "nothing is evicted")
        log_axes(axes, "x")
        axes.xaxis.set_major_formatter("{x:,g}")
    add_legend(next((axes for axes in panels if axes.lines), panels[0]), 3)
    empty = pd.DataFrame(columns=["policy", "by", "at_or_below", "share"])
    return figure, pd.concat(frames, ignore_index=True) if frames else empty
