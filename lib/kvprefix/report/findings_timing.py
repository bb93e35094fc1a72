"""Say what the timing study found, in sentences and tables: every number comes from the study's tables.

A difference is called one only where its interval (conversations resampled, 95 %) leaves zero out and every seed agrees.
"""

import numpy as np
import pandas as pd

from kvprefix.files.words import count
from kvprefix.report.describe import percent, seconds
from kvprefix.report.findings_cache import spread, state_study
from kvprefix.stats.intervals import judge_difference, move_interval

POINTS_OFF = 1.5  # points of hit rate within which the approximation is said to agree
MOST_LISTED = 8  # cases farther off are named, the farthest if they are more


def tabulate_variants(frame, capacities):
    """Tabulate every variant at some capacities: rate, spread, interval, and the difference to the last variant."""
    rows, base = [], frame["variant"].unique()[-1]
    for capacity in capacities:
        at = frame[frame["capacity_blocks"] == capacity]
        rates = at.pivot(index="seed", columns="variant", values="token")
        for name in frame["variant"].unique():
            first = at[at["variant"] == name].dropna(subset="low").iloc[0]
            gain = rates[name] - rates[base]
            low, high = move_interval(first["low"], first["high"], first["token"], rates[name].mean())
            row = {"blocks": capacity, "variant": name, "token hit rate": rates[name].mean(), "± sd": rates[name].std(),
                   "95 % low": low, "95 % high": high, f"against {base}": 100 * gain.mean()}  # fmt: skip
            low, high = move_interval(first["base_low"], first["base_high"], gain[first["seed"]], gain.mean(), -1)
            if name == base:
                rows.append(row | {"low": None, "high": None, "verdict": "–"})
            else:
                rows.append(row | {"low": 100 * low, "high": 100 * high, "verdict": judge_difference(gain, low, high)})
    return pd.DataFrame(rows)


def state_timing(workload, accesses, frame, changes):
    """Return the conditions of a study of `changes`, for captions; what they vary is read from the study's rows.

    Parameters
    ----------
    workload : Workload
    accesses : sized
        Its requests.
    frame : pandas.DataFrame
        Of `study_timing.study_timing`, or some of its rows.
    changes : dict of str to dict
        What the study was given.
    """
    own, names = workload.parameters.as_dict(), list(frame["variant"].unique())
    variants = [{**own, **changes[name]} for name in names]
    varied = [key for key in own if len({one[key] for one in variants}) > 1]
    values = {",".join(varied): names} if varied else {}
    return state_study(workload, accesses, frame, varied=values, parameters=variants[0] if variants else own)


