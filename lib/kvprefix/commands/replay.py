"""``kvprefix replay``: say what each request of a file hits in vLLM's or SGLang's prefix cache."""

from kvprefix.commands.options import read_hybrid, read_path
from kvprefix.engines.groups import NAMED
from kvprefix.engines.registry import ENGINES
from kvprefix.engines.versions import VLLM_VERSIONS
from kvprefix.files.checks import check_block_size
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, tell
from kvprefix.traces.table import TABLE

HELP = "say what each request of a file hits in vLLM's or SGLang's prefix cache"
_LEGACY = VLLM_VERSIONS.rows[0].checked


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument("requests", type=read_path, help="JSON Lines of token ids, a request per line (also .gz, .zst)")
    engines = "; ".join(f"{name}: {engine.definition}" for name, engine in ENGINES.items())
    parser.add_argument("--engine", choices=tuple(ENGINES), default="vllm", help=f"{engines} (default: %(default)s)")
    parser.add_argument(
        "--engine-version", help="version whose rules to follow, such as 0.22 of vLLM (default: the newest known)"
    )
    parser.add_argument(
        "--block-size", default="16", help="tokens per block, or per page of SGLang (default: %(default)s)"
    )
    parser.add_argument(
        "--num-gpu-blocks", default="unlimited",
        help="size of the pool in vLLM's blocks (with the null block; with --model a block of a request's tokens takes "
        "up to one per group of layers) or SGLang's pages, or `unlimited` (default)",
    )  # fmt: skip
    _add_hybrid_options(parser)
    parser.add_argument("--ignore-outputs", action="store_true", help="replay as if no tokens were generated")
    parser.add_argument("--legacy-free", action="store_true", help=f"the same as --engine-version {_LEGACY}")
    parser.add_argument(
        "--concurrent", action="store_true",
        help="requests arrive at their timestamp (ms) and run at once, as vLLM's synchronous scheduler runs them",
    )  # fmt: skip
    times = [TABLE[name].default for name in ("ttft_s", "time_per_output_token_s")]
    parser.add_argument("--ttft-s", help=f"with --concurrent: seconds to a first token (default: {times[0]})")
    parser.add_argument(
        "--time-per-output-token-s",
        help=f"with --concurrent: seconds per step, that is per token of each request (default: {times[1]})",
    )
    parser.add_argument(
        "--out", required=True, type=read_path, help="file for the answers: JSON Lines, compressed if named .gz or .zst"
    )


def _add_hybrid_options(parser):
    """Add what says how vLLM keeps the cache of a hybrid model."""
    parser.add_argument(
        "--model",
        help=f"groups of layers, by a name ({', '.join(NAMED)}, or a known model's, such as Gemma-3-27B), a "
        "config.json, or a JSON file that lists them (default: full attention)",
    )
    parser.add_argument("--window", help="with --model: tokens of its sliding windows, or of the chunks of llama4")
    parser.add_argument(
        "--retention",
        help="with --model: which checkpoints of windows and recurrent layers are kept: 0, the ends of prompts; none, "
        "all; or one every so many tokens (default: 0, vLLM's)",
    )
    parser.add_argument(
        "--drop-last-unit", action="store_true",
        help="the last block of a hit is computed again, as with speculative decoding of the EAGLE or MTP kind",
    )  # fmt: skip
    parser.add_argument(
        "--max-num-batched-tokens", help="with --model: tokens that a step computes at most (default: 8192)"
    )


def call(options):
    """Replay a file and write what each request hits."""
    load_compiler()
    from kvprefix.engines.answer_files import replay_file

    replayer = _make_replayer(options)
    totals = replay_file(options.requests, options.out, replayer, engine=options.engine, version=options.engine_version)
    if "note" in totals:
        tell(f"note: {totals['note']}")
    waits = ""
    if options.concurrent:
        waits = f"{totals['requests_waited']:,} waited, {totals['preempted_requests']:,} preemptions; "
    tell(
        f"{totals['requests']:,} requests, {totals['errors']:,} of them never fit: "
        f"{totals['prefix_cache_hits']:,} of {totals['prefix_cache_queries']:,} prompt tokens cached; {waits}"
        f"answers are in {options.out}"
    )


def _make_replayer(options):
    """Make the engine that the options ask for, or raise InputError."""
    from kvprefix.engines.overlap import read_overlap

    engine, version = ENGINES[options.engine], options.engine_version
    if options.concurrent and not engine.runs_at_once:
        able = " and ".join(f"{one.label}'s" for one in ENGINES.values() if one.runs_at_once)
        raise InputError(f"--concurrent is a rule of {able}; it has no meaning with the engine {engine.name}")
    if options.legacy_free:
        if engine.name != "vllm":
            raise InputError(f"--legacy-free is a rule of vLLM's; it has no meaning with the engine {engine.name}")
        if version is not None:
            raise InputError("--legacy-free is a version's rule; expected it or --engine-version, not both")
        version = _LEGACY
    overlap = read_overlap(options.concurrent, options.ttft_s, options.time_per_output_token_s)
    blocks = None if options.num_gpu_blocks == "unlimited" else read_number(options.num_gpu_blocks, int)
    sizes = {"blocks": blocks, "outputs": not options.ignore_outputs}
    if options.model is not None or options.drop_last_unit:
        return _make_hybrid(options, version, overlap, sizes)
    for flag in ("window", "retention", "max_num_batched_tokens"):
        if getattr(options, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')} has a meaning only with --model, a model's groups of layers")
    return engine.make(version, block_size=read_number(options.block_size, int), overlap=overlap, **sizes)


def _make_hybrid(options, version, overlap, sizes):
    """Make vLLM's cache of a hybrid model, or of one that turns out to be none; or raise InputError."""
    from kvprefix.engines.group_files import read_groups
    from kvprefix.engines.vllm import VLLM
    from kvprefix.engines.vllm_hybrid import VLLMHybrid

    flag = "--model" if options.model is not None else "--drop-last-unit"
    if options.engine != "vllm":
        raise InputError(f"{flag} is a rule of vLLM's; it has no meaning with the engine {options.engine}")
    window, retention = read_hybrid(options.window, options.retention)
    block_size = check_block_size(read_number(options.block_size, int))
    given = {"drop_last_unit": options.drop_last_unit}
    if retention is not None:
        given["retention"] = None if retention == "none" else retention
    if options.max_num_batched_tokens is not None:
        given["step_tokens"] = read_number(options.max_num_batched_tokens, int)
    if version is not None:
        given["version"] = version
    groups = read_groups(options.model or "full", window, block_size)
    hybrid = len(groups) > 1 or groups[0].kind != "full" or options.drop_last_unit
    if hybrid and overlap is not None:
        raise InputError(f"{flag} is modelled for one request at a time; expected no --concurrent")
    if hybrid or overlap is None:
        return VLLMHybrid(groups, **given, **sizes)
    return VLLM(version or VLLM_VERSIONS.newest, block_size=groups[0].block_size, overlap=overlap, **sizes)
