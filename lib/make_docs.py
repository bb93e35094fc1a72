"""Write what is made of the code: the pages below lib/docs/reference.

    python lib/make_docs.py          write them (``make docs``)
    python lib/make_docs.py --check  say which are not as they would be written, and end with 1 if any
"""

import inspect
import os
import sys
from pathlib import Path

os.environ["COLUMNS"] = "120"  # argparse wraps by it

from kvprefix.__main__ import make_parser
from kvprefix.contents import GROUPS, load
from kvprefix.conversations.forms.registry import FORMS as TRAFFIC
from kvprefix.formats.lookup import make_table
from kvprefix.formats.registry import FORMATS
from kvprefix.models.cards import list_cards
from kvprefix.models.memory import list_models, load_model
from kvprefix.traces.table import TABLE, format_page

FOLDER = Path(__file__).parent / "docs" / "reference"
MADE = "<!-- Made of the code by `make docs`: edit the code. -->"


def write_names():
    """Return the page of public names: the table of contents, with each signature and docstring."""
    yield from ("# Public names", MADE, "`import kvprefix as kp` offers these names, each imported when first used.")
    for group, names in GROUPS.items():
        yield f"## {group}"
        yield table(("name", "is"), [(f"[`{name}`](#{name.lower()})", line) for name, (_, line) in names.items()])
        for name in names:
            yield f"### {name}"
            value = load(name)
            if callable(value):
                yield f"```python\n{name}{show_signature(value)}\n```"
                yield f"```text\n{inspect.getdoc(value)}\n```"
                yield from list_methods(value)


def show_signature(value):
    """Return a signature that does not depend on where Python objects lie in memory."""
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def list_methods(value):
    """Yield a table of a class's own public methods and properties."""
    if not inspect.isclass(value):
        return
    rows = []
    for name, one in sorted(vars(value).items()):
        text = inspect.getdoc(one.fget if isinstance(one, property) else one) or ""
        if not name.startswith("_") and (inspect.isfunction(one) or isinstance(one, property)) and text:
            sign = "" if isinstance(one, property) else "()"
            rows.append((f"`{name}{sign}`", text.split("\n")[0]))
    if rows:
        yield table(("member", "is"), rows)


def write_commands():
    """Return the page of commands: their options, as the parser has them."""
    parser = make_parser()
    yield from ("# Commands", MADE)
    yield f"`kvprefix COMMAND ...`, or `python -m kvprefix COMMAND ...`. {parser.description}"
    commands = next(action for action in parser._actions if hasattr(action, "choices") and action.choices)
    for (name, command), shown in zip(commands.choices.items(), commands._choices_actions, strict=True):
        yield f"## {name}"
        yield f"{shown.help[0].upper()}{shown.help[1:]}."
        yield table(("option", "is"), [row for action in command._actions if (row := describe_option(command, action))])
        if command.epilog:
            yield f"{command.epilog[0].upper()}{command.epilog[1:]}"