def choose_capacities(frame, most=3):
    """Return a few of the capacities of a study's table: small, middle, large."""
    grid = np.sort(frame["capacity_blocks"].unique())
    return grid[np.unique(np.linspace(len(grid) // 4, min(3 * len(grid) // 4, len(grid) - 1), most).astype(int))]


def describe_clocks(frame, block_size, tokens=32_768):
    """What a naive clock promises and a causal one keeps, at a small cache; `frame` is a study of CLOCKS."""
    grid = np.sort(frame["capacity_blocks"].unique())
    capacity = grid[np.abs(np.log(grid * block_size / tokens)).argmin()]
    at = frame[frame["capacity_blocks"] == capacity]
    rates = at.groupby("variant")["token"].mean()
    naive, base = frame["variant"].unique()[0], frame["variant"].unique()[-1]
    if not rates[base]:
        return f"With {count(capacity, 'block')} the {base} clock hits nothing; {naive} hit {percent(rates[naive])}."
    table = tabulate_variants(frame, [capacity]).set_index("variant")
    told = ", ".join(f"{name} {percent(rates[name])} ({table.loc[name, 'verdict']})" for name in rates.index if name != base)
    looks = (
        f"A clock that lets all turns of a conversation arrive together makes this cache look {rates[naive] / rates[base]:.1f} times as good as "
        "it is, because nothing comes between the turns that would evict them."
    )
    return (
        f"With {count(capacity, 'block')} ({count(capacity * block_size, 'token')}) the {base} clock hits {spread(at[at['variant'] == base]['token'])} of the "
        f"prompt tokens; against it, {told}. {f'{looks} ' if table.loc[naive, 'verdict'] == 'higher' else ''}Without a bound the clocks agree: order decides "
        "only where blocks are evicted."
    )


def describe_rates(frame, think_s=0.0):
    """What the arrival rate does; `frame` is a study of RATES, `think_s` the median think time, 0 where there is none."""
    said = _describe_range(frame, "conversations a second")
    table, least = tabulate_variants(frame, choose_capacities(frame)), frame["variant"].iloc[0]
    if (table[table["variant"] == least]["verdict"] == "higher").any():
        said += " A higher rate puts more other requests between two turns of a conversation, so the same cache is used up sooner"
        said += "; the think time does not shrink with it." if think_s else "."
    return said


def describe_bursts(frame, think_s=0.0):
    """What bursts do; `frame` is a study of BURSTS, `think_s` the median think time, 0 where there is none."""
    said = _describe_range(frame, "coefficient of variation of the gaps between conversations' starts")
    table = tabulate_variants(frame, choose_capacities(frame))
    if not set(table["verdict"]) & {"higher", "lower"}:
        said += " None of these differences is separated from zero"
        why = ": bursts of unrelated conversations are short beside the think times that spread their turns over minutes"
        said += f"{why if think_s >= 60 and 'not separated' in set(table['verdict']) else ''}."
    return said


def _describe_range(frame, what):
    said, names = [], list(frame["variant"].unique())
    for capacity in choose_capacities(frame):
        table = tabulate_variants(frame, [capacity]).set_index("variant")
        rates = table["token hit rate"]
        verdicts = {name: table.loc[name, "verdict"] for name in names[:-1]}
        note = f"{names[0]} against {names[-1]}: {verdicts[names[0]]}"
        said.append(
            f"With {count(capacity, 'block')} the token hit rate goes from {percent(rates[names[0]])} at {names[0]} to {percent(rates[names[-1]])} at "
            f"{names[-1]} ({note})."
        )
    return f"By {what}: {' '.join(said)}"


def tabulate_characteristic(frame, capacities=None):
    """Tabulate the characteristic time and how far the approximation is off, where both could be measured."""
    first = frame.dropna(subset=["time_s", "simulated"])
    if capacities is not None:
        first = first[first["capacity_blocks"].isin(capacities)]
    return pd.DataFrame({
        "variant": first["variant"], "blocks": first["capacity_blocks"], "characteristic time (s)": first["time_s"],
        "window (s)": first["window_s"], "simulated": first["simulated"], "approximated": first["approximated"],
        "points off": 100 * (first["approximated"] - first["simulated"]),
        "independent accesses": first["independent"], "assumption": np.where(first["holds"], "holds", "does not hold"),
    }).reset_index(drop=True)  # fmt: skip


def describe_characteristic(frame):
    """Where Che's approximation agrees with the simulation, and where it does not; at all capacities of the study."""
    table = tabulate_characteristic(frame)
    if not len(table):
        if frame["simulated"].notna().any():
            return "While conversations start, fewer distinct blocks are accessed than any of these caches holds: nothing is evicted in that window."
        return "There is no window in which a characteristic time could be measured: conversations start at one moment only, or none of them fills a block meanwhile."
    holds = table["assumption"] == "holds"
    off = table["points off"].abs()
    said = []
    if holds.any():
        within = int((off[holds] <= POINTS_OFF).sum())
        said.append(
            f"Where the characteristic time is at most half of the window, {within} of {int(holds.sum())} approximated block hit rates lie within "
            f"{POINTS_OFF} points of the simulated ones; the largest difference is {off[holds].max():.2f} points."
        )
        worst = table[holds & (off > POINTS_OFF)]
        if len(worst):
            farthest = worst.loc[off[worst.index].nlargest(MOST_LISTED).sort_index().index].rename(columns={"points off": "off"})
            told = "; ".join(f"{row.variant}, {count(row.blocks, 'block')}: {row.off:+z.2f}" for row in farthest.itertuples())
            told += f"; and {len(worst) - MOST_LISTED} more" if len(worst) > MOST_LISTED else ""
            said.append(f"Further off although the time is short enough: {told}. There the load is not stationary within the window: one time is no fair mean of a changing one.")
    if (~holds).any():
        said.append(
            f"Where the time is longer than that, {count(int((~holds).sum()), 'case')}, the traffic is not stationary over it, and the difference reaches "
            f"{off[~holds].max():.2f} points."
        )
    wrong = (table["independent accesses"] - table["simulated"]).abs().max()
    said.append(
        f"Access rates alone, taken as independent, are off by up to {100 * wrong:.1f} points: a chat's blocks are accessed in a burst of turns and then never "
        "again, which no rate shows."
    )
    return " ".join(said)


def describe_survival(frame, gap_s):
    """How long a block survives, beside how soon blocks are accessed again; `frame` holds one variant."""
    first = frame.dropna(subset="time_s")
    if not len(first) or not len(gap_s):
        return "No block is accessed twice, or none is evicted: there is nothing to compare."
    rows = first.iloc[np.unique(np.linspace(0, len(first) - 1, 4).astype(int))]
    told = "; ".join(
        f"{seconds(row.time_s)} with {count(row.capacity_blocks, 'block')} ({percent((gap_s <= row.time_s).mean())} of the gaps are shorter)"
        for row in rows.itertuples()
    )
    half = np.median(gap_s)
    return f"A block that is not accessed survives {told}. Half of the gaps are {'shorter than ' if half else ''}{seconds(half)}."
