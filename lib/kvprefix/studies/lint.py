"""What to change in prompts so that more is cached: found, estimated, and proved by a replay."""

import json

import pandas as pd

from kvprefix.explain.advice.advise import advise
from kvprefix.explain.advice.shown import hide, list_words
from kvprefix.explain.advice.tell import list_requests, tell_site
from kvprefix.explain.parts import name_requests
from kvprefix.files.escape import code_markdown, escape_markdown, one_line
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.studies.explain import open_workload
from kvprefix.studies.explain_one import AFTER, BEFORE, find_decoder
from kvprefix.studies.explain_tables import write_frame, write_json
from kvprefix.studies.table import measure_table
from kvprefix.traces.workload import Workload

NO_TEXTS = "ids say no texts, and only changed texts can be replayed; expected the log of chats or of calls"
NOTHING_BEGINS_ALIKE = "no prompt begins with a block of an earlier one: nothing is cached as it is"


def lint(data, *, outputs=False, capacity=None, name="the trace", progress=True):
    """Find what to change in the prompts of some data.

    Parameters
    ----------
    data : Explained
        With texts: chats or calls.
    outputs : bool
        Whether generated tokens are cached.
    capacity : int, optional
        Blocks of an LRU cache in which the fixes are replayed, too.
    name : str
        Of the data, for messages.
    progress : bool

    Returns
    -------
    dict
        `requests`, `prompt_tokens`, `hit_tokens`, `recoverable_tokens` (of all fixes together), `recoverable_share` of
        the prompt tokens, `estimated_tokens` behind the places where prompts part, `sites` (see `advice.tell`) and
        `notes`; with a capacity `bounded_recoverable_tokens` and `capacity_blocks`.
    pandas.DataFrame
        A row per request, see `advice.tell.list_requests`.

    Raises
    ------
    InputError
        Data that hold no texts.
    """
    if data.workload is None:
        raise InputError(f"{name}: {NO_TEXTS}")
    found = advise(
        data.workload, data.trace, data.walks, data.block_size, outputs=outputs, capacity=capacity, progress=progress
    )
    listed, prover = [*found.ranked, *found.unproved], found.trial.prover
    whole = int(found.prompt_tokens.sum())
    bodies = [prover.bodies.of(int(data.trace.rows[one.site.pair[0]])) for one in listed]
    sites = [
        tell_site(one, asked, whole, len(prover.keys), prover.list_values(one.fix))
        for one, asked in zip(listed, bodies, strict=True)
    ]
    _decode_sides(data, found, listed, sites)
    bounded = {} if capacity is None else {
        "capacity_blocks": capacity, "bounded_recoverable_tokens": sum(one.bounded_tokens for one in found.ranked)
    }  # fmt: skip
    facts = {
        "requests": len(found.hits), "prompt_tokens": whole, "hit_tokens": int(found.hits.sum()),
        "recoverable_tokens": found.recoverable_tokens, "recoverable_share": found.recoverable_tokens / max(whole, 1),
        "estimated_tokens": int(found.found.seen.sum()), **bounded, "sites": sites, "notes": _note(data, found),
    }  # fmt: skip
    return facts, pd.DataFrame(list_requests(found, name_requests(data.trace)))


def _decode_sides(data, found, listed, sites):
    """Show the tokens where two prompts part at sites of the template, which no text of a body shows."""
    for proved, site in zip(listed, sites, strict=True):
        if site["kind"] == "template":
            (i, j), decode = proved.site.pair, find_decoder(data)
            at = int(found.found.earlier.tokens[i])
            cut = [data.trace.prompt(k)[max(at - BEFORE, 0) : at + AFTER] for k in (i, j)]
            common = list_words(found.trial.prover.read_template())
            site["both_sides"] = [one_line(hide(decode(one.tolist()), common)[0]) for one in cut]
            site["example"] = site["both_sides"][0]


