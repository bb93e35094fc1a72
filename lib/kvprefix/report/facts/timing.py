"""What the timing study found: facts and tables of clocks, rates, bursts and the characteristic time.

A difference counts only if its interval (conversations resampled, 95 %) excludes zero and every seed agrees.
"""

import numpy as np
import pandas as pd

from kvprefix.report.facts.cache import measure_spread
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.timing import LOGGED

SMALL_TOKENS = 32_768  # the small cache in which clocks differ most
POINTS_OFF = 1.5  # points of hit rate within which the approximation is said to agree
MOST_LISTED = 8  # cases farther off that are named, the farthest first chosen


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


def choose_capacities(frame, most=3):
    """Return a few of the capacities of a study's table: small, middle, large."""
    grid = np.sort(frame["capacity_blocks"].unique())
    return grid[np.unique(np.linspace(len(grid) // 4, min(3 * len(grid) // 4, len(grid) - 1), most).astype(int))]


@gives_facts
def facts_clocks(frame, block_size, tokens=SMALL_TOKENS):
    """Return the hit rates of a naive and a causal clock in a small cache; `frame` is a study of CLOCKS."""
    grid = np.sort(frame["capacity_blocks"].unique())
    capacity = grid[np.abs(np.log(grid * block_size / tokens)).argmin()]
    at = frame[frame["capacity_blocks"] == capacity]
    rates = at.groupby("variant")["token"].mean()
    naive, base = frame["variant"].unique()[[0, -1]]
    verdicts = tabulate_variants(frame, [capacity]).set_index("variant")["verdict"]
    return {
        "blocks": capacity,
        "tokens": capacity * block_size,
        "base": base,
        "logged": base == LOGGED,
        "base_token_hit_rate": measure_spread(at[at["variant"] == base]["token"]),
        "others": [
            {"variant": name, "token_hit_rate": rates[name], "verdict": verdicts[name]}
            for name in rates.index if name != base
        ],
        "naive": naive,
        "naive_token_hit_rate": rates[naive],
        "naive_verdict": verdicts[naive],
        "naive_times": rates[naive] / rates[base] if rates[base] else None,
    }  # fmt: skip


@gives_facts
def facts_rates(frame, think_s=0.0):
    """Return what the arrival rate does; `frame` is a study of RATES, `think_s` the median think time, if any."""
    found = _compare_ends(frame)
    higher = any(one["verdict"] == "higher" for one in found["capacities"])
    return found | {"first_is_higher": higher, "think_s": think_s}


@gives_facts
def facts_bursts(frame, think_s=0.0):
    """Return what bursts do; `frame` is a study of BURSTS, `think_s` the median think time, if any."""
    verdicts = set(tabulate_variants(frame, choose_capacities(frame))["verdict"])
    return _compare_ends(frame) | {
        "any_separated": bool(verdicts & {"higher", "lower"}),
        "any_open": "not separated" in verdicts,
        "think_takes_minutes": think_s >= 60,
    }


def _compare_ends(frame):
    """Return the token hit rates of the first and the last variant at a few capacities."""
    names, capacities = list(frame["variant"].unique()), []
    for capacity in choose_capacities(frame):
        table = tabulate_variants(frame, [capacity]).set_index("variant")
        rates = table["token hit rate"]
        capacities.append({
            "blocks": capacity, "first_rate": rates[names[0]], "last_rate": rates[names[-1]],
            "verdict": table["verdict"][names[0]],
        })  # fmt: skip
    return {"first": names[0], "last": names[-1], "capacities": capacities}


def tabulate_characteristic(frame, capacities=None):
    """Tabulate the characteristic time and the error of the approximation, if both could be measured."""
    first = frame.dropna(subset=["time_s", "simulated"])
    if capacities is not None:
        first = first[first["capacity_blocks"].isin(capacities)]
    return pd.DataFrame({
        "variant": first["variant"], "blocks": first["capacity_blocks"], "characteristic time (s)": first["time_s"],
        "window (s)": first["window_s"], "simulated": first["simulated"], "approximated": first["approximated"],
        "points off": 100 * (first["approximated"] - first["simulated"]),
        "independent accesses": first["independent"], "assumption": np.where(first["holds"], "holds", "does not hold"),
    }).reset_index(drop=True)  # fmt: skip


@gives_facts
def facts_characteristic(frame):
    """Return at which capacities Che's approximation agrees with the simulation, and at which it does not."""
    table = tabulate_characteristic(frame)
    if not len(table):
        return {"cases": 0, "has_window": frame["simulated"].notna().any()}
    holds, off = table["assumption"] == "holds", table["points off"].abs()
    worst = table[holds & (off > POINTS_OFF)]
    farthest = worst.loc[off[worst.index].nlargest(MOST_LISTED).sort_index().index, ["variant", "blocks", "points off"]]
    farthest = farthest.rename(columns={"points off": "points"})
    return {
        "cases": len(table),
        "short": holds.sum(),
        "short_agree": (off[holds] <= POINTS_OFF).sum(),
        "agree_points": POINTS_OFF,
        "short_most_off": off[holds].max(),
        "farthest": farthest.to_dict("records"),
        "not_listed": len(worst) - len(farthest),
        "long": (~holds).sum(),
        "long_most_off": off[~holds].max(),
        "independent_most_off": 100 * (table["independent accesses"] - table["simulated"]).abs().max(),
    }


@gives_facts
def facts_survival(frame, gap_s):
    """Return how long a block survives, and how soon blocks are accessed again; `frame` holds one variant."""
    first = frame.dropna(subset="time_s")
    if not len(first) or not len(gap_s):
        return {"capacities": []}
    rows = first.iloc[np.unique(np.linspace(0, len(first) - 1, 4).astype(int))]
    return {
        "capacities": [
            {"blocks": row.capacity_blocks, "time_s": row.time_s, "shorter_gaps": (gap_s <= row.time_s).mean()}
            for row in rows.itertuples()
        ],
        "half_gap_s": np.median(gap_s),
    }
