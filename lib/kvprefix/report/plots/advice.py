"""Draw what the fixes of the linter win. No numbers are made here."""

from kvprefix.files.escape import plain_label
from kvprefix.report.plots.axes import COLUMN_IN, add_legend, make_axes, percent_axes
from kvprefix.report.plots.styles import BLUE, ORANGE


def draw_fixes(steps, *, width_in=COLUMN_IN):
    """Draw the token hit rate before and after each fix, which is added to those above it. Returns (figure, data).

    Parameters
    ----------
    steps : pandas.DataFrame
        Of `facts.advice.list_steps`.
    """
    figure, axes = make_axes(width_in, 1.0 + 0.24 * len(steps))
    places = range(len(steps))
    axes.barh(places, steps["before"], 0.6, facecolor=BLUE, label="hit before")
    axes.barh(places, steps["won"], 0.6, steps["before"], facecolor=ORANGE, hatch="////", label="won by the fix")
    for place, row in zip(places, steps.to_dict("records"), strict=True):
        axes.annotate(
            f"+{100 * row['won']:.1f}", (row["before"] + row["won"], place), (3, 0), textcoords="offset points",
            va="center", fontsize=7,
        )  # fmt: skip
    axes.set(xlabel="token hit rate without a bound", xlim=(0, 1.12), ylim=(len(steps) - 0.4, -0.6))
    percent_axes(axes, x=True)
    axes.set_yticks(places, [plain_label(f"{row.fix}: {row.kind}") for row in steps.itertuples()])
    axes.grid(axis="y", visible=False)
    add_legend(axes, 2)
    return figure, steps
