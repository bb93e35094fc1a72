"""The study of plans: replicas, routers and second tiers on several draws of the clock, what to take, what comes next.

Plans are measured as tasks, one per draw and number of replicas, and kept.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kvprefix.blocks.prefix_trace import PrefixTrace
from kvprefix.cache.cluster.routers import find_router
from kvprefix.files.paths import InputError
from kvprefix.files.shown import Shown
from kvprefix.files.words import count
from kvprefix.models.pool import Pool
from kvprefix.plan.choose import (
    KEYS,
    MORE_DRAM,
    average_draws,
    choose_plan,
    compare_plans,
    find_break_even,
    find_idlest,
    find_nearest,
    find_worthiest,
    select_different,
    value_dram,
)
from kvprefix.plan.measure import find_block_size, measure_cells
from kvprefix.plan.notes import check_fit, list_notes
from kvprefix.plan.setup import Setup
from kvprefix.studies.cluster import NO_SESSIONS
from kvprefix.studies.draws import FIRST_DRAWS, list_rounds
from kvprefix.studies.explain import Explained, open_tokens
from kvprefix.studies.plan_traffic import GIVEN, open_traffic
from kvprefix.studies.table import measure_table
from kvprefix.traces.trace import Trace

PLAN_VERSION = 3  # raise when the meaning of the table changes
DRAM_POINTS = 8  # sizes of DRAM at which its value is measured
VARIED = {  # what is varied, by how much: a change of the parameters, or of the setup
    "half the traffic": {"rate": 0.5}, "twice the traffic": {"rate": 2.0},
    "prefill at 30 % of the FLOPS": {"mfu": 0.3}, "prefill at 70 % of the FLOPS": {"mfu": 0.7},
    "half of the pool": {"pool_share": 0.5},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, repr=False)
class Plans(Shown):
    """Measured plans.

    Attributes
    ----------
    table : pandas.DataFrame
        Of `choose.average_draws`.
    best : pandas.Series or None
        Of `choose.choose_plan`.
    base : pandas.Series
        The best plan; if there is none, the nearest (`choose.find_nearest`).
    next_gpu, next_dram : dict
        Of `choose.compare_plans`: one replica more than `base`, and 100 GiB of DRAM more per replica.
    dram : pandas.DataFrame
        Of `choose.value_dram`, for the replicas and the router of `base`.
    break_even : pandas.DataFrame
        Of `choose.find_break_even`.
    varied : pandas.DataFrame
        `assumption`, and what would be chosen then: `replicas`, `router`, `dram_gib`, `usd_per_hour`, `token` and
        `ttft`, NaN (of the router None) if nothing would do.
    without_dram : float
        The token hit rate on the draw of `dram` without any.
    seeds : list of int
        Of the draws of `table`.
    is_engine : bool
        Whether hits are those of vLLM's replay; else, of block ids, those of LRU.
    setup : Setup
    pool : Pool
        Of one replica.
    traffic : dict
        `requests`, `prompt_tokens`, `block_size`, `requests_per_s`, `prompt_tokens_per_s`, `running_tokens`.
    notes : list of str
    """

    table: pd.DataFrame
    best: pd.Series | None
    base: pd.Series
    next_gpu: dict
    next_dram: dict
    dram: pd.DataFrame
    break_even: pd.DataFrame
    varied: pd.DataFrame
    without_dram: float
    seeds: list
    is_engine: bool
    setup: Setup
    pool: Pool
    traffic: dict
    notes: list

    def describe(self):
        """Return what is chosen in words."""
        base, setup = self.base, self.setup
        behind = "" if base["replicas"] == 1 else f" behind {base['router']}"
        aim = f"{setup.slo_percentile} % of the first tokens within {setup.slo_ttft:g} s"
        return {
            "what": f"{count(len(select_different(self.table)), 'plan')} of {setup.model.name} on {setup.card.name}",
            "aim": aim if self.best is not None else f"{aim}: no plan keeps it, and this is the nearest",
            "plan": f"{count(int(base['replicas']), 'replica')}{behind}, each with {base['dram_gib']:,g} GiB of DRAM",
            "hits": f"{100 * base['token']:.1f} % of the prompt tokens",
            "notes": "; ".join(self.notes) or "none",
        }  # fmt: skip

    def to_frame(self):
        """Return the plans, a row each."""
        return self.table.copy()


def study_plan(source, setup, replicas=None, routers=None, tiers=None, *, draws=FIRST_DRAWS, rate=1.0):
    """Measure plans on several draws of the clock.

    Parameters
    ----------
    source : Workload, SessionExperiment, Explained or Traffic
    setup : Setup
    replicas, routers, tiers : sequence, optional
        Of the setup if not given; `tiers` are GiB of DRAM per replica.
    draws : int
        The most draws; a hybrid model, whose replay costs more, has one.
    rate : float
        How many times as fast requests arrive.

    Returns
    -------
    pandas.DataFrame
        The columns of `plan.measure.measure_cells`, and `seed`.
    """
    choices = list(replicas or setup.replicas), tuple(routers or setup.routers), tuple(tiers or setup.tiers)
    if isinstance(source, GIVEN):
        return pd.concat([measure_plan(source, 0, n, setup, *choices[1:], rate) for n in choices[0]], ignore_index=True)
    pool, _ = setup.pool(source.parameters.block_size), setup.token_bytes  # read here: workers may not see the files
    known = [setup.describe_costs(), pool._asdict(), [one.label for one in setup.groups(pool.block_size)]]
    rounds = [[(seed, n, setup, *choices[1:], rate) for n in choices[0]] for seed in _list_seeds(source, pool, draws)]
    return measure_table(source, "plan", [PLAN_VERSION, *known, *map(list, choices), draws, rate], measure_plan, rounds)


def _list_seeds(source, pool, draws):
    seeds = [seed for some in list_rounds(source, draws) for seed in some]
    return seeds[:1] if pool.groups > 1 or source.parameters.make("arrivals").of_requests else seeds


def measure_plan(source, seed, replicas, setup, routers, tiers, rate):
    """Measure plans of one number of replicas on one draw; rows of `study_plan`."""
    is_own = isinstance(source, GIVEN) or seed == source.parameters.seed
    traffic = open_traffic(source, seed=seed, rate=rate)
    frame = measure_cells(traffic, setup, replicas, routers, tiers, with_intervals=is_own)
    return frame.assign(seed=seed)


def make_plans(source, setup):
    """Measure all that a plan needs, and choose.

    Parameters
    ----------
    source : Trace, PrefixTrace, Workload, SessionExperiment, Explained or Traffic
        A Workload of `load_workload`, or a SessionExperiment, is drawn several times; the others have their own times.
    setup : Setup

    Returns
    -------
    Plans

    Raises
    ------
    InputError
        A model or prompts that do not fit; routers that all need conversations, and none are known.
    """
    if isinstance(source, Trace):
        source = open_tokens(source, 16)
    elif isinstance(source, PrefixTrace):
        source = Explained(trace=source, block_size=source.block_size)
    traffic = open_traffic(source)
    source = traffic if isinstance(source, GIVEN) else source
    setup, notes = _leave_out(setup, traffic)
    frame = study_plan(source, setup)
    check_fit(frame, traffic, setup)
    table = average_draws(frame)
    best = choose_plan(table, setup)
    base = find_nearest(table, setup) if best is None else best
    replicas, own, gib = int(base["replicas"]), [str(base["router"])], float(base["dram_gib"])
    more = average_draws(study_plan(source, setup, [replicas + 1], tiers=[gib]))
    next_gpu = find_worthiest(more, setup)
    next_dram = average_draws(study_plan(source, setup, [replicas], own, [gib + MORE_DRAM])).iloc[0]
    sizes = [0.0, *_spread_dram(traffic, setup)]
    rows = average_draws(study_plan(source, setup, [replicas], own, sizes, draws=1))
    router = find_idlest(more)["router"] if replicas == 1 else base["router"]  # before one replica any is the same
    return Plans(
        table=table, best=best, base=base, next_gpu=compare_plans(base, next_gpu, setup),
        next_dram=compare_plans(base, next_dram, setup), dram=value_dram(rows, setup),
        break_even=find_break_even(setup), varied=_vary(source, setup, [router]), setup=setup,
        without_dram=float(rows["token"].iloc[0]), is_engine=traffic.trace is not None,
        seeds=frame["seed"].unique().tolist(),
        pool=setup.pool(find_block_size(traffic)), traffic=_describe(traffic),
        notes=[*traffic.notes, *notes, *list_notes(traffic, setup, table, best)],
    )  # fmt: skip


def _leave_out(setup, traffic):
    """Return the setup without routers that need conversations if none are known, and what to say of it."""
    alone = len(traffic) > 1 and len(np.unique(traffic.blocks.conversation)) == len(traffic)
    out = [one for one in setup.routers if alone and find_router(one).by_session]
    if len(out) == len(setup.routers):
        raise InputError(f"router {', '.join(out)}: {NO_SESSIONS}")
    kept = tuple(one for one in setup.routers if one not in out)
    return replace(setup, routers=kept), [f"router {one} is left out: {NO_SESSIONS}" for one in out]


def _spread_dram(traffic, setup):
    """Return sizes of DRAM in GiB at equal ratios, up to what all distinct blocks take."""
    size = traffic.blocks.block_size
    most = traffic.blocks.n_distinct / max(setup.count_blocks(1024.0, size), 1) * 1024
    return sorted({float(f"{gib:.2g}") for gib in np.geomspace(16, max(most, 32), DRAM_POINTS)})


def _vary(source, setup, routers):
    """Return what would be chosen if an assumption were another one."""
    rows = []
    for label, change in {"as assumed": {}, **VARIED}.items():
        rate = change.get("rate", 1.0)
        other = replace(setup, **{name: value for name, value in change.items() if name != "rate"})
        table = average_draws(study_plan(source, other, routers=routers, draws=1, rate=rate))
        best, time = choose_plan(table, other), f"ttft_p{setup.slo_percentile}"
        if best is None:
            rows.append({"assumption": label, "replicas": np.nan, "router": None})
        else:
            rows.append({"assumption": label, **best[[*KEYS, "usd_per_hour", "token"]], "ttft": best[time]})
    columns = ["assumption", *KEYS, "usd_per_hour", "token", "ttft"]
    return pd.DataFrame(rows).reindex(columns=columns)


def _describe(traffic):
    blocks = traffic.blocks
    return {
        "requests": len(traffic), "prompt_tokens": int(traffic.prompts.sum()), "block_size": blocks.block_size,
        "distinct_blocks": blocks.n_distinct, "requests_per_s": traffic.rate_per_s(np.ones(len(traffic))),
        "prompt_tokens_per_s": traffic.rate_per_s(traffic.prompts), "running_tokens": traffic.count_running(),
    }  # fmt: skip
