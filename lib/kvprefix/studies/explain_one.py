"""One request of whatever the report takes, explained: with texts where tokens are known."""

import difflib

import numpy as np

from kvprefix.explain.request import (
    OneRequest,
    find_eviction,
    find_nearest,
    find_nearest_listed,
    read_row,
)
from kvprefix.explain.walks import cut_blocks
from kvprefix.explain.writers import find_run
from kvprefix.files.masks import mask_values
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.studies.explain import explain_misses, explain_provenance
from kvprefix.tokens.marks import SYSTEM, TEMPLATE, WRITERS

BEFORE, AFTER = 12, 24  # tokens that are shown before and after the place where two prompts part
MOST_TURNS = 12


def explain_one(data, name, *, capacity=None, policy="lru", outputs=False, mask=True):
    """Explain one request.

    Parameters
    ----------
    data : Explained
    name : str
        The request's id; of a trace of block ids its position, from 0 on.
    capacity : int, optional
        Blocks of the cache; nothing is evicted if not given.
    policy : str or Policy
    outputs : bool
        Whether generated tokens are cached.
    mask : bool
        Mask values in texts, see `files.masks`.

    Returns
    -------
    OneRequest

    Raises
    ------
    InputError
        An id that is not there: near ones are named. Otherwise as `explain_misses`.
    """
    (misses,) = explain_misses(data, [capacity], outputs=outputs, policy=policy)
    origins = explain_provenance(data, outputs=outputs, capacity=capacity, policy=policy)
    names = [str(one) for one in misses.requests["request_id"]]
    position = find_position(names, name)
    classes, trace = read_row(misses, position), data.trace
    walks = data.walks if data.has_tokens else None
    nearest = find_nearest(walks, position) if walks else find_nearest_listed(trace, position)
    eviction = None
    if capacity is not None:
        blocks = cut_blocks(walks, trace, data.block_size, outputs=outputs).list_blocks() if walks else trace
        hit, stored = (-(-sum(classes.get(one, 0) for one in some) // data.block_size) for some in (_HIT, _STORED))
        eviction = find_eviction(blocks, position, hit, stored, capacity, policy)
    texts = _read_texts(data, position, nearest, mask) if walks and nearest.request >= 0 else {}
    turns = _list_turns(misses, origins, trace.arrival_s, position)
    named = [nearest.request, *([] if eviction is None else [eviction.last, eviction.evicted_by or 0])]
    return OneRequest(
        name=name, position=position, block_size=data.block_size, prompt_tokens=int(misses.prompt_tokens[position]),
        arrival_s=float(trace.arrival_s[position]), capacity=capacity, classes=classes,
        origins={part: n for part, n in read_row(origins, position).items() if part != "uncached"},
        turns=turns[-MOST_TURNS:], earlier_turns=max(len(turns) - MOST_TURNS, 0), nearest=nearest, eviction=eviction,
        places={str(one): f"{names[one]} at {trace.arrival_s[one]:,.1f} s" for one in named if (one or 0) >= 0},
        notes=list(dict.fromkeys([*misses.notes, *origins.notes])), **texts,
    )  # fmt: skip


_HIT = ("hit",)
_STORED = ("hit", "policy", "capacity")


def find_position(names, name):
    """Return where a request stands; raise InputError with near ids if it does not.

    >>> find_position(["c0t0", "c1t0"], "c1t0")
    1
    """
    if name in names:
        return names.index(name)
    starts = (name.lower(), name.lower()[: max(len(name) - 1, 1)])
    begins = ([one for one in names if one.lower().startswith(start)] for start in starts)
    near = next(filter(None, begins), [])[:3] or difflib.get_close_matches(name, names, 3)
    said = f"; near ones: {', '.join(near)}" if near else f"; the first one is {names[0]}" if names else ""
    raise InputError(f"request {name!r} is not among the {count(len(names), 'request')}{said}")


def _list_turns(misses, origins, arrival_s, position):
    """Return the requests of the conversation up to this one."""
    columns, hits = misses.requests, origins.hit_tokens
    same = np.flatnonzero(origins.requests["conversation_index"] == origins.requests["conversation_index"][position])
    return [
        {
            "request_id": str(columns["request_id"][k]), "turn": int(columns["turn"][k]),
            "arrival_s": float(arrival_s[k]), "prompt_tokens": int(misses.prompt_tokens[k]), "hit_tokens": int(hits[k]),
        }
        for k in same[same <= position]
    ]  # fmt: skip


def _read_texts(data, position, nearest, mask):
    """Return where a prompt and the nearest earlier one part, and the texts there, by the fields of OneRequest."""
    trace, at = data.trace, nearest.tokens
    here = trace.prompt(position)
    there = np.concatenate((trace.prompt(nearest.request), trace.generated(nearest.request)))
    decode = find_decoder(data)
    cut = [here[max(at - BEFORE, 0) : at], here[at : at + AFTER], there[at : at + AFTER]]
    texts = [decode(one.tolist()) for one in cut]
    before, here_text, there_text = map(mask_values, texts) if mask and data.workload else texts
    where = "the whole prompt was there before" if at >= len(here) else _say_place(data, position, at)
    ends = "" if at < len(there) else "the earlier prompt and its reply end here"
    return {"where": where, "before": before, "here": here_text, "there": there_text or ends}


def _say_place(data, position, at):
    """Say in which message of a prompt a token lies."""
    of, row = data.writers, data.trace.rows[position]
    run = find_run(at, row, of.parent, of.shared, of.firsts, of.stops)
    number, writer = int(of.numbers[run]), of.writers[run]
    if writer != TEMPLATE and not of.is_text[run] and data.said is not None and of.is_known[row]:
        what = "the tools or another text beside the messages" if writer == SYSTEM else "what follows a text"
        return f"in {what}, {f'behind message {number}' if number else 'first'}"
    if writer == TEMPLATE:
        return f"in what the template writes {f'behind message {number}' if number else 'first'}"
    return f"in message {number} ({WRITERS[writer]})" if data.said is not None else f"at token {at:,}"


def find_decoder(data):
    """Return what makes a text of token ids; the ids themselves if no tokenizer is known."""
    if data.workload is None:
        return lambda ids: " ".join(map(str, ids))
    from kvprefix.tokens.tokenizer import load_decoder

    return load_decoder(data.workload.source.tokenizer)