def _note(data, found):
    """Return what to know before the numbers are read."""
    seen, whole = int(found.found.seen.sum()), max(int(found.prompt_tokens.sum()), 1)
    at_sites = sum(site.site.estimated_tokens for site in [*found.ranked, *found.unproved])
    rest = seen - at_sites
    said = f"{rest:,} tokens ({100 * rest / whole:.1f} %) behind a place where prompts part were seen before, but no "
    quoted = [f"{said}change that was replayed wins them: text that is quoted, or too little of it"] * (rest > 0)
    left = [f"{count(found.left, 'more place')} with fewer tokens behind were not replayed"] * (found.left > 0)
    return [*data.notes(), *[NOTHING_BEGINS_ALIKE] * (not found.hits.any()), *quoted, *left]


def study_lint(workload, *, outputs=False, capacity=None):
    """Find what to change in a workload's prompts; kept like other studies.

    Parameters
    ----------
    workload : Workload
        With its parameters: their clock and seed put the requests in order.
    outputs : bool
        Whether generated tokens are cached.
    capacity : int, optional
        Blocks of an LRU cache in which the fixes are replayed, too.

    Returns
    -------
    dict
        As from `lint`.
    pandas.DataFrame
        A row per request.

    Raises
    ------
    InputError
        Sessions of block ids, which hold no texts.
    """
    if not isinstance(workload, Workload):
        raise InputError(f"{workload.dataset['path']}: {NO_TEXTS}")
    table = measure_table(workload, "lint", [outputs, capacity], measure_lint, [[(outputs, capacity)]])
    facts = json.loads(table["facts"].iloc[0])
    return facts, table.drop(columns="facts")


def measure_lint(workload, outputs, capacity):
    """Return the rows of `study_lint`, with all that is no row in the first one."""
    facts, rows = lint(open_workload(workload), outputs=outputs, capacity=capacity, progress=False)
    return rows.assign(facts=[json.dumps(facts), *[""] * (len(rows) - 1)])


def write_lint_files(facts, rows, folder):
    """Write `lint.json`, as the command prints it, and `lint_requests.csv`, a row per request."""
    write_json(facts, folder / "lint.json")
    write_frame(rows, folder / "lint_requests.csv")


def format_lint(facts):
    """Return a Markdown table of the sites, with a sentence per fix."""
    from tabulate import tabulate  # takes a tenth of a second

    whole = max(facts["prompt_tokens"], 1)
    hits, won = (f"{n:,} ({100 * n / whole:.1f} %)" for n in (facts["hit_tokens"], facts["recoverable_tokens"]))
    head = f"{count(facts['requests'], 'request')}, {whole:,} prompt tokens: {hits} cached, {won} recoverable"
    is_bounded = "capacity_blocks" in facts
    if is_bounded:
        bounded, blocks = facts["bounded_recoverable_tokens"], facts["capacity_blocks"]
        head += f"; {bounded:,} ({100 * bounded / whole:.1f} %) of a cache of {blocks:,} blocks"
    if not facts["sites"]:
        return head
    rows = [_list_cells(number, one, whole, is_bounded) for number, one in enumerate(facts["sites"], start=1)]
    headers = ["site", "kind", "where", "example", "values", "changes", "requests", "estimate", "recoverable", "share"]
    headers += ["bounded"] * is_bounded
    align = ["right", "left", "left", "left", *["right"] * (len(headers) - 4)]
    table = tabulate(rows, headers, "pipe", disable_numparse=True, colalign=align)
    fixes = [f"{number}. {escape_markdown(one['fix'])}" for number, one in enumerate(facts["sites"], start=1)]
    return "\n".join([head, "", table, "", *fixes])


def _list_cells(number, one, whole, is_bounded):
    won = one["recoverable_tokens"]
    proved = ["not proved", "\u2013"] if won is None else [f"{won:,}", f"{100 * won / whole:.1f} %"]
    bounded = one.get("bounded_recoverable_tokens")
    proved += ["not proved" if bounded is None else f"{bounded:,}"] * is_bounded
    return [
        str(number), one["kind"], escape_markdown(one["where"]), code_markdown(one["example"]).replace("|", "\\|"),
        *(f"{one[name]:,}" for name in ("values", "changes", "requests", "estimated_tokens")), *proved,
    ]  # fmt: skip
