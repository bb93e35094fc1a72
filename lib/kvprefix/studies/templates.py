"""What templates cost that break caching: the same conversations under each behaviour, and what is computed of them.

Prompts have other lengths under each behaviour, so computed tokens are compared, not hit rates. The cache is
unbounded, and requests keep the times that they have without any behaviour.
"""

import json

import numpy as np
import pandas as pd

from kvprefix.blocks.sharing import limit_hits
from kvprefix.blocks.stretches import count_leading, find_paths
from kvprefix.files.paths import InputError, write_bytes
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.experiment import SessionExperiment
from kvprefix.studies.table import draw_trace, measure_table
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.traces.behaviours import BEHAVIOURS, encode_behaviour, list_told, open_workload_chat
from kvprefix.traces.trace import Trace

CONVERSATIONS = 2000  # that are rendered again: enough for intervals, and quick
MESSAGES = 500_000  # of all prompts together that are rendered under each behaviour, at most
REFERENCES = tuple(dict.fromkeys(one.reference for one in BEHAVIOURS.values()))


def find_obstacle(workload):
    """Return why a workload's templates cannot be changed; an empty text if they can."""
    if isinstance(workload, SessionExperiment):
        return "the trace lists block ids, and no template can be rendered without texts"
    if workload.messages.heads is not None:
        return "the data are calls of a server, whose prompts have tools and parts of their own"
    return ""


def study_templates(workload, *, conversations=CONVERSATIONS):
    """Measure each behaviour of templates on a workload's conversations, replies cached and not.

    Parameters
    ----------
    workload : Workload
        Of conversations of text.
    conversations : int
        The first so many are taken, or fewer if their prompts have more than MESSAGES.

    Returns
    -------
    pandas.DataFrame
        `behaviour`, `reference`, `outputs` (whether generated tokens are cached), `requests`, `conversations`,
        `prompt_tokens`, `hit_tokens`, `computed_tokens`, `token` (the hit rate), `low` and `high` (95 % interval of
        the computed tokens per request over resampled conversations), `ratio` of the computed tokens to the
        reference's with `ratio_low` and `ratio_high`, and `refused`: why the template does not take a behaviour, whose
        numbers are then 0.

    Raises
    ------
    InputError
        A workload without texts, see `find_obstacle`.
    """
    if obstacle := find_obstacle(workload):
        raise InputError(f"templates: {obstacle}")
    rounds = [[(reference, conversations) for reference in REFERENCES]]
    return measure_table(workload, "templates", [conversations, list(BEHAVIOURS)], measure_templates, rounds)


def write_templates(table, path):
    """Write the table of `study_templates` as JSON: `conversations`, and `modes` with the tokens of each behaviour."""
    modes = {}
    for row in table.to_dict("records"):
        counts = {**{name: row[name] for name in COUNTS}, "token_hit_rate": row["token"], "times": row["ratio"]}
        found = {"refused": row["refused"]} if row["refused"] else counts
        mode = modes.setdefault(row["behaviour"], {"reference": row["reference"]})
        mode["outputs cached" if row["outputs"] else "prompts only"] = found
    content = {"conversations": int(table["conversations"].max()), "modes": modes}
    write_bytes(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def measure_templates(workload, reference, conversations):
    """Measure a reference and what is compared with it; their rows of `study_templates`."""
    trace = draw_trace(workload)
    frame = trace.requests.assign(row=trace.rows)
    frame = frame[frame["conversation_index"] < conversations].sort_values(["conversation_index", "turn"])
    frame = frame[(frame["messages"].cumsum() <= MESSAGES) | (np.arange(len(frame)) == 0)]
    told, chat = list_told(workload, frame), open_workload_chat(workload)
    names = [name for name, one in BEHAVIOURS.items() if one.reference == reference]
    rows, base = [], {}
    for name in [reference, *(one for one in names if one != reference)]:
        try:
            tokens = encode_behaviour(BEHAVIOURS[name], told, chat)
        except TemplateRefusal as refusal:
            rows += [{"behaviour": name, "outputs": flag, "refused": str(refusal)} for flag in (False, True)]
            continue
        order = np.argsort(frame.index)  # of arrival
        again = Trace(frame.iloc[order].assign(prompt_tokens=tokens.prompt_lengths()[order]), order, tokens, {})
        for flag in (False, True):
            computed = _count_computed(again, workload.parameters.block_size, flag)
            base.setdefault(flag, computed)
            rows.append({"behaviour": name, "outputs": flag, "refused": "", **_sum_up(again, computed, base[flag])})
    found = pd.DataFrame(rows).assign(reference=reference, conversations=len(told))
    return found.reindex(columns=COLUMNS).fillna(dict.fromkeys(COUNTS, 0))


COUNTS = ("requests", "prompt_tokens", "hit_tokens", "computed_tokens")
COLUMNS = [
    "behaviour", "reference", "outputs", "conversations", *COUNTS, "token", "low", "high", "ratio", "ratio_low",
    "ratio_high", "refused",
]  # fmt: skip


def _count_computed(trace, block_size, outputs):
    """Return the tokens of each prompt that no earlier request left in a block, (n_requests,) int64."""
    prompt = trace.column("prompt_tokens")
    most = limit_hits(prompt, prompt, block_size)
    return prompt - block_size * count_leading(find_paths(trace, block_size, outputs=outputs), most)


def _sum_up(trace, computed, base):
    """Return the sums of some requests and their intervals; `base` is what the reference computes of each."""
    prompt, groups = int(trace.column("prompt_tokens").sum()), trace.column("conversation_index")
    low, high = interval(bootstrap_rates(computed[:, None], np.ones(len(computed)), groups)[:, 0])
    ratio = interval(bootstrap_rates(computed[:, None], base, groups)[:, 0])
    total, of_base = int(computed.sum()), max(int(base.sum()), 1)
    return {
        "requests": len(computed), "prompt_tokens": prompt, "hit_tokens": prompt - total, "computed_tokens": total,
        "token": 1 - total / max(prompt, 1), "low": low, "high": high, "ratio": total / of_base,
        "ratio_low": ratio[0], "ratio_high": ratio[1],
    }  # fmt: skip
