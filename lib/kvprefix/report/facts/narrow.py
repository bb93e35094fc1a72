"""The narrow forms of tables: at most five columns, for a column of a paper. Each is made of the whole table.

An estimate and its interval share a cell, percent stands in a heading, and what is left out is named under the table.
"""

import numpy as np
import pandas as pd

from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.models.cache import AVERAGE_AT
from kvprefix.report.facts.hinted import CLOSED
from kvprefix.report.facts.plain import make_plain
from kvprefix.report.rounding import number, points
from kvprefix.report.tables import Narrow
from kvprefix.report.words import WORDS

MOST_CAPACITIES = 4
MARKS = {"better": "↑ ", "higher": "↑ ", "worse": "↓ ", "lower": "↓ "}
NOTES = (
    "half", "parts", "columns", "arrows", "against", "interval", "range", "left_out", "broken", "mean_of", "sources",
    "never_fit", "closed",
)  # fmt: skip


class Estimate(float):
    """A number with what its cell says beside it: the ends of an interval, half a width, or a mark.

    >>> one = Estimate(0.5, 0.45, 0.56)
    >>> one + 0, one.low, one.high
    (0.5, 0.45, 0.56)
    """

    def __new__(cls, value, low=None, high=None, half=None, mark=""):
        """Make it of a number, which is not None."""
        made = super().__new__(cls, value)
        made.low, made.high, made.half, made.mark = low, high, half, mark
        return made


def say_notes(**facts):
    """Return the notes under a table, what the template `words/notes.txt` says of `NOTES`, as a tuple.

    >>> say_notes(interval="conversations", left_out=[40, 1000])
    ('In brackets: 95 % interval over resampled conversations.', 'Not shown: 40, 1,000 blocks.')
    """
    return tuple(WORDS.say_each("notes.txt", dict.fromkeys(NOTES) | {"against": []} | make_plain(facts)))


def show_estimate(form, factor=1):
    """Return a function that shows an `Estimate` in a format: `50.0 [45.0, 56.0]`, `50.0 ± 0.4` or `↑ 50.0`.

    >>> show_estimate(".1f", 100)(Estimate(0.5, 0.45, 0.56)), show_estimate(".1f")(Estimate(1, half=0.25))
    ('50.0 [45.0, 56.0]', '1.0 ± 0.2')
    """

    def show(value):
        shown = [number(None if one is None else factor * one, form) for one in (value, value.low, value.high)]
        text = f"{shown[0]} [{shown[1]}, {shown[2]}]" if value.low is not None else shown[0]
        return f"{value.mark}{text}{'' if value.half is None else f' ± {number(factor * value.half, form)}'}"

    return show


def _difference(value):
    """Show a difference in points, with its interval if it has one."""
    if value.low is None:
        return points(value)
    return f"{points(value)} [{number(value.low, '.2f')}, {number(value.high, '.2f')}]"


def _estimates(frame, value, low=None, high=None, half=None):
    """Return a column of `Estimate`s, None where there is no value; other columns are named."""

    def pick(row, name):
        return None if name is None or pd.isna(row[name]) else row[name]

    cells = [
        None if pd.isna(row[value]) else Estimate(row[value], pick(row, low), pick(row, high), pick(row, half))
        for row in frame.to_dict("records")
    ]  # fmt: skip
    return pd.Series([*cells, None], dtype=object)[:-1]


def narrow_lengths(frame):
    """Narrow the table of tokens per request: one column for mode and kind; total, mean, median and 95th percentile."""
    what = frame["mode"] + ", " + frame["tokens"]
    kept = ["total", "mean", "median", "p95"]
    return Narrow(pd.concat([what.rename("tokens"), frame[kept]], axis=1), dict.fromkeys(kept, "{:,.0f}"))


def narrow_comparison(frame, formats):
    """Narrow the comparison of modes: half of the interval beside each number; `formats` has one per row."""
    table = pd.DataFrame({"measure": frame["measure"]})
    for mode in frame.columns[1::2]:
        table[mode] = _estimates(frame, mode, half=f"± {mode}")
    return Narrow(table, [_beside(form) for form in formats], say_notes(half=True))


def _beside(form):
    """Return what shows a number in a format, and half of its interval without the unit."""

    def show(value):
        text = form(value) if callable(form) else form.format(value)
        if value.half is None:
            return text
        half = (form(value.half) if callable(form) else form.format(value.half)).partition(" ")[0]
        return f"{text.partition(' ')[0]} ± {half}{' %' * text.endswith('%')}"

    return show


def narrow_accountings(frame):
    """Narrow the table of accountings: rates in percent, each with half of its interval."""
    table = frame[["mode", "cached and counted"]].assign(**{
        "sharing, mean (%)": _estimates(frame, "mean sharing fraction", half="± mean"),
        "median (%)": 100 * frame["median sharing fraction"],
        "token hit rate (%)": _estimates(frame, "token hit rate", half="± rate"),
    })  # fmt: skip
    formats = dict.fromkeys(["sharing, mean (%)", "token hit rate (%)"], show_estimate(".1f", 100))
    return Narrow(table, formats | {"median (%)": "{:.1f}"}, say_notes(half=True))


