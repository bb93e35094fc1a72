"""``kvprefix replay``: say what each request of a file hits in vLLM's or SGLang's prefix cache."""

from kvprefix.commands.options import read_path
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import tell
from kvprefix.traces.table import TABLE

HELP = "say what each request of a file hits in vLLM's or SGLang's prefix cache"


def add_options(parser):
    """Add what the command takes."""
    parser.add_argument("requests", type=read_path, help="JSON Lines of token ids, a request a line (also .gz, .zst)")
    parser.add_argument("--engine", choices=("vllm", "sglang"), default="vllm", help="default: %(default)s")
    parser.add_argument("--block-size", default="16", help="tokens a block, or a page of SGLang (default: %(default)s)")
    parser.add_argument(
        "--num-gpu-blocks", default="unlimited",
        help="blocks, vLLM's null block counted, or SGLang's pages (none is null), or `unlimited` (the default)",
    )  # fmt: skip
    parser.add_argument("--ignore-outputs", action="store_true", help="as if no tokens were generated")
    parser.add_argument("--legacy-free", action="store_true", help="free blocks as vLLM up to 0.22 did")
    parser.add_argument(
        "--concurrent", action="store_true",
        help="requests arrive at their timestamp (ms) and run at once, as vLLM's synchronous scheduler runs them",
    )  # fmt: skip
    times = [TABLE[name].default for name in ("ttft_s", "time_per_output_token_s")]
    parser.add_argument("--ttft-s", help=f"with --concurrent: seconds to a first token (default: {times[0]})")
    parser.add_argument(
        "--time-per-output-token-s",
        help=f"with --concurrent: seconds of a step, a token of each (default: {times[1]})",
    )
    parser.add_argument(
        "--out", required=True, type=read_path, help="file for the answers: JSON Lines, compressed if named .gz or .zst"
    )


def call(options):
    """Replay a file and write what each request hits."""
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
