"""Say what the engine study found, in sentences and tables: every number comes from the study's table.

A difference is called one only where its interval (conversations resampled, 95 %) leaves zero out and every seed agrees.
"""

import pandas as pd

from kvprefix.blocks.sharing import measure_hits_with_outputs, share
from kvprefix.engines.vllm import VLLM
from kvprefix.files.words import count
from kvprefix.report.describe import percent, seconds
from kvprefix.report.findings_cache import spread
from kvprefix.stats.intervals import judge_difference, move_interval
from kvprefix.studies.engines import CHAIN, list_engines


def describe_agreement(trace, block_size):
    """Compare the unbounded accounting with vLLM's rules in an unlimited pool, request by request."""
    counted = share(trace, block_size).hit_blocks * block_size
    with_outputs = measure_hits_with_outputs(trace, block_size) * block_size
    equal = int((VLLM(block_size=block_size, outputs=False).replay(trace).hit_tokens == counted).sum())
    equal_outputs = int((VLLM(block_size=block_size).replay(trace).hit_tokens == with_outputs).sum())
    return (
        f"With an unlimited pool and nothing generated, vLLM's rules give the cached tokens of the unbounded accounting for {equal:,} of "
        f"{count(len(trace), 'request')}; with generated tokens cached, for {equal_outputs:,}. What follows is what a bound and running requests change."
    )


def tabulate_chain(frame):
    """Tabulate the way from the unbounded accounting to an engine, a cause a row, for each pool."""
    return pd.concat([_tabulate(frame, pool, CHAIN) for pool in frame["pool"].unique()], ignore_index=True)


def tabulate_engines(frame):
    """Tabulate the engines at each pool, with the difference to the first one, vLLM's newest version."""
    cases = list_engines()
    return pd.concat([_tabulate(frame, pool, cases) for pool in frame["pool"].unique()], ignore_index=True)


def _tabulate(frame, pool, cases):
    rows, rates = [], frame[frame["pool"] == pool].pivot(index="seed", columns="case", values="token")
    for name, case in cases.items():
        first = frame[(frame["pool"] == pool) & (frame["case"] == name)].dropna(subset="low").iloc[0]
        low, high = move_interval(first["low"], first["high"], first["token"], rates[name].mean())
        row = {"pool (blocks)": pool, "case": case.label, "token hit rate": rates[name].mean(), "± sd": rates[name].std(),
               "95 % low": low, "95 % high": high}  # fmt: skip
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
    """Tabulate, for each pool, who waited for blocks when requests run at once: means over the seeds."""
    overlap = frame[frame["case"] == "overlap"].groupby("pool", sort=False)
    columns = {
        "requests that waited": "waited", "mean wait (s)": "wait_mean_s", "99 % wait less than (s)": "wait_p99_s",
        "preemptions": "preemptions", "prompts that never fit": "never_fit",
    }  # fmt: skip
    table = pd.DataFrame({label: overlap[name].mean() for label, name in columns.items()})
    return table.reset_index().rename(columns={"pool": "pool (blocks)"})


def describe_chain(frame):
    """From the unbounded accounting to an engine: what each cause costs or wins."""
    said = [
        f"Of all prompt tokens, {spread(frame[frame['case'] == 'seen']['token'])} lie in leading full blocks that an earlier request had. "
        + " ".join(f"*{case.label[0].upper() + case.label[1:]}*: {case.cause}." for case in CHAIN.values() if case.base)
    ]
    for pool, one in tabulate_chain(frame).groupby("pool (blocks)", sort=False):
        steps = one.dropna(subset="points")
        told = [
            f"{row['case']} {_points(row['points'])}{'' if row['verdict'] in ('higher', 'lower') else ' (' + row['verdict'] + ')'}"
            for _, row in steps.iterrows()
        ]
        start, end = one.iloc[0]["token hit rate"], one.iloc[-1]["token hit rate"]
        said.append(f"With {count(pool, 'block')}, {percent(start)} become {percent(end)}, in points: {', '.join(told)}.")
    return "\n\n".join([said[0], " ".join(said[1:])])


def describe_waits(frame):
    """Who waits, at which pool."""
    table = tabulate_waits(frame)
    told = [
        f"with {count(round(row['pool (blocks)']), 'block')} {percent(row['requests that waited'])} of the requests wait, "
        f"{seconds(row['mean wait (s)'])} on average"
        for row in table.to_dict("records") if row["requests that waited"] > 0
    ]  # fmt: skip
    if not told:
        return "At these pools no request waits for blocks, so waiting changes no hit."
    return f"Requests hold their blocks while they run; {'; '.join(told)}. A waiting request finds the cache as it is when it is admitted."


def describe_engines(frame):
    """Engines side by side at equal memory."""
    table, said = tabulate_engines(frame), []
    for pool, one in table.groupby("pool (blocks)", sort=False):
        rates = one.set_index("case")
        vllm = list_engines()["vllm"].label
        told = [
            f"{case} {percent(row['token hit rate'])} ({_points(row['points'])} points: {row['verdict']})"
            for case, row in rates.drop(vllm).iterrows()
        ]
        said.append(f"With {count(pool, 'block')} {vllm} hits {percent(rates.loc[vllm, 'token hit rate'])}; {'; '.join(told)}.")
    return " ".join(said)


def choose_pools(n_distinct, block_size):
    """Return pool sizes in blocks: a 200th, a 50th, a 10th and a third of the distinct blocks, in round numbers.

    At least 8,192 tokens, so that no usual prompt is refused.

    >>> choose_pools(500_000, 16)
    [2500, 10000, 50000, 170000]
    """
    least = max(2 * 4096 // block_size, 8)
    return sorted({max(int(float(f"{n_distinct / part:.2g}")), least) for part in (200, 50, 10, 3)})


def _points(value):
    text = f"{value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


