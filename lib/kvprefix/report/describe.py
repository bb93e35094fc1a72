"""Describe what went in, in sentences and tables: data, method, definitions, the workload.

Every number comes from what was loaded or given, none is typed. What came out is `findings`, what it adds up to
`conclusion`.
"""

import numpy as np
import pandas as pd

from kvprefix.conversations.records import is_time_name
from kvprefix.files import words
from kvprefix.files.escape import code_markdown, escape_markdown
from kvprefix.files.paths import InputError, plain_text
from kvprefix.traces.clock import count_early_turns
from kvprefix.traces.parameters import make_entry

DEFINITIONS = """\
| word | means |
|:--|:--|
| block | B consecutive tokens from a multiple of B on; only full blocks count. Two blocks are the same if the whole token prefixes up to their ends are equal |
| sharing fraction | B · k / L of a request: k leading blocks resident when it arrives, L prompt tokens. Its mean is request-weighted and is not the token hit rate |
| token hit rate | sum of cached tokens / sum of prompt tokens (token-weighted) |
| block reuse rate | (N − U) / N: N block accesses, U distinct blocks (block-weighted) |
| blocks reused fraction | distinct blocks accessed twice or more / U |
| block hit count | accesses of a block, its first one included: 1 means never reused |
| reuse gap | seconds between consecutive accesses of one block |
| capacity | blocks that a bounded cache holds; times the block size in tokens, times the KV bytes a token of a model in GiB |
| stack distance | distinct blocks accessed since a block's last access, itself included: LRU hits if it is at most the capacity |
"""


def describe_load(dataset, tokenizer):
    """Say what was read, skipped, repaired and cut, and whether a template was missing; plain text."""
    lines = [
        f"{dataset['name']}: {words.count(dataset['records_read'], 'record')} read, {words.count(dataset['conversations'], 'conversation')} used."
    ]
    for reason, count in dataset["skipped"].items():
        lines.append(f"Skipped, {reason}: {count:,} (first: {dataset['first_skipped'][reason]}).")
    if dataset["cut_at_byte"] is not None:
        lines.append(
            f"The file is cut: it ends at byte {dataset['cut_at_byte']:,}, inside the record after the "
            f"{words.count(dataset['records_read'], 'whole one')}."
        )
    first = {name: f" (first: {case})" for name, case in dataset.get("first_repaired", {}).items()}
    repaired = [
        f"{name.replace('_', ' ')}: {count:,}{first.get(name, '')}" for name, count in dataset["repaired"].items() if count
    ]
    if repaired:
        lines.append(f"Repaired, {'; '.join(repaired)}.")
    if dataset["exact_duplicates"]:
        lines.append(f"{_say_duplicates(dataset)} (drop_duplicates skips them).")
    lines += _list_not_kept(dataset)
    if not tokenizer["has_template"]:
        lines.append(
            f"The tokenizer {tokenizer['name']} brings no chat template: the plain fallback template stands in."
        )
    return "\n".join(map(plain_text, lines))


def _say_duplicates(dataset):
    n = dataset["exact_duplicates"]
    return f"{words.count(n, 'conversation')} {'equals' if n == 1 else 'equal'} an earlier one"


def _list_not_kept(dataset):
    """Say which fields of records and messages were not kept, times apart; no lines where all were."""
    not_kept, times, others = dataset.get("not_kept", {}), [], []
    for kind in ("record", "message") if not_kept else ():
        n, fields = not_kept[f"{kind}s"], not_kept[f"{kind}_fields"]
        plural = kind if n == 1 else f"{kind}s"
        for name, count in fields.items():
            if is_time_name(name):
                times.append(f"{count:,} of {n:,} {plural} {'has' if count == 1 else 'have'} `{name}`")
            else:
                others.append(f"`{name}` of {count:,} of {n:,} {plural}")
    lines = [f"{', '.join(times)}; not used: arrivals are as the parameters say."] if times else []
    return [*lines, f"Not kept: {', '.join(others)}."] if others else lines


