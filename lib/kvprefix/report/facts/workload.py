"""The input of a report: facts and tables of the data, the method and the workload's times."""

import numpy as np
import pandas as pd

from kvprefix.conversations.records import is_time_name
from kvprefix.files.paths import InputError, plain_text
from kvprefix.report.facts.plain import gives_facts
from kvprefix.traces.arrivals import Auto
from kvprefix.traces.clock import count_early_turns
from kvprefix.traces.parameters import make_entry
from kvprefix.traces.table import SESSION_NAMES, TABLE


@gives_facts
def facts_load(dataset, tokenizer):
    """Return what was read, skipped, repaired and cut off, and which fields were not kept."""
    slow = [name for name in tokenizer["encoder"].split(" and ") if not name.startswith("fastokens ")]
    return _take_dataset(dataset) | {
        "tokenizer": tokenizer["name"],
        "has_template": tokenizer["has_template"],
        "reference_encoder": slow[0] if slow else None,
    }


@gives_facts
def facts_dataset(stats):
    """Return the facts of the dataset card of a report: those of `facts_load`, and the parameters of the data."""
    multi = stats["multi_turn"]
    dataset = multi["dataset"]
    asked = ("data", "max_conversations", "drop_duplicates", "tokenizer", "tokenizer_sha256", "tokenizer_has_template")
    return {
        **_take_dataset(dataset),
        **{name: multi["parameters"][name] for name in asked},
        "bytes": dataset["bytes"],
        "sha256": dataset["sha256"],
        "read_to_end": dataset["read_to_end"],
        "requests": multi["requests"],
        "prompt_tokens": multi["prompt_tokens"]["total"],
        "output_tokens": multi["output_tokens"]["total"],
        "requests_without_reply": multi["requests_without_reply"],
    }


def _take_dataset(dataset):
    fields = _list_fields(dataset.get("not_kept", {}))
    repaired = _list_cases(dataset["repaired"], dataset.get("first_repaired", {}))
    return {
        "name": dataset["name"],
        "records_read": dataset["records_read"],
        "conversations": dataset["conversations"],
        "skipped": _list_cases(dataset["skipped"], dataset.get("first_skipped", {})),
        "cut_at_byte": dataset["cut_at_byte"],
        "repaired": [one for one in repaired if one["cases"]],
        "duplicates": dataset["exact_duplicates"],
        "times": [one for one in fields if is_time_name(one["name"])],
        "not_kept": [one for one in fields if not is_time_name(one["name"])],
        "log": _take_log(dataset) if "requests" in dataset else None,
    }


def _take_log(dataset):
    """Return what only logs of calls have: their requests, times, refusals, and what is uncertain in them."""
    return {
        "requests": dataset["requests"],
        "timed": dataset["requests_with_time"],
        "calls": dataset["calls"],
        "forms": [{"form": name, "files": files} for name, files in dataset["forms"].items()],
        "refused": _list_cases(dataset["refused"], dataset["first_refused"]),
        "noted": _list_cases(dataset["noted"], dataset["first_noted"]),
        "other_files": dataset["other_files"],
        "first_other": dataset["first_other"],
    }


def _list_cases(counts, first):
    return [{"what": name, "cases": cases, "first": first.get(name)} for name, cases in counts.items()]


def _list_fields(not_kept):
    """Return the fields of records and messages that were not kept, and how many of them have each field."""
    return [
        {"name": name, "cases": cases, "of": not_kept[f"{kind}s"], "kind": kind}
        for kind in ("record", "message") if not_kept
        for name, cases in not_kept[f"{kind}_fields"].items()
    ]  # fmt: skip


@gives_facts
def facts_method(stats):
    """Return the parameters of the method, and how conversations start and continue."""
    p = stats["multi_turn"]["parameters"]
    starts, clock = make_entry("arrivals", p), make_entry("clock", p)
    dataset = stats["multi_turn"].get("dataset", {})  # there is none if its notebook failed
    return {
        "calls": dataset.get("calls", 0) + dataset.get("dialogs", 0),
        "server": p["server"],
        "logged": starts.of_requests,
        "starts": starts.describe(),
        "clock": clock.text,
        "naive": clock.naive,
        "turns": clock.describe(),
        "seed": p["seed"],
        "block_size": p["block_size"],
    }


