"""Rates of reports side by side, with the 95 % interval of each difference; requests are paired by conversation."""

import numpy as np
import pandas as pd

from kvprefix.files.paths import InputError
from kvprefix.report.comparison.differences import Beside, no_difference
from kvprefix.report.comparison.parameters import differs_in_seed_only
from kvprefix.report.comparison.read import MORE, RATES, list_modes, read_path, refuse_cut
from kvprefix.report.facts.sharing import name_mode
from kvprefix.stats.intervals import interval, judge_difference
from kvprefix.stats.paired import Counted, combine_intervals, count_blocks, draw_both

LEFT = "tokens_left.mean"
MEASURES = RATES | {LEFT: ("prompt tokens left to compute, per request", False)}
KEY = ["conversation_id", "turn"]


def compare_rates(reports):
    """Compare the rates of all modes.

    Parameters
    ----------
    reports : list of Report
        The others are compared with the first.

    Returns
    -------
    measures : dict of str to list of Beside
        Of each mode; those that no report knows are left out.
    pairs : dict of str to list of dict
        Of each mode, how each other report's requests are paired with the first's: see `pair_requests`.

    Raises
    ------
    InputError
        If no measure has a value in the first report and in another.
    """
    measures, pairs = {}, {}
    for mode in list_modes(reports):
        counted = [count_requests(one, mode) for one in reports]
        values = [_read_rates(one, mode, some) for one, some in zip(reports, counted, strict=True)]
        pairs[mode] = [pair_requests(reports[0], one, mode) for one in reports[1:]]
        against = {
            one.label: _judge(reports[0], one, mode, counted[0], counted[k], values[0], values[k], pairs[mode][k - 1])
            for k, one in enumerate(reports) if k
        }  # fmt: skip
        measures[mode] = [
            Beside(
                {"measure": label}, {one.label: some[rate] for one, some in zip(reports, values, strict=True)},
                {other: found[rate] for other, found in against.items()}, share, {"mode": mode, "rate": rate},
            )
            for rate, (label, share) in MEASURES.items() if any(some[rate] is not None for some in values)
        ]  # fmt: skip
    _need_common(measures)
    return measures, pairs


def count_requests(report, mode):
    """Return what each request of a report adds to the rates of a mode."""
    requests, blocks = report.requests[mode], report.blocks[mode]
    try:
        new, reused = count_blocks(
            requests, blocks["accesses"].to_numpy(), blocks["first_access_s"].to_numpy(), report.block_size
        )
    except ValueError as error:
        raise refuse_cut(report.folder / f"{mode}_block_metrics.csv", report.label) from error
    columns = {"prompt": requests["prompt_tokens"], "cached": requests["cached_tokens"]}
    columns |= {"blocks": requests["prompt_blocks"], "new": new, "new_reused": reused}
    columns |= {to: requests[name] for name, to in MORE.items() if name in requests and requests[name].notna().all()}
    if "with_generated_tokens.cached" in columns:
        columns["with_generated_tokens.prompt"] = columns["prompt"]
    return Counted(requests["conversation_id"].to_numpy(), pd.DataFrame(columns))


def pair_requests(first, other, mode):
    """Pair the requests of two reports by conversation and turn.

    Returns
    -------
    dict
        `report`; `conversations_common`, `conversations_only_in_first`, `conversations_only_in_report`;
        `requests_common` and among them `requests_with_equal_prompts` (of as many tokens), `requests_with_more_cached`,
        `requests_with_fewer_cached`, `requests_with_equal_cached` (tokens, in this report); and `positions` of the
        common requests in both tables, which is not for JSON.
    """
    one, two = (report.requests[mode] for report in (first, other))
    names, others = set(one["conversation_id"]), set(two["conversation_id"])
    common = len(names & others)
    one, two = (frame.assign(position=np.arange(len(frame))) for frame in (one, two))
    columns = [*KEY, "position", "prompt_tokens", "cached_tokens"]
    both = one[columns].merge(two[columns], on=KEY, suffixes=("", "_other"))
    more = (both["cached_tokens_other"] - both["cached_tokens"]).to_numpy()
    return {
        "report": other.label,
        "conversations_common": common,
        "conversations_only_in_first": len(names) - common,
        "conversations_only_in_report": len(others) - common,
        "requests_common": len(both),
        "requests_with_equal_prompts": int((both["prompt_tokens"] == both["prompt_tokens_other"]).sum()),
        "requests_with_more_cached": int((more > 0).sum()),
        "requests_with_fewer_cached": int((more < 0).sum()),
        "requests_with_equal_cached": int((more == 0).sum()),
        "positions": (both["position"].to_numpy(), both["position_other"].to_numpy()),
    }