def describe_dataset(stats):
    """The dataset card of a report."""
    multi = stats["multi_turn"]
    parameters, dataset = multi["parameters"], multi["dataset"]
    skipped = ", ".join(f"{count:,} {escape_markdown(reason)}" for reason, count in dataset["skipped"].items()) or "none"
    repaired = (
        ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in dataset["repaired"].items() if count)
        or "nothing"
    )
    end = "is whole" if dataset["read_to_end"] else "was read as far as needed"
    if dataset["cut_at_byte"] is not None:
        end = f"is cut at byte {dataset['cut_at_byte']:,}, inside a record that is not counted"
    asked = "all" if parameters["max_conversations"] is None else f"at most {parameters['max_conversations']:,} asked for"
    return (
        f"- Data: {code_markdown(parameters['data'])} ({escape_markdown(dataset['name'])}, {dataset['bytes']:,} bytes, SHA-256 `{dataset['sha256'][:16]}…`); the file {end}.\n"
        f"- Records: {dataset['records_read']:,} read; skipped: {skipped}; {words.count(dataset['conversations'], 'conversation')} used"
        f" ({asked}).\n"
        f"- Repairs: {repaired}. {_say_duplicates(dataset)} "
        f"({'dropped' if parameters['drop_duplicates'] else 'kept'}).\n"
        f"{''.join(f'- {escape_markdown(line)}' + chr(10) for line in _list_not_kept(dataset))}"
        f"- Tokenizer: {code_markdown(parameters['tokenizer'])} (files' SHA-256 `{parameters['tokenizer_sha256'][:16]}…`), with "
        f"{'its own chat template' if parameters['tokenizer_has_template'] else 'the plain fallback template'}.\n"
        f"- Size: {words.count(multi['requests'], 'multi-turn request')} with {words.count(multi['prompt_tokens']['total'], 'prompt token')} and "
        f"{words.count(multi['output_tokens']['total'], 'generated token')}; {words.count(multi['requests_without_reply'], 'request')} "
        f"{'has' if multi['requests_without_reply'] == 1 else 'have'} no reply in the log."
    )


def state_clock(parameters, varied=()):
    """Say in few words how requests arrive, from a mapping of the parameters: for captions, plain text.

    Parameters whose names are in `varied` have no one value, and are left out.
    """
    starts, said = make_entry("arrivals", parameters), []
    if hasattr(starts, "rate") and "arrival_rate" not in varied:
        said.append(f"{starts.rate:g} conversations/s")
    if starts.in_short and "arrivals" not in varied:
        said = [f"{said[0]} ({starts.in_short})" if said else starts.in_short]
    if "clock" not in varied:
        said.append(make_entry("clock", parameters).state(varied))
    return ", ".join(said)


def describe_method(stats):
    """The methodology paragraph of a report."""
    p = stats["multi_turn"]["parameters"]
    starts, clock = make_entry("arrivals", p), make_entry("clock", p)
    turns = escape_markdown(clock.describe())
    if clock.naive:
        turns = turns.replace(clock.text, code_markdown(clock.text))
    return (
        f"Each conversation is formatted with the tokenizer's chat template. In single-turn mode it gives one request (its system message if "
        f"any, and its first user message), in multi-turn mode one request a user message, with everything before it. Conversations start "
        f"{escape_markdown(starts.describe())}; {turns}. Seed {p['seed']}. Every prompt is cut into full blocks of {words.count(p['block_size'], 'token')}, "
        f"identified by the whole token prefix up to the block's end, and looked up in an unbounded cache that was empty at first. "
        f"A hit is the leading run of resident blocks; an engine computes at least the last token, so at most floor((L - 1) / "
        f"{p['block_size']}) blocks of a prompt of L tokens hit. Generated tokens are not cached unless said."
    )


