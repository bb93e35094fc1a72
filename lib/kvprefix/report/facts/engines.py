"""What the engine study found: facts and tables of what each cause costs, of waits and of engines side by side.

A difference counts only if its interval (conversations resampled, 95 %) excludes zero and every seed agrees.
"""

import pandas as pd

from kvprefix.blocks.sharing import measure_hits_with_outputs, share
from kvprefix.engines.vllm import VLLM
from kvprefix.report.facts.cache import measure_spread
from kvprefix.report.facts.plain import gives_facts
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.engines import CHAIN, list_engines


@gives_facts
def facts_agreement(trace, block_size):
    """Compare the unbounded accounting with vLLM's rules in an unlimited pool, request by request."""
    counted = share(trace, block_size).hit_blocks * block_size
    with_outputs = measure_hits_with_outputs(trace, block_size) * block_size
    return {
        "requests": len(trace),
        "equal": (VLLM(block_size=block_size, outputs=False).replay(trace).hit_tokens == counted).sum(),
        "equal_with_generated": (VLLM(block_size=block_size).replay(trace).hit_tokens == with_outputs).sum(),
    }


def tabulate_chain(frame):
    """Tabulate the way from the unbounded accounting to an engine, a row per cause, for each pool."""
    return pd.concat([tabulate_cases(frame, pool, CHAIN) for pool in frame["pool"].unique()], ignore_index=True)


def tabulate_engines(frame):
    """Tabulate the engines at each pool, with the difference to the first one, vLLM's newest version."""
    cases = list_engines()
    return pd.concat([tabulate_cases(frame, pool, cases) for pool in frame["pool"].unique()], ignore_index=True)


def tabulate_cases(frame, pool, cases):
    """Tabulate cases at one pool: each one's rate, and its difference to its base."""
    rows, rates = [], frame[frame["pool"] == pool].pivot(index="seed", columns="case", values="token")
    for name, case in cases.items():
        first = frame[(frame["pool"] == pool) & (frame["case"] == name)].dropna(subset="low").iloc[0]
        low, high = move_interval(first["low"], first["high"], first["token"], rates[name].mean())
        row = {"pool (blocks)": pool, "case": case.label, "token hit rate": rates[name].mean(),
               "± sd": rates[name].std(), "95 % low": low, "95 % high": high}  # fmt: skip
        if case.base:
            step = rates[name] - rates[case.base]
            low, high = move_interval(first["step_low"], first["step_high"], step[first["seed"]], step.mean(), -1)
            verdict = judge_difference(step, low, high)
            row |= {"points": 100 * step.mean(), "low": 100 * low, "high": 100 * high, "verdict": verdict}
        else:
            row |= {"points": None, "low": None, "high": None, "verdict": "–"}
        rows.append(row)
    return pd.DataFrame(rows)


def tabulate_waits(frame):
    """Tabulate, for each pool, how requests wait for blocks if they run at once: means over the seeds."""
    overlap = frame[frame["case"] == "overlap"].groupby("pool", sort=False)
    columns = {
        "requests that waited": "waited", "mean wait (s)": "wait_mean_s", "99 % wait less than (s)": "wait_p99_s",
        "preemptions": "preemptions", "prompts that never fit": "never_fit",
    }  # fmt: skip
    table = pd.DataFrame({label: overlap[name].mean() for label, name in columns.items()})
    return table.reset_index().rename(columns={"pool": "pool (blocks)"})


@gives_facts
def facts_chain(frame):
    """Return what each cause costs or gains, from the unbounded accounting to an engine, at each pool."""
    overlap = frame[frame["case"] == "overlap"].groupby("pool")["token"].mean()
    pools = []
    for pool, one in tabulate_chain(frame).groupby("pool (blocks)", sort=False):
        steps = one.dropna(subset="points")
        pools.append({
            "blocks": pool, "start": one["token hit rate"].iloc[0], "end": one["token hit rate"].iloc[-1],
            "steps": steps[["case", "points", "verdict"]].to_dict("records"),
        })  # fmt: skip
    return {
        "seen": measure_spread(frame[frame["case"] == "seen"]["token"]),
        "causes": [{"case": case.label, "cause": case.cause} for case in CHAIN.values() if case.base],
        "pools": pools,
        "engine": list_engines()["vllm"].label,
        "overlap": [{"blocks": pool, "token_hit_rate": rate} for pool, rate in overlap.items()],
    }


@gives_facts
def facts_waits(frame):
    """Return the pools at which requests wait for blocks, and how many and how long."""
    columns = {"pool (blocks)": "blocks", "requests that waited": "waited", "mean wait (s)": "mean_s"}
    table = tabulate_waits(frame).rename(columns=columns)
    return {"pools": table.loc[table["waited"] > 0, list(columns.values())].to_dict("records")}


@gives_facts
def facts_engines(frame):
    """Return the engines side by side at equal memory, with their difference to vLLM."""
    vllm, pools = list_engines()["vllm"].label, []
    for pool, one in tabulate_engines(frame).groupby("pool (blocks)", sort=False):
        others = one[one["case"] != vllm].rename(columns={"token hit rate": "token_hit_rate"})
        pools.append({
            "blocks": pool, "token_hit_rate": one[one["case"] == vllm]["token hit rate"].item(),
            "others": others[["case", "token_hit_rate", "points", "verdict"]].to_dict("records"),
        })  # fmt: skip
    return {"engine": vllm, "pools": pools}


def choose_pools(n_distinct, block_size):
    """Return pool sizes in blocks: a 200th, a 50th, a 10th and a third of the distinct blocks, in round numbers.

    At least 8,192 tokens, so that a usual prompt fits.

    >>> choose_pools(500_000, 16)
    [2500, 10000, 50000, 170000]
    """
    least = max(2 * 4096 // block_size, 8)
    return sorted({max(int(float(f"{n_distinct / part:.2g}")), least) for part in (200, 50, 10, 3)})
