"""Plans as JSON values, as a table to read, and as a sentence to paste."""

from dataclasses import asdict

import pandas as pd

from kvprefix.plan.choose import gain_throughput, select_different
from kvprefix.plan.setup import list_assumptions

_COLUMNS = {  # what decides first: a page shows no more of them than fit
    "replicas": "replicas", "router": "router", "dram_gib": "DRAM (GiB per replica)", "token": "token hit rate",
    "low": "95 % low", "high": "95 % high", "ttft_p50": "TTFT p50 (s)", "ttft_p90": "p90 (s)", "ttft_p99": "p99 (s)",
    "computed_per_s": "computed tokens per s", "gib": "GiB in all", "usd_per_hour": "$ per hour",
    "routing_loss": "lost to routing", "imbalance_computed": "imbalance",
    "busiest_load": "prefill load of the busiest", "gpu_load": "mean load with decoding",
}  # fmt: skip

_SHARE, _TIME = "{:.1%}", "{:,.3f}"
FORMATS = {
    "token hit rate": _SHARE, "95 % low": _SHARE, "95 % high": _SHARE, "lost to routing": _SHARE, "imbalance": "{:.2f}",
    "prefill load of the busiest": "{:.3f}", "mean load with decoding": "{:.3f}", "computed tokens per s": "{:,.0f}",
    "TTFT p50 (s)": _TIME, "p90 (s)": _TIME, "p99 (s)": _TIME, "GiB in all": "{:,.0f}", "$ per hour": "{:,.2f}",
}  # fmt: skip


def describe_plans(plans):
    """Return Plans as JSON values: what `plan.json` holds. What does not exist is None."""
    setup, best, pool = plans.setup, plans.best, plans.pool
    (base,) = list_rows(plans.base.to_frame().T)
    return {
        "kv_model": setup.kv_model, "gpu": setup.gpu, "gpus_per_replica": setup.gpus_per_replica,
        "slo_ttft": setup.slo_ttft, "slo_percentile": setup.slo_percentile, "traffic": plans.traffic,
        "seeds": plans.seeds,
        "pool": {
            "num_gpu_blocks": pool.blocks, "block_size": pool.block_size, "groups": pool.groups, "tokens": pool.tokens,
            "gib": pool.gib, "weights_gib": pool.weights_bytes * pool.gpus / 2**30,
        },
        "plans": list_rows(plans.table),
        "best": None if best is None else base, "nearest": base if best is None else None,
        "throughput_gain": None if best is None else gain_throughput(best, setup),
        "next_gpu": plans.next_gpu, "next_dram": plans.next_dram, "dram": list_rows(plans.dram),
        "break_even": list_rows(plans.break_even), "varied": list_rows(plans.varied),
        "card": asdict(setup.card), "assumptions": [one._asdict() for one in list_assumptions(setup)],
        "notes": plans.notes,
    }  # fmt: skip


def list_rows(frame):
    """Return the rows of a frame as JSON values; NaN is None."""
    return [{name: _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value):
    return None if pd.isna(value) else value.item() if hasattr(value, "item") else value


def tabulate_plans(table):
    """Return plans as a reader sees them: a row per plan; one replica behind any router is one row."""
    once = select_different(table)
    shown = once[list(_COLUMNS)].rename(columns=_COLUMNS)
    alone = (once["replicas"] == 1).to_numpy()
    return shown.assign(router=shown["router"].where(~alone, "any")).reset_index(drop=True)


def format_plans(plans):
    """Return the table of plans and the assumptions as Markdown."""
    from tabulate import tabulate  # takes a tenth of a second

    rows = tabulate_plans(plans.table)
    cells = [[_show(name, value) for name, value in row.items()] for row in rows.to_dict("records")]
    align = ["right", "left", *["right"] * (len(rows.columns) - 2)]
    table = tabulate(cells, list(rows.columns), "pipe", disable_numparse=True, colalign=align)
    assumed = [
        [one.label, one.shown, one.source, f"--{one.name.replace('_', '-')}"] for one in list_assumptions(plans.setup)
    ]
    heads = ["assumption", "value", "source", "option"]
    return f"{table}\n\n{tabulate(assumed, heads, 'pipe', disable_numparse=True)}"


def _show(name, value):
    if isinstance(value, str):
        return value
    return "-" if pd.isna(value) else FORMATS.get(name, "{:,.0f}").format(value).replace("%", " %")
