"""``kvprefix plan``: say how many replicas, which router and how much DRAM some traffic needs, and what comes next."""

import json

from kvprefix.commands.options import add_parameters, read_parameters, tell_lines, tell_notes
from kvprefix.files.compiler import load_compiler
from kvprefix.files.numerals import read_number

HELP = "say how many replicas, which router and how much DRAM some traffic needs"
_ASSUMED = {
    "mfu": "share of a card's FLOPS that a prefill reaches", "fixed-s": "seconds that every prefill takes besides",
    "utilisation": "share of a card's memory that the engine takes",
    "overhead-gib": "GiB per card that the engine needs besides weights and blocks",
    "pool-share": "share of the pool that prefixes can use", "load-gib-per-s": "GiB per second from DRAM, per card",
    "gpu-price": "dollars per card and hour", "dram-price": "dollars per GiB of DRAM and hour",
    "prefill-share": "share of GPU time that prefill takes without a cache",
}  # fmt: skip


def add_options(parser):
    """Add what the command takes."""
    what = "chats, calls, transcripts, or a trace of token or block ids: a file, a folder, a glob, or `bundled`"
    parser.add_argument("data", metavar="DATA", help=what)
    add_parameters(parser, without=("data",), plan=True)
    parser.add_argument(
        "--slo-percentile", default="99", help="share of the first tokens for --slo-ttft: 50, 90 or 99 (default: 99)"
    )
    parser.add_argument("--kv-dtype", help="number type of keys and values, such as fp8 (default: the model's)")
    parser.add_argument("--weights-dtype", help="number type of the weights, such as fp8 (default: as published)")
    for name, text in _ASSUMED.items():
        parser.add_argument(f"--{name}", help=f"assumed: {text}")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of the plans (default: table)")


def call(options):
    """Measure plans and show them."""
    load_compiler()
    parameters = read_parameters(options)
    from kvprefix.plan.setup import read_setup
    from kvprefix.report.facts.plan import say_plans
    from kvprefix.studies.plan import make_plans
    from kvprefix.studies.plan_tables import describe_plans, format_plans
    from kvprefix.studies.plan_traffic import open_source

    names = [name.replace("-", "_") for name in _ASSUMED]
    assumed = {name: read_number(getattr(options, name), float) for name in names if getattr(options, name) is not None}
    percentile = read_number(options.slo_percentile, int)
    types = {"kv_dtype": options.kv_dtype, "weights_dtype": options.weights_dtype}
    setup = read_setup(parameters, slo_percentile=percentile, **types, **assumed)
    setup.pool()
    plans = make_plans(open_source(parameters), setup)
    tell_notes(plans.notes)
    if options.format == "json":
        tell_lines(json.dumps(describe_plans(plans), indent=1, allow_nan=False))
    else:
        tell_lines(f"{say_plans(plans)}\n\n{format_plans(plans)}")