def describe_option(command, action):
    """Return an option's row, None for --help."""
    if action.dest == "help":
        return None
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest.upper()}`"
    choices = f" ({', '.join(map(str, action.choices))})" if action.choices else ""
    text = command._get_formatter()._expand_help(action) if action.help else ""
    return names, f"{text}{choices}{'; required' if action.required and action.option_strings else ''}"


def table(head, rows):
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join([':--'] * len(head))}|"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def write_policies():
    """Yield the list of eviction policies."""
    from kvprefix.cache.policies import LIBRARY, POLICIES

    yield "## Eviction policies"
    yield "For `curve --policy`, `sweep`, `PrefixCache` and the studies. What all share is in `cache/replay.py`."
    rows = []
    for name in sorted(LIBRARY, key=list(POLICIES).index):
        one = POLICIES[name]
        setting = f"{one.default:g}: {one.setting.meaning}" if one.setting else ""
        rows.append((f"`{name}`", one.label, one.definition, setting))
    yield table(("name", "label", "evicts", "setting"), rows)


def write_hinted():
    """Yield the list of policies with hints."""
    from kvprefix.cache.hinted import DESCRIBED

    yield "## Policies with hints"
    yield "In notebook 50; in Python, `cache.hinted.make_hinted` makes them of a trace's hints, for `replay`."
    rows = []
    for one in DESCRIBED.values():
        setting = f"{one.default:g}: {one.setting.meaning}" if one.setting else ""
        rows.append((f"`{one.name}`", one.label, one.definition, setting))
    yield table(("name", "label", "evicts", "setting"), rows)


def write_routers():
    """Yield the lists of routers and of kinds of tiers."""
    from kvprefix.cache.cluster.routers import ROUTERS
    from kvprefix.cache.tiers import SEMANTICS

    for title, text, entries in (
        ("Routers", "For `route --routers` and `misses --router`.", ROUTERS),
        ("Tiers", "For `tiers --semantics`.", SEMANTICS),
    ):
        yield f"## {title}"
        yield text
        yield table(("name", "is", "as in"), [
            (f"`{name}{':N' * (one.number is not None)}`", one.definition, one.source) for name, one in entries.items()
        ])  # fmt: skip


def write_parameters():
    """Yield the page of parameters: the table of the library."""
    yield from ("# Parameters", MADE)
    yield "`make report PARAMETER=value`, `kvprefix run --parameter value`, or a notebook's first code cell."
    yield format_page(TABLE).strip()
    yield "Numbers are written in the digits 0 to 9, with a point, a minus sign or an exponent if need be."
    yield "A value that is out of range or of the wrong kind is refused, with what would be right."


def write_models():
    """Yield the page of models and cards: the library's tables."""
    yield from ("# Models and cards", MADE)
    yield inspect.cleandoc(MODELS_NOTES)
    yield "## Models"
    rows = []
    for row in list_models().itertuples(index=False):
        known, cache = load_model(row.model).row, load_model(row.model).cache
        size = " of which a token uses ".join(
            f"{known[key] / 1e9:,.4g}" for key in ("parameters", "active_parameters") if key in known
        )
        link = f"[{row.model}]({row.source})"
        rows.append((link, size, cache.describe(), cache.attention, f"{row[5]:,}", f"{row[6]:,.2f}"))
    yield table(("model", "parameters (10⁹)", "layers", "attention", "bytes per token", "GiB for 100,000 tokens"), rows)
    yield "## Cards"
    cards = list_cards()
    cells = cards.astype(object).where(cards.notna(), "–").values.tolist()
    yield table(list(cards), [[one if isinstance(one, str) else f"{one:,.4g}" for one in row] for row in cells])


MODELS_NOTES = """
    `kvprefix memory MODEL`, `KV_MODEL=MODEL` and `kp.Memory(MODEL)` take these names, a `config.json` or its folder.
    [Memory, time and money](../explanation/memory-time-money.md) has the formulas, and where the numbers come from.

    Bytes are in the type of the model's weights. A model whose layers do not all have full attention takes different
    bytes at different lengths: its bytes per token are the mean of a sequence of 8,192 tokens, rounded up.
"""


def write_formats():
    """Yield the page of formats: the registry."""
    yield from ("# Formats", MADE)
    yield "`kvprefix convert IN OUT --to FORMAT`; IN is told by its content, or by `--from`."
    yield make_table()
    yield table(("format", "holds", "usual block size", "is"), [
        (f"`{one.name}`", one.holds, f"{one.block_size}" if one.block_size else "", one.definition)
        for one in FORMATS.values()
    ])  # fmt: skip


def write_traffic():
    """Yield the page of chat traffic: the registry of forms, and what all of them share."""
    yield from ("# Chat traffic", MADE)
    yield "What `kvprefix inspect DATA` and every command that takes chats read, told by content."
    yield table(("form", "is", "told by", "read of it", "skipped or noted, by reason"), [
        (f"`{one.name}`", one.label, one.told_by, one.kept, one.counted) for one in TRAFFIC.values()
    ])  # fmt: skip
    yield inspect.cleandoc(TRAFFIC_NOTES)


TRAFFIC_NOTES = """
    ## What all share

    - A source is a file, a folder (with all below it, by name) or a glob. A file is a JSON array, JSON Lines, a JSON
      document or a list that an API wraps in one (`data`, `runs`, ...), also gzip or zstandard; or Parquet or Arrow,
      whose columns are read in batches, without nulls. Files of a folder that are no chats are counted, with the first.
    - A file is of the form of its first record that fits one; the table is in the order in which forms are tried.
      Records of another form in it are skipped and counted.
    - A request of a log has a body of its own (`body`, `request`, `params`), an endpoint (`url`), a `custom_id` or
      `request_id`, an answer (`response`, `completion`, `choices`, `output`), or an `input` of Responses.
    - A record of `messages` without such a mark, with or without a time, is a request or a conversation. If none of the
      file's first 20 records ends with a reply, they are requests: each record is one prompt. If one does, they are a
      data set's conversations: a prompt per message of a user. A note says what was taken. All else with a list of
      messages is a conversation of a data set.
    - An answer may be an object, JSON text, plain text, or a stream: a text of `data: {...}` lines or a list of its
      events, which is put together.
    - `url` settles how a body is read. Without it: `input` is Responses'; `system`, `input_schema` or blocks such as
      `tool_use` are Anthropic's; all else is OpenAI's. Bodies stay as they were given: a server's rules judge them, for
      example arguments of a tool call that are no JSON.
    - A conversation of text alone is read as it always was. One with tools, tool calls or results, reasoning or names
      of speakers keeps them, in the shape of a chat body; one with Anthropic's blocks is a call for each reply. Calls
      without an id get one, and their results the same; arguments that are objects are written as JSON text.
    - Images, sound and video are skipped wherever they are in a prompt. What is not kept of a record is counted by
      field.
    - Times are ISO 8601, RFC 2822 or numbers of seconds, ms, us or ns, also as text; without a zone they are UTC. One
      that cannot be read, or is a date not from 1970 to 2100, is refused with its line; a number may count from a
      log's own start. An end before its start is left out and noted.
    - Cached tokens are part of the prompt's, whatever the provider's own way of counting.

    ## Transcripts of agents

    - Neither Claude Code's nor Codex's files hold the tools, and Claude Code's no system prompt: a prompt's text is a
      lower bound. The provider's own `usage` is kept beside it.
    - A transcript does not say when a request was sent. A call's start is the time of the first row of its answer, its
      end that of the last (Codex: of its count of tokens).
    - Results of parallel tool calls stand side by side behind the answer that called, in the order of the file, though
      the chain of `parentUuid` goes through one of them only.
    - Codex's reasoning is encrypted. It stays in the bodies; a server that cannot decrypt it refuses them.

    ## Gateways

    LiteLLM 1.108.7's payloads, tried on loopback, hold no `extra_body` (such as `chat_template_kwargs`), and of a call
    to Anthropic's endpoint no system prompt: such calls are noted. With the logger of
    [get a log](../how-to/get-a-log.md) the body as the client sent it lies beside the payload, and is read instead.
    `trace_id` is new for each call unless the client sends a session. Records are written when a call ends, so they are
    not in order of their start.

    ## Libraries that were tried

    Both were run on sessions with the traps above. agentpile 0.3.1 refuses a session whose last line is cut, keeps
    answers that no model made, puts what comes before and after a compaction into one row of steps, takes no Codex
    file, and reads of LiteLLM's payloads neither tools nor answer, times or usage. agent-trajviz 0.3.0 refuses the cut
    session too, joins neighbouring messages of a user, and counts the usage of a copied history as the child's. So
    these forms are read by hand. agentpile's loaders of public sets of agents' work write ATIF, which is read:
    `run.to_json()` in a file per run.
"""

PAGES = {
    "names": [write_names], "commands": [write_commands, write_policies, write_hinted, write_routers],
    "parameters": [write_parameters], "formats": [write_formats], "traffic": [write_traffic],
    "models": [write_models],
}  # fmt: skip


def make_pages():
    """Return the text of every page that is made of the code, by its path."""
    return {
        FOLDER / f"{name}.md": "\n\n".join(part for write in parts for part in write()) + "\n"
        for name, parts in PAGES.items()
    }


def main(arguments):
    """Write or check all pages; return the exit code."""
    stale = []
    for path, text in make_pages().items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"{', '.join(stale)}: not as `make docs` writes them", file=sys.stderr)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
