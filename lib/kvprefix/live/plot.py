"""Draw the live check: predicted against measured cached tokens."""

import numpy as np
from matplotlib.ticker import FuncFormatter

from kvprefix.files.words import count
from kvprefix.report.plots.axes import PAGE_IN, add_legend, make_axes, note_if_empty

_LOOK = {
    "agrees": {"label": "agrees", "color": "#10507A", "marker": "o", "s": 14},
    "differs": {"label": "differs", "color": "#E08A00", "marker": "x", "s": 22},
}


def draw_predicted_measured(frame, *, width_in=PAGE_IN):
    """Draw each request's predicted and measured cached tokens, and their sums over the requests.

    Parameters
    ----------
    frame : pandas.DataFrame
        Of `compare.compare_recording`.

    Returns
    -------
    figure, data
        `data` has the rows that could be compared.
    """
    data = frame[frame["status"].isin(list(_LOOK))].drop(columns="ttft_s").reset_index(drop=True)
    figure, (left, right) = make_axes(width_in, 2.6, 2)
    predicted, measured = (data[f"{name}_cached_tokens"].fillna(0).to_numpy(int) for name in ("predicted", "measured"))
    most = max(1, predicted.max(initial=0), measured.max(initial=0))
    left.plot([0, most], [0, most], color="#999999", linewidth=0.8)
    for status, look in _LOOK.items():
        chosen = (data["status"] == status).to_numpy()
        if chosen.any():
            label = f"{look['label']} ({count(int(chosen.sum()), 'request')})"
            left.scatter(predicted[chosen], measured[chosen], alpha=0.6, linewidths=0.8, **{**look, "label": label})
    left.set(xlabel="predicted cached tokens of a request", ylabel="measured cached tokens")
    n = np.arange(1, len(data) + 1)
    look = {"color": "#10507A", "linewidth": 2.4, "alpha": 0.5, "label": "measured, summed up"}
    right.step(n, measured.cumsum(), where="post", **look)
    look = {"color": "#222222", "linewidth": 0.8, "linestyle": (0, (4, 1.5)), "label": "predicted, summed up"}
    right.step(n, predicted.cumsum(), where="post", **look)
    right.set(xlabel="requests in the order sent", ylabel="cached tokens, sum")
    for axis in (left.xaxis, left.yaxis, right.xaxis, right.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    for axes in (left, right):
        note_if_empty(axes, len(data), "no request could be compared")
    add_legend(left, 2)
    right.legend(loc="upper left", fontsize=7, frameon=False)
    return figure, data