def narrow_differences(frame):
    """Narrow a table of differences: what is compared, which rate, and the difference with its interval."""
    table = frame[["what", "rate"]].assign(difference=_estimates(frame, "difference", "low", "high"))
    groups = frame.groupby("against", sort=False)["what"].unique()
    against = [{"base": base, "names": list(names)} for base, names in groups.items()]
    return Narrow(table, {"difference": _difference}, say_notes(against=against, interval="conversations"))


def narrow_block_sizes(frame):
    """Narrow the table of block sizes: rates in percent, and what is lost."""
    rates = {"token hit rate (%)": "token hit rate", "mean sharing (%)": "mean sharing fraction"}
    rates |= {"block reuse (%)": "block reuse rate"}
    table = pd.DataFrame({"block size": frame["block size"], **{name: 100 * frame[one] for name, one in rates.items()}})
    table["tokens lost per request"] = frame["tokens lost per request"]
    return Narrow(table, dict.fromkeys(rates, "{:.1f}") | {"tokens lost per request": "{:.1f}"})


def narrow_equal_memory(frame):
    """Narrow the table of block sizes at equal memory: a column per memory, rates in percent with their interval."""
    table, memories = pd.DataFrame({"block size": frame["block size"]}), frame.columns[1::3]
    for name in memories:
        size = name.removeprefix("LRU, ")
        ends = frame[f"95 %, {size.removesuffix(' tokens')}"].str.split("–", expand=True).astype(float) / 100
        both = pd.DataFrame({"rate": frame[name], "low": ends[0], "high": ends[1]})
        table[size] = _estimates(both, "rate", "low", "high")
    notes = say_notes(columns="memory", interval="conversations")
    return Narrow(table, dict.fromkeys(table.columns[1:], show_estimate(".1f", 100)), notes)


def narrow_sessions(frame):
    """Narrow the table of agent sessions: total, median and the largest."""
    kept = ["total", "median", "most"]
    return Narrow(frame[["per session", *kept]], dict.fromkeys(kept, "{:,.0f}"))


def narrow_pauses(frame):
    """Narrow the table of pauses to a matrix of rates in percent: a row per pause, a column per capacity."""
    sizes = [size for size in frame["blocks"].unique() if pd.notna(size)][-3:]
    table = frame.drop_duplicates("pause")[["pause"]].reset_index(drop=True)
    for size in [*sizes, None]:
        own = frame[frame["blocks"].isna() if size is None else frame["blocks"] == size].set_index("pause")
        rates = own["token hit rate"].reindex(table["pause"]).to_numpy()
        table["unbounded" if size is None else f"{size:,.0f}"] = 100 * rates
    left_out = [int(size) for size in frame["blocks"].dropna().unique() if size not in sizes]
    notes = say_notes(columns="blocks", left_out=left_out)
    return Narrow(table, dict.fromkeys(table.columns[1:], "{:.1f}"), notes)


def narrow_widest(frame, groups="sessions"):
    """Narrow the table of policies at one capacity: the rate and the difference to LRU, with their intervals."""
    table = pd.DataFrame({
        "policy": frame["policy"], "rate (%)": _estimates(frame, "token hit rate", "95 % low", "95 % high"),
        "against LRU (points)": _estimates(frame, "against LRU", "low", "high"),
    })  # fmt: skip
    formats = {"rate (%)": show_estimate(".1f", 100), "against LRU (points)": _difference}
    return Narrow(table, formats, say_notes(interval=groups))


def narrow_needs(frame):
    """Narrow the table of capacities for shares of the unbounded rate: the range over seeds beside the mean."""
    gib = frame.columns[-1]
    table = pd.DataFrame({
        "share of unbounded": frame["share of the unbounded rate"],
        "blocks [range]": _estimates(frame, "blocks: mean", "least", "most"),
        "tokens": frame["tokens: mean"], gib: frame[gib],
    })  # fmt: skip
    return Narrow(table, {"blocks [range]": show_estimate(",.0f"), gib: "{:,.1f}"}, say_notes(range=True))


def narrow_margin(frame, groups="conversations"):
    """Narrow the table along the LRU curve: the rate with its interval over `groups`, and what a further GiB adds."""
    gib = frame.columns[2]
    table = pd.DataFrame({
        "blocks": frame["blocks"], gib: frame[gib],
        "token hit rate (%)": _estimates(frame, "token hit rate", "95 % low", "95 % high"),
        "points per further GiB": frame["points per further GiB"],
    })  # fmt: skip
    formats = {gib: "{:,.1f}", "token hit rate (%)": show_estimate(".1f", 100)}
    return Narrow(table, formats, say_notes(interval=groups))


def narrow_models(frame):
    """Narrow the table of models; their sources, and which bytes are means, are notes."""
    page = r"https://huggingface\.co/(.+)/blob/main/config\.json"
    sources = frame["source"].astype(str).str.replace(page, r"\1", regex=True).tolist()
    table = frame[["model", "attention", "bytes per token", "GiB for 95 %"]]
    return Narrow(table, {"GiB for 95 %": "{:,.1f}"}, say_notes(mean_of=AVERAGE_AT, sources=sources))


