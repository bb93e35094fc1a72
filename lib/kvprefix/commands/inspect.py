"""``kvprefix inspect``: say what a file, a folder or a glob holds, and what of it can be used."""

import json

from kvprefix.commands.options import tell_lines
from kvprefix.conversations.calls import ENDPOINTS
from kvprefix.files.paths import InputError, tell
from kvprefix.files.words import count

HELP = "say what a file, a folder or a glob holds, and what of it can be used"


def add_options(parser):
    """Add what the command takes."""
    what = "chats, a log of requests, transcripts of agents or a trace"
    parser.add_argument("data", metavar="DATA", help=f"{what}: a file, a folder, a glob, or `bundled`")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of what is said (default: table)")


def call(options):
    """Read all of the data and print what it is."""
    if not options.data.strip():
        raise InputError(f"DATA is {options.data!r}; expected a file, a folder, a glob or `bundled`")
    from kvprefix.formats.inspect import inspect

    facts = inspect(options.data, progress=True)
    if options.format == "json":
        tell_lines(json.dumps(facts, indent=1, allow_nan=False))
        return
    lines = list(_say_chats(facts) if facts["kind"] == "chats" else _say_trace(facts))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        tell(f"{label:<{width}}  {text}")


def _say_trace(facts):
    """Yield (label, text) of a trace of tokens or of block ids."""
    yield "is", f"{facts['label']} (a trace of {'block ids' if facts['holds'] == 'blocks' else 'tokens'})"
    yield "requests", f"{facts['requests']:,}"
    if facts["holds"] == "blocks":
        blocks = f"{facts['distinct_blocks']:,} blocks of {facts['block_size']} tokens"
        yield "sessions", f"{facts['sessions']:,}"
        yield "blocks", f"{facts['block_accesses']:,} accesses of {blocks}"
        yield "prompts", f"{facts['prompt_tokens']:,} tokens"
    yield "times", f"over {facts['span_s']:,.3f} s" if facts["span_s"] else "none"
    for note in facts["notes"]:
        yield "note", note


def _say_chats(facts):
    """Yield (label, text) of chat traffic: what it is, what it holds, what is skipped and why."""
    counts = facts["counts"]
    files = sum(counts["forms"].values()) + counts["other_files"]
    yield "is", facts["label"]
    if files > 1:
        other = f", {counts['other_files']:,} other" if counts["other_files"] else ""
        yield "files", f"{files:,}: {_join(counts['forms'])}{other}"
    if counts["first_other"]:
        yield "", f"first other: {counts['first_other']}"
    cut = "" if counts["cut_at_byte"] is None else f"; the file is cut at byte {counts['cut_at_byte']:,}"
    yield "records", f"{counts['records_read']:,}{cut}"
    yield from _say_requests(facts)
    yield from _say_times(facts["times"])
    yield from _say_tools(facts)
    yield "usage", _say_usage(facts["usage"])
    if facts["models"]:
        yield "models", _join(facts["models"])
    yield from _say_reasons("skipped", counts["skipped"], counts["first_skipped"])
    yield from _say_reasons("note", counts["noted"], counts["first_noted"])
    yield from _say_reasons("repaired", {name: n for name, n in counts["repaired"].items() if n}, {})
    for what in ("record", "message"):
        if fields := counts.get("not_kept", {}).get(f"{what}_fields"):
            yield "not kept", f"of {what}s: {_join(fields)}"
    yield "sample", facts["sample"]


def _join(numbers):
    return ", ".join(f"{n:,} {name}" for name, n in numbers.items())


def _say_requests(facts):
    sessions, turns = facts["sessions"], facts["turns"]
    apis = ", ".join(f"{n:,} of {ENDPOINTS[api]}" for api, n in facts["apis"].items())
    yield "requests", f"{facts['requests']:,}{apis and ': '}{apis}"
    more = {
        f"{turns['mean'] or 0:,.1f} requests on average, {turns['most']:,} at most": turns["most"] > 1,
        f"{sessions['of_sub_agents']:,} of sub-agents": sessions["of_sub_agents"],
        f"{count(sessions['calls_without_session'], 'request')} without one, each counted as one here; "
        "`run` joins those that continue one another":
            sessions["calls_without_session"],
        count(sessions["users"], "user"): sessions["users"],
    }  # fmt: skip
    yield "sessions", "; ".join([f"{sessions['all']:,}", *(said for said, applies in more.items() if applies)])
    if facts["messages_by_role"]:
        yield "messages", _join(facts["messages_by_role"])


def _say_times(times):
    kinds = {"real": "real", "modelled": "to be modelled", "missing": "missing", "out_of_order": "out of order"}
    yield "times", ", ".join(f"{times[name]:,} {said}" for name, said in kinds.items() if times[name]) or "none"
    if times["real"]:
        yield "", f"from {times['first']} to {times['last']} ({times['span_s']:,.3f} s)"
        yield "", f"{times['with_first_token']:,} with a first token's time, {times['with_end']:,} with an end"


def _say_tools(facts):
    tools = facts["tools"]
    offered = f"offered by {count(tools['with_tools'], 'request')}"
    called = f"called by {count(tools['with_tool_calls'], 'reply', 'replies')}"
    after = f"{count(tools['after_tool_results'], 'request')} after a result"
    yield "tools", f"{offered}, {called}; {after}" if any(tools.values()) else "none"
    yield "reasoning", f"in {count(facts['reasoning'], 'reply', 'replies')}" if facts["reasoning"] else "none"


def _say_usage(usage):
    if not usage["requests_with_it"]:
        return "the provider's counts are not in it"
    share = "" if usage["cached_share"] is None else f", {100 * usage['cached_share']:.1f} % of them cached"
    output = f"{usage['output_tokens']:,} of output, for {count(usage['requests_with_it'], 'request')}"
    return f"the provider counted {usage['prompt_tokens']:,} prompt tokens{share}, and {output}"


def _say_reasons(label, reasons, firsts):
    for name, n in reasons.items():
        first = f" (first: {firsts[name]})" if name in firsts else ""
        yield label, f"{n:,} {name.replace('_', ' ')}{first}"
