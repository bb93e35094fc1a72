"""Find out what a file, a folder or a glob holds: chat traffic of any form, or a trace of tokens or block ids."""

from pathlib import Path

from kvprefix.conversations.forms import requests
from kvprefix.conversations.forms.registry import FORMS
from kvprefix.conversations.survey import Survey
from kvprefix.conversations.traffic import TrafficCounts, expected_forms, read_traffic
from kvprefix.files.compiler import load_compiler
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.progress import show_progress
from kvprefix.formats.entry import Options
from kvprefix.formats.lookup import list_sources, recognise


def inspect(source, *, progress=False):
    """Say what a source is, what it holds, and what of it would be skipped and why.

    Parameters
    ----------
    source : path-like or `bundled`
        A file, a folder or a glob.
    progress : bool

    Returns
    -------
    dict
        `kind` (`chats` or `trace`), `form`, `label` and plain JSON values about it; of chats `counts` as
        `TrafficCounts.as_dict` gives them, and what `Survey.as_dict` gives.

    Raises
    ------
    InputError
        No such file, or none of a known form.
    """
    found = _find_trace(source)
    return _inspect_trace(found, source, progress) if found else _inspect_chats(source, progress)


def _find_trace(source):
    """Return the format of a single file that is a trace of tokens or block ids, None for anything else."""
    path = resolve_input(source)
    try:
        found = recognise(path) if path.is_file() else None
    except InputError:
        return None
    return found if found and found.holds != "messages" else None


def _inspect_trace(found, source, progress):
    load_compiler()
    path = resolve_input(source)
    trace = found.read(path, Options(progress=progress))
    arrivals = trace.arrival_s
    facts = {
        "kind": "trace", "form": found.name, "label": found.label, "holds": found.holds, "requests": len(trace),
        "sessions": len(set(trace.conversation.tolist())) if found.holds == "blocks" else None,
        "span_s": float(arrivals[-1] - arrivals[0]) if len(trace) else None,
    }  # fmt: skip
    if found.holds == "blocks":
        facts |= {
            "block_size": trace.block_size, "block_accesses": len(trace.ids), "distinct_blocks": trace.n_distinct,
            "prompt_tokens": int(trace.prompt_tokens.sum()),
        }  # fmt: skip
    return facts | {"notes": list(trace.info.get("notes", []))}


def _inspect_chats(source, progress):
    counts, survey = TrafficCounts(), Survey()
    with show_progress(None, "reading", " records", shown=progress) as bar:
        for item in read_traffic(source, counts=counts):
            survey.add(item)
            bar.update(counts.records_read - bar.n)
    if survey.first is None and set(counts.skipped) <= {"not_a_conversation"} and counts.reading.cut_at_byte is None:
        known = "; ".join(one.label for one in list_sources() if one.holds != "messages")
        raise InputError(f"{source}: no record of a known form; {expected_forms()}; or a trace: {known}")
    names = [name for name, _ in counts.forms.most_common()]
    return {
        "kind": "chats",
        "form": names[0] if len(names) == 1 else names,
        "label": _name(names, survey.apis),
        "source": Path(str(source)).name,
        "counts": counts.as_dict(),
        **survey.as_dict(),
    }


def _name(names, apis):
    """Return what a source is; its requests may be of several endpoints, whatever the first one is of."""
    of_requests = {one.name for one in requests.FORMS}
    labels = ["logs of requests" if name in of_requests and len(apis) > 1 else FORMS[name].label for name in names]
    return "; ".join(dict.fromkeys(labels))