def compare_common(reports, pairs):
    """Compare the requests that a report and the first have in common, where neither has only these.

    Returns
    -------
    list of Beside
        Of each mode and each such report, with the keys `mode`, `report` and `measure`.
    """
    found = []
    for mode in list_modes(reports):
        for other, pair in zip(reports[1:], pairs[mode], strict=True):
            both = [count_requests(reports[0], mode), count_requests(other, mode)]
            sizes = {len(one.conversations) for one in both} | {pair["requests_common"]}
            if not pair["requests_common"] or len(sizes) == 1:
                continue
            both = [one.take(positions) for one, positions in zip(both, pair["positions"], strict=True)]
            values = [one.rates() for one in both]
            judged = _judge_drawn(*both, *values, "paired", differs_in_seed_only(reports[0], other))
            for rate, (label, share) in MEASURES.items():
                if rate not in judged:
                    continue
                one = judged[rate]
                keys = {"mode": name_mode(mode), "report": other.label, "measure": label}
                of_both = {reports[0].label: values[0][rate], other.label: values[1][rate]}
                found.append(Beside(keys, of_both, {other.label: one}, share, {"mode": mode, "rate": rate}))
    return found


def _read_rates(report, mode, counted):
    """Return the rates of a mode, as the statistics state them."""
    stated = {rate: read_path(report.stats[mode], rate) for rate in RATES}
    tokens, requests = report.stats[mode]["prompt_tokens"]["total"], report.stats[mode]["requests"]
    return stated | {LEFT: (tokens - float(counted.columns["cached"].sum())) / requests if requests else None}


def _judge(first, other, mode, counted, counted_other, values, values_other, pair):
    """Return an entry of `Beside.against` per rate."""
    only = pair["conversations_only_in_first"] + pair["conversations_only_in_report"]
    how = "paired" if not only else "partly paired" if pair["conversations_common"] else "unpaired"
    seed_only = differs_in_seed_only(first, other)
    judged = _judge_drawn(counted, counted_other, values, values_other, how, seed_only)
    for rate in MEASURES:
        if rate not in judged:
            ends = [read_path(one.stats[mode], "intervals").get(rate) for one in (first, other)]
            pair_of = values[rate], values_other[rate]
            if None in (*ends, *pair_of):
                judged[rate] = no_difference("of both intervals")
            else:
                judged[rate] = judge(*pair_of, *combine_intervals(*ends, pair_of), "of both intervals", seed_only)
    return judged


def _judge_drawn(first, second, values, values_other, how, seed_only):
    """Return an entry of `Beside.against` for each rate that the requests tell."""
    drawn, judged = draw_both(first, second), {}
    few = min(len(set(one.conversations)) for one in (first, second)) < 2
    for rate in [name for name in drawn[0] if name in drawn[1] and name in MEASURES]:
        of_both = values[rate], values_other[rate]
        draws = (drawn[1][rate] - drawn[0][rate]).to_numpy()
        if any(one is None or np.isnan(one) for one in of_both) or np.isnan(draws).any():
            judged[rate] = no_difference(how)
        else:
            judged[rate] = judge(*of_both, *interval(draws), how, seed_only or few)
    return judged


def judge(first, other, low, high, how, undecided=False):
    """Return an entry of `Beside.against`; with `undecided`, a difference is neither called higher nor lower."""
    difference = other - first if not np.isclose(other, first, rtol=1e-12, atol=1e-12) else 0.0
    verdict = judge_difference([difference], low, high)
    verdict = "not separated" if undecided and verdict != "equal" else verdict
    return {"difference": difference, "low": low, "high": high, "verdict": verdict, "interval": how}


def _need_common(measures):
    """Raise InputError if nothing can be compared."""
    for some in measures.values():
        for one in some:
            first, *others = one.values.values()
            if first is not None and any(value is not None for value in others):
                return
    labels = list(next(iter(measures.values()))[0].values)
    raise InputError(f"{', '.join(labels)}: have no measure in common, so there is nothing to compare")
