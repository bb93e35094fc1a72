"""What a reader should know before the numbers of a plan."""

from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.plan.measure import find_block_size

FEW = 100  # requests, below which one of them decides the p99


def check_fit(frame, traffic, setup):
    """Raise InputError if no prompt fits."""
    if frame["never_fit"].min() == len(traffic):
        tokens = int(setup.pool(find_block_size(traffic)).tokens * setup.pool_share)
        raise InputError(
            f"no prompt fits into a replica's pool of {tokens:,} tokens; the shortest has "
            f"{count(int(traffic.prompts.min()), 'token')}; expected more GPUs per replica or a larger card"
        )


def list_notes(traffic, setup, table, best):
    """Return what a reader should know before the numbers."""
    pool = setup.pool(find_block_size(traffic))
    notes = _note_hits(traffic, setup, pool)
    if len(traffic) > 1 and not traffic.steady_s:
        notes.append("half of the requests or more come at one moment: times are those of such a crowd, without rates")
    never = int(table["never_fit"].max())
    if never:
        left = 100 - setup.slo_percentile
        fails = f"; the aim leaves {left} %, so no plan keeps it" if 100 * never > left * len(traffic) else ""
        notes.append(
            f"{count(never, 'prompt')} of {len(traffic):,} never fit into a replica's pool: a server refuses them, and "
            f"they count nowhere else{fails}; more GPUs per replica hold longer prompts"
        )
    size = traffic.blocks.block_size
    small = [gib for gib in setup.dram if setup.count_blocks(gib, size) * size <= pool.tokens]
    notes += [
        f"{gib:,g} GiB of DRAM hold no more than the pool of a replica ({pool.gib:,.1f} GiB) and add nothing: each "
        "block goes there when it is computed" for gib in small if _adds_nothing(table, gib)
    ]  # fmt: skip
    if len(traffic) < FEW:
        few = count(len(traffic), "request", "requests")
        notes.append(f"{few} of {FEW} that a p99 takes at least: here it is little else than the longest time")
    running = traffic.count_running()
    most = pool.tokens * int(table["replicas"].max() if best is None else best["replicas"])
    if running and running > most / 2:
        notes.append(
            f"running requests hold {running:,.0f} tokens on average, {100 * running / most:.0f} % of the pools: less "
            "is left for prefixes than the replay of one request at a time assumes"
        )
    if best is not None and best["gpu_load"] >= 1:
        notes.append(
            f"with decoding the cards of the plan are busy {best['gpu_load']:.2f} seconds per second if prefill takes "
            f"{100 * setup.prefill_share:g} % of the GPU time without a cache: it needs more cards"
        )
    own_s = table[f"own_p{setup.slo_percentile}"].min()
    if best is None and own_s > setup.slo_ttft:
        notes.append(
            f"the prefill alone, without any wait, takes {own_s:.2g} s or more (p{setup.slo_percentile}): more "
            "replicas cannot keep the aim; faster cards, more GPUs per replica or shorter prompts can"
        )
    elif best is None:
        notes.append(
            "requests arrive whether or not earlier ones are answered: if users or agents wait for answers, they send "
            "later, and waits do not add up as they do here"
        )
    busiest = table.groupby("replicas")["busiest_load"].min()
    notes += [
        f"{count(n, 'replica')} cannot serve this traffic: the busiest gets {load:.2f} seconds of work per second, and "
        "its queue grows without bound: no time is given" for n, load in busiest.items() if load >= 1
    ]  # fmt: skip
    return notes + _note_bursts(table)


def _note_bursts(table):
    """Return what is to say of waits that loads do not explain."""
    waits_s = table["ttft_p50"] - table["own_p50"]
    late = table[(table["busiest_load"] < 1) & (waits_s > 1) & (waits_s > 9 * table["own_p50"])]
    if late.empty:
        return []
    one = late.loc[late["ttft_p50"].idxmax()]
    return [
        f"loads are those of the middle half of the requests, and more comes at other times: with {one['router']} and "
        f"{count(int(one['replicas']), 'replica')} half of the first tokens take {one['ttft_p50']:,.0f} s or more at a "
        f"load of {one['busiest_load']:.2f}"
    ]


def _note_hits(traffic, setup, pool):
    """Return what is to say of the hits themselves."""
    if traffic.trace is None:
        return ["the data list block ids: hits are those of LRU over these blocks, not of an engine's replay"]
    if all(one.kind == "full" for one in setup.groups(pool.block_size)):
        return []
    unit, groups = setup.find_unit(traffic.blocks.block_size), count(pool.groups, "group")
    return [
        f"{setup.model.name} has {groups} of layers, and its hits are multiples of {unit:,} tokens. What "
        "DRAM adds is an estimate: it keeps each token of all groups there, which takes more room than vLLM's "
        "retention and can be resumed more often. What routing loses is counted as if every prefix could be resumed"
    ]


def _adds_nothing(table, gib):
    """Return whether a second tier wins no hits; a small one can: replies take room in the pool, but not in DRAM."""
    rows = table[table["dram_gib"] == gib]
    return bool((rows["token"] - rows["hbm_token"] < 0.0005).all())
