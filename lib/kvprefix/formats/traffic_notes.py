"""Say in words what was read of chat traffic, what was left out, and how a server's rules changed it."""

import numpy as np

from kvprefix.files.words import count


def describe_read(counts):
    """Return what a TrafficCounts holds, a line each: what was skipped, put right, left out."""
    found = counts.as_dict()
    lines = [f"skipped: {n:,} {_plain(why)} ({found['first_skipped'][why]})" for why, n in found["skipped"].items()]
    lines += [f"repaired: {_plain(what)}: {n:,}" for what, n in found["repaired"].items() if n]
    lines += [f"noted: {_plain(what)}: {n:,} ({found['first_noted'][what]})" for what, n in found["noted"].items()]
    if found["other_files"]:
        lines.append(f"{count(found['other_files'], 'file')} of no known form (first: {found['first_other']})")
    if found["cut_at_byte"] is not None:
        lines.append(f"the file is cut at byte {found['cut_at_byte']:,}")
    for of in ("record", "message"):
        if fields := found.get("not_kept", {}).get(f"{of}_fields"):
            lines.append(f"not kept, of {of}s: {', '.join(f'{name} of {n:,}' for name, n in fields.items())}")
    return lines


def describe_skipped(counts, refused=()):
    """Return what was skipped and, of {reason: Lost}, refused, behind a colon; "" if nothing was."""
    said = [f"{n:,} {reason} ({counts.first_skipped[reason]})" for reason, n in counts.skipped.items()]
    said += [f"{lost.count:,} {reason} ({lost.place}: {lost.said})" for reason, lost in dict(refused).items()]
    return f": {'; '.join(said)}" if said else ""


def describe_tokens(rows, tokens):
    """Return what a server and a template refused, did not show, and counted otherwise than the log."""
    lines = [
        f"{count(lost.count, 'request')} refused by {_name(reason)}: {lost.said} (first: {lost.place})"
        for reason, lost in rows.refused.items()
    ]
    lines += [
        f"{count(lost.count, 'reply', 'replies')} refused by {_name(reason)}: {lost.said} (first: {lost.place})"
        for reason, lost in rows.replies_refused.items()
    ]
    lines += [
        f"{count(n, 'prompt')} with {part.replace('_', ' ')}, which the chat template does not show"
        for part, n in rows.hidden.items()
    ]
    if rows.undated:
        lines.append(f"{count(rows.undated, 'prompt')} without a time, in which the template writes a stated day")
    if rows.salted:
        lines.append(f"{count(rows.salted, 'request')} with a cache_salt: not kept, they share as if without")
    models = {call.model for call in rows.calls} - {None}
    if len(models) > 1:
        lines.append(f"{count(len(models), 'model')}: their requests share as if they were one's")
    unknown = np.flatnonzero(np.diff(tokens.output_offsets) == 0).tolist()
    if unknown:
        known = sum(bool(rows.calls[k].usage.output) for k in unknown)
        lines.append(
            f"{count(len(unknown), 'request')} without a reply in the log: no generated tokens are kept for them "
            f"({known:,} have their number)"
        )
    return lines + _compare_usage(rows.calls, tokens.prompt_lengths())


def _compare_usage(calls, prompt_tokens):
    """Say how many prompts have another number of tokens than the log counts."""
    said = [(call.usage.prompt, n) for call, n in zip(calls, prompt_tokens.tolist(), strict=True) if call.usage.prompt]
    other = sum(prompt != n for prompt, n in said)
    if not other:
        return []
    of_log, made = (sum(one) for one in zip(*said, strict=True))
    return [
        f"{count(other, 'request')} with another number of prompt tokens in the log ({of_log:,} in all) than here "
        f"({made:,}): it was made with another tokenizer or template (--tokenizer gives the right one), or does not "
        "hold all text"
    ]


def _name(reason):
    return reason if reason == "the chat template" else f"the server, {reason}"


def _plain(name):
    return name.replace("_", " ")