@gives_facts
def facts_turns(requests):
    """Return how many turns conversations have."""
    turns = requests.groupby("conversation_index").size().to_numpy()
    top = np.sort(turns)[::-1][: max(1, len(turns) // 100)]
    return {
        "conversations": len(turns),
        "turns": len(requests),
        "mean": turns.mean(),
        "median": np.median(turns),
        "most": turns.max(),
        "single": (turns == 1).mean(),
        "longest": top.sum() / turns.sum(),
    }


@gives_facts
def facts_arrivals(traces):
    """Return how long the trace is, and how single-turn and multi-turn arrivals differ."""
    single, multi = (traces[mode].arrival_s for mode in ("single_turn", "multi_turn"))
    starts, spread = single[-1], len(single) > 1 and single[0] != single[-1]
    return {
        "conversations": len(single),
        "starts_s": starts,
        "apart": spread,
        "single_per_s": len(single) / starts if spread else None,
        "multi_per_s": (multi <= starts).sum() / starts if spread else None,
        "later": (multi > starts).mean(),
        "last_s": multi[-1],
    }


@gives_facts
def facts_causality(trace, clock):
    """Return how many turns arrive before the reply that they answer is complete, of all later turns."""
    requests = trace.requests
    early = count_early_turns(requests, clock.ttft_s, clock.time_per_output_token_s)
    return {"later": (requests["turn"] > 0).sum(), "early": early}


@gives_facts
def facts_conversation(cached_tokens, prompt_tokens):
    """Return how much of one conversation's prompts is cached; both arrays have a value per turn."""
    return {
        "turns": len(prompt_tokens),
        "cached": cached_tokens.sum(),
        "prompt": prompt_tokens.sum(),
        "by_token": cached_tokens.sum() / prompt_tokens.sum(),
        "by_request": (cached_tokens / prompt_tokens).mean(),
    }


@gives_facts
def facts_usage(requests):
    """Return the tokens that the provider counted beside those made here, of the requests that it counted; or None.

    Parameters
    ----------
    requests : pandas.DataFrame
        Of a workload.
    """
    some = requests[requests["usage_prompt"].notna()] if "usage_prompt" in requests else requests[:0]
    return {
        "counted": len(some),
        "requests": len(requests),
        "provider": int(some["usage_prompt"].sum()) if len(some) else None,
        "cached": int(some["usage_cached"].sum()) if len(some) and some["usage_cached"].notna().any() else None,
        "here": some["prompt_tokens"].sum(),
    }


def tabulate_load(dataset):
    """Return what was read, skipped (by reason), used and repaired (by kind) as a table."""
    rows = [("records read", dataset["records_read"])]
    rows += [(f"skipped: {reason.replace('_', ' ')}", count) for reason, count in dataset["skipped"].items()]
    rows += [("conversations used", dataset["conversations"])]
    if "requests" in dataset:
        rows += [("requests refused: " + reason, count) for reason, count in dataset["refused"].items()]
        rows += [("requests used", dataset["requests"]), ("requests with a time", dataset["requests_with_time"])]
        rows += [(f"noted: {what.replace('_', ' ')}", count) for what, count in dataset["noted"].items()]
    rows += [(f"repaired: {kind.replace('_', ' ')}", count) for kind, count in dataset["repaired"].items()]
    for kind in ("record", "message"):
        fields = dataset.get("not_kept", {}).get(f"{kind}_fields", {})
        rows += [(f"not kept: `{name}` of {kind}s", count) for name, count in fields.items()]
    rows += [("equal to an earlier conversation", dataset["exact_duplicates"])]
    if dataset["read_to_end"]:
        rows += [("records broken off at the file's end", int(dataset["cut_at_byte"] is not None))]
    return pd.DataFrame(rows, columns=["what", "count"])


def list_parameters(stats, kind="tokens"):
    """Return the parameters and versions of a run as a table; of data of block ids (a `kind`), those that they heed."""
    parameters = dict(stats["multi_turn"]["parameters"])
    versions = parameters.pop("versions")
    if kind == "blocks":
        heeded = ("data", "data_sha256", "max_conversations", "block_size", "kv_model", *SESSION_NAMES)
        usual = [name for name in heeded if name.startswith("think") and parameters[name] == TABLE[name].default]
        parameters = {name: one for name, one in parameters.items() if name in heeded and name not in usual}
    rows = [(name, _show(value)) for name, value in parameters.items()]
    rows += [(f"version of {name}", version) for name, version in versions.items()]
    return pd.DataFrame(rows, columns=["parameter", "value"])


def check_parameters(stats, parameters):
    """Raise InputError if statistics were made with other parameters than these."""
    made = stats["multi_turn"]["parameters"]
    asked = parameters.describe_requests().items()
    asked = {name: value for name, value in asked if (name, value) != ("arrivals", Auto.name)}
    differing = [name for name, value in asked.items() if made.get(name) != value]
    if differing:
        raise InputError(
            f"the statistics in the output folder were made with another {', '.join(differing)}; "
            "run notebook 20-prefix-sharing with these parameters first"
        )


def _show(value):
    return "all" if value is None else str(value).lower() if isinstance(value, bool) else plain_text(value)
