"""Compile the library's inner loops, which numba keeps beside them: the last step of ``make env``.

It replays a handful of conversations in every way that the notebooks do, so that the first report need not wait for the
compiler, nor for the making of the bundled tokenizer. Two processes share the work.
"""

import multiprocessing
import os
import tempfile
from pathlib import Path

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "sample" / "conversations.json"


def main():
    """Compile everything."""
    from kvprefix.traces.parameters import Parameters
    from kvprefix.traces.workload import load_workload

    workload = load_workload(Parameters(data=str(SAMPLE)), progress=False)  # the tokenizer is kept for the first report
    with tempfile.TemporaryDirectory() as folder:
        os.environ["KVPREFIX_DERIVED"] = folder
        halves = [multiprocessing.Process(target=compile_some, args=(workload,)) for compile_some in HALVES]
        for half in halves:
            half.start()
        for half in halves:
            half.join()
    if any(half.exitcode for half in halves):
        raise SystemExit("make env: the inner loops could not be compiled, see above")


def compile_accounting(workload):
    """Compile what notebooks 00 to 60 run."""
    from kvprefix.cache.curve import lru_curve, rate_unbounded
    from kvprefix.cache.policies import POLICIES
    from kvprefix.cache.working_set import rank_reuse
    from kvprefix.studies.cache import measure_block_sizes, measure_lru, measure_policies
    from kvprefix.studies.hinted import measure_hinted
    from kvprefix.studies.sharing import analyse, write_results
    from kvprefix.studies.table import draw
    from kvprefix.studies.timing import RATES, measure_timing
    from kvprefix.traces.workload import MODES, make_trace

    results = analyse(workload)
    write_results(results, workload, Path(os.environ["KVPREFIX_DERIVED"]) / "out")
    result = results["multi_turn"]
    result.trace.prompt(0)
    rank_reuse(result.sharing.accesses)
    rate_unbounded(draw(workload, 16))
    measure_lru(workload, 0, 5)
    measure_block_sizes(workload, 0, [32], [1024])
    measure_policies(workload, 0, 20, tuple(POLICIES))
    for mode in MODES:
        lru_curve(make_trace(workload, mode).blocks(16))
    measure_hinted(workload, 0, 15)
    compile_reading(make_trace(workload, "multi_turn"))
    compile_held(draw(workload, 16))
    measure_timing(workload, 0, RATES, 5)


def compile_reading(trace):
    """Compile what `curve` and `convert` run on files."""
    from kvprefix.blocks.listed import list_blocks
    from kvprefix.formats.mooncake import read_mooncake, write_mooncake
    from kvprefix.studies.sweep import sweep

    path = Path(os.environ["KVPREFIX_DERIVED"]) / "blocks.jsonl"
    write_mooncake(list_blocks(trace, 16), path, progress=False)
    sweep(read_mooncake(path), ["lru"], [5, 20])


def compile_held(trace):
    """Compile what lists of evictions, replays with `hold` and a user's own policy need besides."""
    from kvprefix.cache.evictions import record_evictions
    from kvprefix.cache.policies import POLICIES, policy
    from kvprefix.cache.replay import replay

    record_evictions(trace, 20, "opt")
    for known in POLICIES.values():
        if known.holds:
            replay(trace, 20, known, hold=True)
    replay(trace, 20, policy("compiled")(lambda block: block.now))


def compile_engines(workload):
    """Compile what notebook 70 runs, and what explains hits and misses."""
    from kvprefix.studies.engines import measure_engines
    from kvprefix.studies.hybrids import measure_hybrids

    measure_engines(workload, 0, [100])
    measure_hybrids(workload, 0, [100])
    compile_explain(workload)


def compile_explain(workload):
    """Compile what `provenance`, `misses`, `explain` and `lint` run."""
    import numpy as np

    from kvprefix.explain.advice.advise import estimate
    from kvprefix.explain.listed import find_listed_provenance
    from kvprefix.explain.said import climb_lists
    from kvprefix.studies.explain import explain_misses, explain_provenance, open_workload
    from kvprefix.studies.explain_one import explain_one

    data = open_workload(workload)
    explain_provenance(data, capacity=5)
    explain_misses(data, [5], router="rr", replicas=2)
    explain_one(data, data.trace.request_ids[-1], capacity=5)
    estimate(data.trace, data.walks)
    find_listed_provenance(data.trace.blocks(16), infer=True)
    compile_cluster(data.trace.blocks(16))
    compile_plan(workload)
    none = np.zeros(1, np.int32)
    climb_lists(none, np.zeros(2, np.int64), none, none[:0], 0)  # of calls


def compile_plan(workload):
    """Compile what a plan of chats and one of block ids run."""
    from kvprefix.blocks.listed import list_blocks
    from kvprefix.formats.mooncake import write_mooncake
    from kvprefix.plan.setup import Setup
    from kvprefix.studies.plan import measure_plan
    from kvprefix.studies.plan_traffic import open_source
    from kvprefix.traces.parameters import Parameters
    from kvprefix.traces.workload import make_trace

    path = Path(os.environ["KVPREFIX_DERIVED"]) / "ids.jsonl"
    write_mooncake(list_blocks(make_trace(workload, "multi_turn"), 16), path, progress=False)
    for source in (workload, open_source(Parameters(data=str(path)))):
        measure_plan(source, 0, 2, Setup(), ("longest",), (0.0, 1.0), 1.0)


def compile_cluster(trace):
    """Compile replicas behind routers, and tiers."""
    from kvprefix.cache.cluster.replay import route_requests
    from kvprefix.cache.tiers import SEMANTICS, replay_tiers
    from kvprefix.stats.queue import queue_waits

    for name in SEMANTICS:
        replay_tiers(trace, [10, 20], name)
    routed = route_requests(trace, 20, "longest", 2)
    queue_waits(trace.arrival_s, [1.0] * len(trace), routed.places)


HALVES = (compile_accounting, compile_engines)

if __name__ == "__main__":
    main()
