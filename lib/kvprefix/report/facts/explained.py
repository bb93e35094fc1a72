"""Where hits come from and why the rest is missed: tables and facts of origins, of causes, and of one request."""

import numpy as np
import pandas as pd

from kvprefix.report.facts.plain import gives_facts
from kvprefix.report.labels import LABELS, UNCACHED
from kvprefix.stats.intervals import move_interval

AT, SMALL, LARGE = 50, 500, 5  # parts of all distinct blocks whose nearest capacities are told of
WORTH = 0.01  # of the prompt tokens: a cause that the first page names
FEW = 0.0005  # of the prompt tokens: less reads as 0.0 %


def choose_sizes(table):
    """Return the three capacities of a study's table that are told of, from small to large, and 0 for no bound."""
    sizes = np.sort(table["capacity_blocks"].unique())
    bounded = sizes[sizes > 0]
    wanted = bounded.max() / np.array([SMALL, AT, LARGE])
    near = [int(bounded[np.abs(np.log(bounded / one)).argmin()]) for one in wanted]
    return [*dict.fromkeys(near), 0]


def average_parts(table):
    """Return the mean over seeds of a study's rows: `capacity_blocks`, `part`, `share`, `low`, `high`, `tokens`.

    The ends are those of the first seed, moved to the mean.
    """
    rows = []
    for (blocks, part), one in table.groupby(["capacity_blocks", "part"], sort=False):
        mean, first = one["token"].mean(), one.dropna(subset="low")
        low, high = np.nan, np.nan
        if len(first):
            low, high = move_interval(*(first[name].iloc[0] for name in ("low", "high", "token")), mean)
        rows.append({"capacity_blocks": blocks, "part": part, "share": mean, "low": low, "high": high,
                     "tokens": one["tokens"].mean()})  # fmt: skip
    return pd.DataFrame(rows)


def tabulate_parts(table, what, requests):
    """Tabulate origins or causes at the capacities that are told of; `what` is the heading of the parts.

    No blocks: nothing is evicted.
    """
    mean = average_parts(table)
    frames = [mean[mean["capacity_blocks"] == size] for size in choose_sizes(table)]
    shown = pd.concat(frames, ignore_index=True)
    there = shown.groupby("part")["tokens"].transform("sum") > 0
    shown = shown[there | shown["part"].isin(["hit", "cold", UNCACHED])]
    return pd.DataFrame({
        "blocks": shown["capacity_blocks"].where(shown["capacity_blocks"] > 0),
        what: shown["part"].map(LABELS), "share of prompt tokens": shown["share"], "95 % low": shown["low"],
        "95 % high": shown["high"], "tokens per request": shown["tokens"] / requests,
    }).reset_index(drop=True)  # fmt: skip


@gives_facts
def facts_origins(table, found, kind):
    """Return where cached tokens come from: without a bound, and at the capacity near the memory at hand.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `study_origins`.
    found : Provenance or ListedProvenance
        Of the first draw without a bound.
    kind : str
        What the groups of requests are: conversations or sessions.
    """
    said, hit = found.as_dict(), max(int(found.hit_tokens.sum()), 1)
    return {
        "kind": kind, "sizes": _tell(table, UNCACHED),
        "holders": {name: n / hit for name, n in said["holders_tokens"].items()},
        "writers": {name: n / hit for name, n in said.get("writers_tokens", {}).items()},
        "hit_tokens": int(found.hit_tokens.sum()), "notes": found.notes,
    }  # fmt: skip


def _tell(table, rest):
    """Return for each capacity that is told of its `blocks` (None: no bound), what is `hit`, and the other `parts`.

    `rest` is the part that is not hit, or the one that is. `shown` are the names of parts that are more than nothing,
    the largest first.
    """
    mean, told = average_parts(table), []
    for size in choose_sizes(table):
        rows = mean[mean["capacity_blocks"] == size].set_index("part")[["share", "low", "high"]]
        parts = rows.to_dict("index")
        hit = parts.pop(rest)
        if rest == UNCACHED:
            hit = {"share": 1 - hit["share"], "low": 1 - hit["high"], "high": 1 - hit["low"]}
        shown = sorted((name for name in parts if parts[name]["share"] >= FEW), key=lambda name: -parts[name]["share"])
        told.append({"blocks": size or None, "hit": hit, "parts": parts, "shown": shown})
    return told