def narrow_policies(frame):
    """Narrow the table of policies to a matrix of rates in percent: a row per policy, a column per capacity."""
    return _cross(frame, "policy", "blocks", LRU.label)


def narrow_hinted(frame):
    """Narrow the table of policies with hints to a matrix: the rates of LRU and OPT, then the gap that each closes."""
    shown = frame["token hit rate"].where(frame["policy"].isin([LRU.label, OPT.label]), frame[CLOSED])
    one = frame.assign(**{"token hit rate": shown})
    order = one["policy"].map({LRU.label: 0, OPT.label: 1}).fillna(2)
    return _cross(one.iloc[np.argsort(order, kind="stable")], "policy", "blocks", LRU.label, columns=None, closed=True)


def narrow_variants(frame):
    """Narrow a table of clocks or bursts: the rate in percent, and the difference with its interval."""
    against = frame.columns[6]
    table = frame[["blocks", "variant"]].assign(**{
        "rate (%)": 100 * frame["token hit rate"], f"{against} (points)": _estimates(frame, against, "low", "high"),
    })  # fmt: skip
    return Narrow(
        table, {"rate (%)": "{:.1f}", f"{against} (points)": _difference}, say_notes(interval="conversations")
    )


def narrow_characteristic(frame):
    """Narrow the table of the characteristic time: what is simulated, and how far off the approximation is."""
    table = frame[["variant", "blocks"]].assign(**{
        "time (s)": frame["characteristic time (s)"], "simulated (%)": 100 * frame["simulated"],
        "points off": frame["points off"],
    })  # fmt: skip
    broken = frame.loc[frame["assumption"] != "holds", ["variant", "blocks"]].to_dict("records")
    formats = {"time (s)": "{:,.1f}", "simulated (%)": "{:.1f}", "points off": points}
    return Narrow(table, formats, say_notes(broken=broken))


def narrow_chain(frame):
    """Narrow the table of causes to a matrix of rates in percent: a row per cause, a column per pool."""
    return _cross(frame, "case", "pool (blocks)", "the row before")


def narrow_engines(frame):
    """Narrow the table of engines to a matrix of rates in percent: a row per engine, a column per pool."""
    return _cross(frame, "case", "pool (blocks)", frame["case"].iloc[0])


def narrow_hybrids(frame):
    """Narrow the table of hybrid models to a matrix of rates in percent: a row per case, a column per pool."""
    return _cross(frame, "case", "pool (blocks)", frame["case"].iloc[0])


def narrow_waits(frame):
    """Narrow the table of waits: all but the prompts that never fit, which are a note."""
    table = pd.DataFrame({
        "pool (blocks)": frame["pool (blocks)"], "waited (%)": 100 * frame["requests that waited"],
        "mean wait (s)": frame["mean wait (s)"], "99 % wait less (s)": frame["99 % wait less than (s)"],
        "preemptions": frame["preemptions"],
    })  # fmt: skip
    formats = {"waited (%)": "{:.1f}", "preemptions": "{:,.0f}"}
    notes = say_notes(never_fit=list(frame["prompts that never fit"]))
    return Narrow(table, formats | dict.fromkeys(["mean wait (s)", "99 % wait less (s)"], "{:.2f}"), notes)


def narrow_parts(frame):
    """Narrow a table of origins or causes to a matrix in percent: a row per part, a column per capacity."""
    what = frame.columns[1]
    table = pd.DataFrame({what: frame[what].unique()})
    for size in frame["blocks"].drop_duplicates():
        one = frame[frame["blocks"].isna() if pd.isna(size) else frame["blocks"] == size].set_index(what)
        table["unbounded" if pd.isna(size) else f"{size:,.0f}"] = 100 * one.iloc[:, 1].reindex(table[what]).to_numpy()
    return Narrow(table, dict.fromkeys(table.columns[1:], "{:.1f}"), say_notes(parts=True))


def _cross(frame, row, column, base, **notes):
    """Return a matrix of token hit rates in percent; an arrow says whether a rate is separated from its base."""
    sizes = frame[column].unique()
    kept = sizes[np.unique(np.linspace(0, len(sizes) - 1, MOST_CAPACITIES).round().astype(int))]
    table = pd.DataFrame({row: frame[row].unique()})
    for size in kept:
        one = frame[frame[column] == size].set_index(row)
        marks = one["verdict"].map(lambda verdict: MARKS.get(verdict, ""))
        rates = one["token hit rate"].reindex(table[row])
        cells = [None if pd.isna(rate) else Estimate(rate, mark=marks[name]) for name, rate in rates.items()]
        table[size if isinstance(size, str) else f"{size:,}"] = pd.Series([*cells, None], dtype=object)[:-1]
    left_out = [size for size in sizes if size not in kept]
    columns = column.replace("pool (blocks)", "blocks of the pool")
    notes = say_notes(**{"columns": columns, "arrows": base, "left_out": left_out} | notes)
    return Narrow(table, dict.fromkeys(table.columns[1:], show_estimate(".1f", 100)), notes)
