"""Tiers of caches by what is stored in them when: what `tiers` shows."""

from kvprefix.cache.cluster.rates import count_tokens
from kvprefix.cache.tiers import check_tiers, find_semantics, replay_tiers


def measure_tiers(blocks, capacities, semantics, *, looked_up=None):
    """Rate tiers of caches under several semantics.

    Parameters
    ----------
    blocks : PrefixTrace
    capacities : sequence of int
        Blocks of each tier, the fastest first.
    semantics : sequence of str or Semantics
    looked_up
        As in `cache.tiers.replay_tiers`.

    Returns
    -------
    dict
        `semantics`, by name: `tiers`, of each one `capacity`, `hit_tokens` and `token_hit`, its share of the prompt
        tokens; and `hit_tokens` and `token_hit` of all together. And `notes`.

    Raises
    ------
    InputError
        As `replay_tiers`.
    """
    found, notes, prompt = {}, [], max(int(blocks.prompt_tokens.sum()), 1)
    for one in [find_semantics(name) for name in semantics]:
        sizes = check_tiers(capacities, one)
        reached = [int(count_tokens(blocks, hits, looked_up).sum()) for hits in replay_tiers(
            blocks, sizes, one, looked_up=looked_up
        )]  # fmt: skip
        own = [after - before for before, after in zip([0, *reached], reached, strict=False)]
        tiers = [
            {"capacity": size, "hit_tokens": tokens, "token_hit": tokens / prompt}
            for size, tokens in zip(sizes, own, strict=True)
        ]
        found[one.name] = {"tiers": tiers, "hit_tokens": reached[-1], "token_hit": reached[-1] / prompt}
        notes += [
            f"{one.name}: tier {k + 1} ({sizes[k]:,} blocks) is no larger than one above it, which holds the same: it "
            f"adds {'nothing' if own[k] == 0 else f'{100 * own[k] / prompt:.2f} % of the prompt tokens'}"
            for k in range(1, len(sizes)) if one.is_superset and sizes[k] <= max(sizes[:k])
        ]  # fmt: skip
    return {"semantics": found, "notes": notes}


def format_tiers(found):
    """Return what `measure_tiers` returns as a Markdown table."""
    from tabulate import tabulate  # takes a tenth of a second

    rows = [
        [name, *(f"{100 * tier['token_hit']:.2f} %" for tier in one["tiers"]), f"{100 * one['token_hit']:.2f} %"]
        for name, one in found["semantics"].items()
    ]
    first = next(iter(found["semantics"].values()))["tiers"]
    names = [f"tier {k} ({tier['capacity']:,} blocks)" for k, tier in enumerate(first, start=1)]
    align = ["left", *["right"] * (len(names) + 1)]
    return tabulate(rows, ["semantics", *names, "together"], "pipe", disable_numparse=True, colalign=align)