def tabulate_load(dataset):
    """Return what was read, skipped (by reason), used and repaired (by kind) as a table."""
    rows = [("records read", dataset["records_read"])]
    rows += [(f"skipped: {reason.replace('_', ' ')}", count) for reason, count in dataset["skipped"].items()]
    rows += [("conversations used", dataset["conversations"])]
    rows += [(f"repaired: {kind.replace('_', ' ')}", count) for kind, count in dataset["repaired"].items()]
    for kind in ("record", "message"):
        fields = dataset.get("not_kept", {}).get(f"{kind}_fields", {})
        rows += [(f"not kept: `{name}` of {kind}s", count) for name, count in fields.items()]
    rows += [("equal to an earlier conversation", dataset["exact_duplicates"])]
    if dataset["read_to_end"]:
        rows += [("records broken off at the file's end", int(dataset["cut_at_byte"] is not None))]
    return pd.DataFrame(rows, columns=["what", "count"])


def describe_turns(requests):
    """Say how many turns conversations have."""
    turns = requests.groupby("conversation_index").size().to_numpy()
    top = np.sort(turns)[::-1][: max(1, len(turns) // 100)]
    if len(turns) == 1:
        return f"One conversation has {words.count(len(requests), 'turn')}."
    return (
        f"{len(turns):,} conversations have {len(requests):,} turns: {turns.mean():.2f} on average, {np.median(turns):.0f} at the median, "
        f"{turns.max():,} at most. {percent((turns == 1).mean())} have a single turn and can share nothing with themselves; the longest "
        f"hundredth holds {percent(top.sum() / turns.sum())} of all requests."
    )


def describe_arrivals(traces):
    """Say how long the trace is, and how single-turn and multi-turn arrivals differ."""
    single, multi = (traces[mode].arrival_s for mode in ("single_turn", "multi_turn"))
    starts = single[-1]
    if len(single) == 1:
        said = f"The only conversation starts after {seconds(starts)}."
    elif single[0] == starts:
        said = f"All {len(single):,} conversations start at one moment, after {seconds(starts)}."
    else:
        said = (
            f"The last of {len(single):,} conversations starts after {seconds(starts)}; until then requests arrive at "
            f"{len(single) / starts:.2f} a second in single-turn mode and {(multi <= starts).sum() / starts:.2f} in multi-turn mode. "
            f"{percent((multi > starts).mean())} of the multi-turn requests come later: conversations that go on after the last one has "
            f"started."
        )
    return f"{said} The last request arrives after {seconds(multi[-1])}."


def describe_causality(trace, clock):
    """Say how many turns arrive before the reply that they answer is complete."""
    requests = trace.requests
    early = count_early_turns(requests, clock.ttft_s, clock.time_per_output_token_s)
    later = int((requests["turn"] > 0).sum())
    if not later:
        return "No conversation has a second turn."
    if not early:
        none = "The only later turn does not arrive" if later == 1 else f"None of the {later:,} later turns arrives"
        return f"{none} before the reply that it answers is complete."
    return f"**{early:,} of {words.count(later, 'later turn')} arrive before the reply that they answer is complete:** results are for comparison only."


def list_parameters(stats):
    """Return the parameters and versions of a run as a table."""
    parameters = dict(stats["multi_turn"]["parameters"])
    versions = parameters.pop("versions")
    rows = [(name, _show(value)) for name, value in parameters.items()]
    rows += [(f"version of {name}", version) for name, version in versions.items()]
    return pd.DataFrame(rows, columns=["parameter", "value"])


def check_parameters(stats, parameters):
    """Raise InputError where statistics were made with other parameters than these."""
    made = stats["multi_turn"]["parameters"]
    differing = [name for name, value in parameters.as_dict().items() if made.get(name) != value]
    if differing:
        raise InputError(
            f"the statistics in the output folder were made with another {', '.join(differing)}; "
            "run notebook 20-prefix-sharing with these parameters first"
        )


def _show(value):
    return "all" if value is None else str(value).lower() if isinstance(value, bool) else plain_text(value)


def percent(share):
    """Return a share as percent with one decimal, a dash for None.

    >>> percent(0.4059), percent(None)
    ('40.6 %', '–')
    """
    return "–" if share is None else f"{100 * share:.1f} %"


def seconds(value):
    """Return a time in the unit that reads best.

    >>> seconds(0.83), seconds(113), seconds(5400)
    ('0.83 s', '113 s', '90 min')
    """
    if value is None:
        return "–"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"
