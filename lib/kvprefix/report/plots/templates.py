"""Draw what templates cost: the computed tokens of each behaviour. No numbers are made here."""

import numpy as np

from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import COLUMN_IN, add_legend, make_axes
from kvprefix.report.plots.styles import BLUE, LIGHT_BLUE, ORANGE

GAP = 0.6  # between the behaviours of one reference and those of the next
LOOKS = {
    "alone": {"label": "prompts cached", "facecolor": LIGHT_BLUE, "hatch": "////"},
    "computed": {"label": "replies cached too", "facecolor": BLUE},
}  # fmt: skip


def draw_templates(rows, *, width_in=COLUMN_IN):
    """Draw computed tokens per request by behaviour, and how many times the reference's. Returns (figure, data).

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `facts.templates.pair_behaviours`: a reference stands before what is compared with it.
    """
    figure, axes = make_axes(width_in, 0.8 + 0.27 * len(rows))
    begins = rows["reference"] != rows["reference"].shift()
    places = np.arange(len(rows)) + GAP * (np.cumsum(begins.to_numpy()) - 1)
    for shift, (name, look) in zip((-0.2, 0.2), LOOKS.items(), strict=True):
        axes.barh(places + shift, rows[name], 0.4, linewidth=0.4, **look)
    ends = np.abs(rows[["computed_low", "computed_high"]].T.to_numpy() - rows["computed"].to_numpy())
    axes.errorbar(rows["computed"], places + 0.2, xerr=ends, fmt="none", ecolor=ORANGE, elinewidth=1.2)
    for place, row in zip(places, rows.to_dict("records"), strict=True):
        if row["label"] != row["reference"]:
            axes.annotate(
                f"×{row['ratio']:.2f}", (max(row["computed_high"], row["alone"]), place), (3, 0),
                textcoords="offset points", va="center", fontsize=7,
            )  # fmt: skip
    axes.set_yticks(places, [plain_label(one) for one in rows["label"]])
    axes.set(xlabel="computed tokens per request", ylim=(places.max(initial=0) + 0.6, -0.6))
    axes.set_xlim(0, 1.2 * max(rows[["computed_high", "alone"]].max().max(), 1))
    axes.grid(axis="y", visible=False)
    add_legend(axes, 2)
    return figure, rows
