"""What several commands share: paths, the parameters of a workload, counts of what was read."""

import argparse
import sys
from pathlib import Path

from kvprefix.files.checks import check_whole
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, tell
from kvprefix.files.words import count
from kvprefix.traces.table import SESSION_NAMES, TABLE


def read_path(text):
    """Return a path of the command line; a blank one is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a path")
    return Path(text)


def add_parameters(parser, *, without=(), plan=False, **helps):
    """Add the parameters of a report, a file of them, and where tasks run; `helps` replace the table's.

    `without` names parameters that the command does not take; those of a plan it takes only if `plan`.
    """
    parser.set_defaults(taken=[name for name, one in TABLE.items() if plan or one.of != "plan"])
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT",
        help="where heavy steps run: a Dask scheduler, `processes` or `local` (the default: what suits this machine)",
    )  # fmt: skip
    parser.add_argument("--parameters-file", type=read_path, help="a file of name=value lines; options override it")
    for name, one in TABLE.items():
        if name in without or (one.of == "plan" and not plan):
            continue
        flag = name.replace("_", "-")
        flags = [f"--{flag}"] if name != "data" else ["--data-path", "--data"]
        text = helps.get(name, f"{one.help} (default: {one.show(one.default)})")
        parser.add_argument(*flags, dest=name, help=text)


def add_rendering(parser):
    """Add what makes prompts of chats."""
    from kvprefix.servers.rules import SERVERS

    parser.add_argument("--tokenizer", default="bundled", help=f"for chats: {TABLE['tokenizer'].help}")
    servers = ", ".join(SERVERS)
    parser.add_argument("--server", default="vllm", help=f"for chats: whose rules make prompts of bodies: {servers}")


def add_timing(parser):
    """Add when the sessions of a trace start, and how their requests follow."""
    group = parser.add_argument_group("traces of sessions", "the trace's own times where not given")
    for name in SESSION_NAMES:
        one = TABLE[name]
        help = one.help.replace("conversations", "sessions").replace("the next turn", "the next request")
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, help=f"{help} (usual: {one.show(one.default)})")
    group.add_argument("--open-loop", action="store_true", help="requests do not wait for the answer before them")


def read_timing(options):
    """Return the Timing of a command line."""
    from kvprefix.formats.timing import Timing

    given = {name: getattr(options, name) for name in SESSION_NAMES if getattr(options, name) is not None}
    return Timing({name: TABLE[name].check(TABLE[name].parse(text)) for name, text in given.items()}, options.open_loop)


def add_csv_safe(parser):
    """Add the switch that guards CSV cells."""
    parser.add_argument(
        "--csv-safe", action="store_true", help="guard CSV cells that a spreadsheet would run as formulas"
    )


def read_parameters(options):
    """Return the Parameters of the file and the flags; a flag overrides the file."""
    from kvprefix.files.paths import check_input_file, explain_os_errors
    from kvprefix.traces.parameters import parse_parameters

    texts = {}
    if options.parameters_file:
        check_input_file(options.parameters_file)
        with explain_os_errors(options.parameters_file):
            text = options.parameters_file.read_text(encoding="utf-8", errors="surrogateescape")
        for number, line in enumerate(text.rstrip("\n").split("\n") if text else [], start=1):
            name, equals, value = line.partition("=")
            if not equals:
                raise InputError(f"{options.parameters_file}: line {number} is {line!r}; expected name=value")
            texts[name] = value
    given = {name: getattr(options, name, None) for name in options.taken}
    texts.update({name: text for name, text in given.items() if text is not None})
    parameters = parse_parameters(texts)
    parameters.check_timing_files()
    return parameters


def tell_counts(workload):
    """Say what was read, repaired and skipped."""
    from kvprefix.report.facts.workload import facts_load
    from kvprefix.report.words import say

    tell_lines(say("load.txt", facts_load(workload.dataset, workload.tokenizer)))


def tell_trace(experiment):
    """Say what was read of a trace of block ids."""
    sessions, path = experiment.sessions, experiment.dataset["path"]
    tell(f"{path}: {count(len(sessions), 'request')} of {count(sessions.n_sessions, 'session')}, block ids")
    for note in experiment.dataset["notes"]:
        tell(f"- {note}")


def tell_lines(text):
    """Print a text, line by line."""
    for line in text.split("\n"):
        tell(line)


def add_explained(parser):
    """Add what the commands take that explain where tokens come from: DATA, the parameters, mode and form."""
    what = "chats, calls, transcripts, or a trace of token or block ids: a file, a folder, a glob, or `bundled`"
    parser.add_argument("data", metavar="DATA", help=what)
    parser.add_argument(
        "--mode", default="multi_turn", help="of chats: `multi_turn` or `single_turn` (default: %(default)s)"
    )
    parser.add_argument("--outputs-cached", action="store_true", help="generated tokens are cached too")
    add_parameters(parser, without=("data", "kv_model"))


def add_rows(parser):
    """Add how a result is shown, and where its rows go."""
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the sums (default: table)")
    parser.add_argument("--out", type=read_path, help="a file for a row per request: .csv or .parquet")
    add_csv_safe(parser)


def read_blocks(text, name, words=("unbounded",)):
    """Return a number of blocks of the command line, None for one of the words; raise InputError if it is neither."""
    from kvprefix.files.checks import check_whole
    from kvprefix.files.numerals import read_number

    if text in words:
        return None
    expected = f"a whole number of blocks, 1 or more, or `{words[0]}`"
    return check_whole(read_number(text, int), name, expected, most=float("inf"))


def tell_notes(notes):
    """Say what to know before reading numbers, each thing once."""
    for note in dict.fromkeys(notes):
        tell(f"note: {note}", sys.stderr)


def read_hybrid(window, retention):
    """Return --window and --retention, which are texts or None: numbers, or "none" for the latter."""
    if window is not None:
        window = check_whole(read_number(window, int), "--window", "a whole number of tokens, 1 or more")
    if retention not in (None, "none"):
        expected = "0, none or a whole number of tokens"
        retention = check_whole(read_number(retention, int), "--retention", expected, least=0)
    return window, retention
