"""``kvprefix check``: send requests to a live server and compare its cached tokens with the replay's."""

import sys
from functools import partial
from pathlib import Path

from kvprefix.commands.options import add_csv_safe, add_parameters, read_hybrid, read_parameters, read_path
from kvprefix.files.checks import check_whole
from kvprefix.files.extras import need
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, tell

HELP = "send requests to a live server and compare its cached tokens with the replay's"
CODES = (
    "exit codes: 0 if all compared requests agree; 3 if some differ (DIFFER, or beside an approximate prediction); "
    "4 if no comparison is possible (other prompt tokens, prefix caching switched off, cached tokens not reported, "
    "nothing answered when first sent); 2 for a mistake in the options or the input, a server that does not answer, or "
    "another check in the folder. Read from the environment: OPENAI_API_KEY, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, "
    "NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR."
)


def add_options(parser):
    """Add what the command takes."""
    parser.epilog = CODES
    parser.add_argument("--url", required=True, help="address of an OpenAI-compatible server, as http://127.0.0.1:8000")
    parser.add_argument("--output-dir", required=True, type=read_path, help="the report folder, for engine_check/")
    parser.add_argument(
        "--requests", type=read_path, metavar="FILE",
        help="JSON Lines of token ids, as `replay` takes them (default: the multi-turn trace of the parameters)",
    )  # fmt: skip
    parser.add_argument("--max-requests", default="200", help="send the first N requests (default: %(default)s)")
    parser.add_argument(
        "--timing", default="sequential",
        help="sequential (one at a time: exact; the default) or trace (at the times of the trace)",
    )  # fmt: skip
    parser.add_argument(
        "--speed", dest="send_speed", default="1",
        help="with --timing trace: send N times as fast as the trace (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--api", default="completions", help="completions (token ids; the default) or chat (messages)")
    parser.add_argument(
        "--max-tokens", default="1",
        help="tokens to generate per request, or `trace`: as many as the trace has (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--model", help="the model to ask for (default: the server's first)")
    parser.add_argument("--num-gpu-blocks", metavar="N", help="blocks of the server's pool (default: what it reports)")
    parser.add_argument(
        "--kv-groups", metavar="MODEL",
        help="groups of layers of a hybrid model: a name, a config.json or a file that lists them, as `replay --model`",
    )  # fmt: skip
    parser.add_argument("--window", help="with --kv-groups: tokens of its windows or chunks")
    parser.add_argument(
        "--retention", help="with --kv-groups: 0, none or tokens, as `replay` takes it (default: what the server says)"
    )
    parser.add_argument("--timeout", default="120", help="seconds per attempt, at most (default: %(default)s)")
    parser.add_argument("--attempts", default="5", help="attempts per request, at most (default: %(default)s)")
    parser.add_argument("--restart", action="store_true", help="begin anew instead of continuing an earlier check")
    parser.add_argument("--reset", action="store_true", help="empty the server's cache first (vLLM, development mode)")
    add_parameters(parser, without=("speed",), block_size="the server's tokens per block (default: what it reports)")
    add_csv_safe(parser)


def call(options):
    """Ask the server and compare; return 0, 3 if requests differ, or 4 if no comparison is possible."""
    from kvprefix.live.client import check_url

    check_url(options.url)
    whole = {name: getattr(options, name) for name in ("max_tokens", "attempts", "block_size", "num_gpu_blocks")}
    whole = {name: None if text is None else read_number(text, int) for name, text in whole.items()}
    n = read_number(options.max_requests, int)
    n = check_whole(n, "number of requests", "a whole number, 1 or more", most=float("inf"))
    need("report")
    from kvprefix.live.requests import read_request_file, take_requests
    from kvprefix.live.send import Check

    check = Check(
        options.url, options.model, options.api, options.timing, read_number(options.send_speed, float),
        timeout_s=read_number(options.timeout, float), kv_groups=_read_groups(options), **whole,
    )  # fmt: skip
    if options.requests:
        requests, source = read_request_file(options.requests, n), options.requests.name
    else:
        from kvprefix.traces.workload import load_workload

        parameters = read_parameters(options)
        requests = take_requests(load_workload(parameters), n, messages=check.api == "chat")
        source = f"multi-turn trace of {Path(parameters.data).name}"
    from kvprefix.live.check import check_engine, find_exit_code

    summary = check_engine(
        check, requests, options.output_dir, source, restart=options.restart, reset=options.reset,
        tell=partial(tell, file=sys.stderr),
    )  # fmt: skip
    for warning in summary["warnings"]:
        tell(f"warning: {warning}", sys.stderr)
    if summary["verdict"] == "void":
        tell(f"WARNING: {summary['sentence']}", sys.stderr)
    tell(summary["sentence"])
    for cause in summary["causes"]:
        tell(f"- {cause}")
    tell(f"recording, table, summary and figure are in {options.output_dir / 'engine_check'}")
    return find_exit_code(summary)


def _read_groups(options):
    """Return the groups of layers that the options name, None if all layers have full attention."""
    from kvprefix.engines.group_files import read_model
    from kvprefix.live.hybrid import KVGroups

    if options.kv_groups is None:
        for flag in ("window", "retention"):
            if getattr(options, flag) is not None:
                raise InputError(f"--{flag} has a meaning only with --kv-groups, a hybrid model's groups of layers")
        return None
    window, retention = read_hybrid(options.window, options.retention)
    return KVGroups(read_model(options.kv_groups)[0], window, retention)