@gives_facts
def facts_causes(table, with_replies, found, block_size, kind):
    """Return why tokens are missed, and what caching replies changes; `with_replies` is None if none are known.

    Parameters
    ----------
    table, with_replies : pandas.DataFrame
        Of `study_causes`, prompts only and with replies cached.
    found : Misses
        Of one draw.
    block_size : int
    kind : str
    """
    sizes, paired, others = _tell(table, "hit"), [], []
    if with_replies is not None:  # on the draws that both have
        seeds = set(table["seed"]) & set(with_replies["seed"])
        paired, others = (_tell(one[one["seed"].isin(seeds)], "hit") for one in (table, with_replies))
    inside = table.loc[(table["capacity_blocks"] == 0) & (table["part"] == "sub_block_inside"), "tokens"]
    replies = [
        {"blocks": one["blocks"], "without": one["hit"]["share"], "with": other["hit"]["share"],
         "points": 100 * (other["hit"]["share"] - one["hit"]["share"])}
        for one, other in zip(paired, others, strict=True)
    ]  # fmt: skip
    return {
        "kind": kind, "block_size": block_size, "sizes": sizes, "replies": replies,
        "inside": inside.mean() / len(found) if len(inside) else None,
        "notes": found.notes, "lowers": None if with_replies is None else _find_lower(table, with_replies),
    }  # fmt: skip


def _find_lower(table, with_replies):
    """Return the largest capacity at which all draws hit less with replies cached; None if there is none."""
    hits = [
        one[(one["part"] == "hit") & (one["capacity_blocks"] > 0)].set_index(["capacity_blocks", "seed"])["token"]
        for one in (table, with_replies)
    ]  # fmt: skip
    lower = (hits[1] < hits[0].reindex(hits[1].index)).groupby("capacity_blocks").all()
    return max(lower.index[lower], default=None)


@gives_facts
def facts_turns(table, rest, kind):
    """Return the shares of prompt tokens of the first requests of conversations, and of the later ones.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `studies.explain_tables.tabulate_turns`.
    rest : str
        The part that is not hit, or is.
    kind : str
    """
    classes = []
    for turn, rows in table.groupby("from_turn"):
        parts = dict(zip(rows["part"], rows["token"], strict=True))
        hit = 1 - parts.pop(rest) if rest == UNCACHED else parts.pop(rest)
        classes.append({"from_turn": turn + 1, "requests": rows["requests"].iloc[0], "hit": hit, "parts": parts})
    return {"kind": kind, "classes": classes}


def pick_request(found, most=8192):
    """Return the position of the request with the most causes, and of these the one that lost most to evictions.

    Parameters
    ----------
    found : Misses
    most : int
        Tokens of its prompt, or the median prompt's if that has more.

    Returns
    -------
    int
    """
    lost = found.part("policy") + found.part("capacity")
    causes, fits = (found.tokens > 0).sum(axis=1), found.prompt_tokens <= max(most, np.median(found.prompt_tokens))
    return int(np.lexsort((lost, causes, fits))[-1])


def list_strips(found, position, most=8):
    """Return the last requests of a request's conversation up to it: each one's name, and its tokens by class."""
    groups, names = found.requests["conversation_index"], found.requests["request_id"]
    same = np.flatnonzero(groups == groups[position])
    return [
        (str(names[k]), dict(zip(found.names, found.tokens[k].tolist(), strict=True)))
        for k in same[same <= position][-most:]
    ]  # fmt: skip


@gives_facts
def facts_request(one):
    """Return what a `OneRequest` says, without its texts."""
    eviction, near = one.eviction, one.nearest.request >= 0
    return {
        "name": one.name, "prompt_tokens": one.prompt_tokens, "blocks": one.capacity, "turns": len(one.turns),
        "classes": [{"part": name, "tokens": n} for name, n in one.classes.items() if n],
        "nearest": one.places[str(one.nearest.request)] if near else None, "alike": one.nearest.tokens,
        "where": one.where or None,
        "eviction": None if eviction is None else {
            "block": eviction.block, "last": one.places[str(eviction.last)], "missed_by": eviction.missed_by,
            "evicted_by": one.places.get(str(eviction.evicted_by)),
        },
    }  # fmt: skip


def tell_origin(facts):
    """Return of the facts of origins where cached tokens come from without a bound; None if all are of own turns."""
    sizes = facts and facts["sizes"]
    return sizes[-1] if sizes and set(sizes[-1]["shown"]) - {"own_turns"} else None


def tell_causes(facts):
    """Return of the facts of causes those of a percent or more at the capacity near the memory at hand, or None."""
    bounded = [one for one in facts["sizes"] if one["blocks"] is not None] if facts else []
    if not bounded:
        return None
    at = bounded[min(1, len(bounded) - 1)]
    shown = [name for name in at["shown"] if at["parts"][name]["share"] >= WORTH]
    return {**at, "missed": 1 - at["hit"]["share"], "shown": shown} if shown else None
