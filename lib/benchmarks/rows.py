"""The rows of the benchmarks: what is measured against what, and what must come out."""

import json
import re
import shutil
import subprocess
import sys
from functools import partial
from itertools import islice

import cache
import mooncake_reuse
from peers import MAKE, PROJECT, find_commit, find_peer, name_peer
from run import KVPREFIX, ONE_PASS, copy_kept, keep_tokenizer, run
from table import Job, NotHereError, Pair, Row

BEFORE = "711503a"  # what is now is compared with it
CONVERSATIONS = 4000  # of the bundled data, for kvlint, which encodes every turn's history again
POOL = {"conversations": 6000, "blocks": 50_000}  # for vLLM's manager of blocks
RUN = ["run", "--skip-visualization", "--output-dir"]


def prepare_fresh(bench):
    """Compare the main job with one pass of the reference tokenizer over the unique texts."""
    kept = keep_tokenizer(bench.folder)

    def take_pair(k):
        one_pass = [sys.executable, "-c", ONE_PASS]
        job = [*KVPREFIX, *RUN, str(bench.folder / "out")]
        fresh = copy_kept(kept, bench.folder / f"fresh-{k}")
        jobs = {"ours": lambda: run(job, fresh)["cpu_s"], "theirs": lambda: run(one_pass, kept)["inner"]["once_s"]}
        return take_turns(jobs, k, "of the data nothing is cached; a tokenizer's making and proof, once a version, are")

    return Job(show(RUN) + " OUT", "encode_batch_fast(texts)", take_pair)


def prepare_cached(bench):
    """Compare the eight data files, made from cached tokens, with an earlier commit."""
    pythons = {"ours": sys.executable, "theirs": str(find_commit(BEFORE) / ".venv/bin/python")}

    def make_files(who):
        shutil.rmtree(bench.folder / "out", ignore_errors=True)
        return run([pythons[who], "-m", "kvprefix", *RUN, str(bench.folder / "out")], bench.folder / who)["cpu_s"]

    for who in pythons:
        make_files(who)
    return Job(show(RUN) + " OUT", "the same", lambda k: take_turns({w: partial(make_files, w) for w in pythons}, k))


def prepare_report(bench):
    """Compare the default report, after `make env`, with an earlier commit."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    folders = {"ours": find_commit(head.stdout.strip()), "theirs": find_commit(BEFORE)}

    def make_report(who, k):
        name = f"pair-{k}"
        command = [*MAKE, "-C", str(folders[who]), "report", f"NAME={name}"]
        taken = run(command, bench.folder / f"report-{who}-{k}")["wall_s"]
        shutil.rmtree(folders[who] / "reports" / name)
        shutil.rmtree(folders[who] / "data/derived/make" / name)
        return taken

    return Job(
        f"make report ({head.stdout.strip()})", f"the same ({BEFORE})",
        lambda k: take_turns({who: partial(make_report, who, k) for who in folders}, k),
    )  # fmt: skip


def prepare_sweep(tool, bench):
    """Compare LRU at ten capacities of a prefix trace in a file."""
    python = find_peer(tool) / "python"
    capacities = bench.write_copies()
    sweeps = cache.make_sweeps(bench.folder, capacities, str(python), (tool,))
    return compare_commands(bench, sweeps["kvprefix, LRU"], sweeps[tool], CHECKS.get(tool), bench.trace)


def prepare_profile(bench):
    """Compare LRU at ten capacities with a profile of the same trace."""
    tool = find_peer("llmtrafficlens") / "llmtrafficlens"
    capacities = bench.write_copies()
    profile = ["profile", "--format", "mooncake", "-o", str(bench.folder / "lens"), str(bench.folder / "copies.jsonl")]
    ours = cache.make_sweeps(bench.folder, capacities)["kvprefix, LRU"]
    return compare_commands(bench, ours, [str(tool), *profile], note=bench.trace)


def prepare_kvlint(count, bench):
    """Write conversations and a tokenizer's folder; compare the prefix hits of the conversations' texts."""
    from kvprefix.conversations.load import iterate_conversations, locate_data
    from kvprefix.tokens.template import load_chat
    from kvprefix.tokens.tokenizer import find_tokenizer

    tools, kept = find_peer("kvlint"), keep_tokenizer(bench.folder)
    chats, tokenizer = bench.folder / f"chats-{count or 'all'}.json", bench.folder / "tokenizer"
    roles = {"user": "human", "assistant": "gpt", "system": "system"}
    records = [
        {"id": str(k), "conversations": [{"from": roles[role], "value": text} for role, text in one.messages]}
        for k, one in enumerate(islice(iterate_conversations(locate_data("bundled")), count))
    ]
    chats.write_text(json.dumps(records))
    lines = chats.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(record) + "\n" for record in records))
    load_chat(find_tokenizer()).tokenizer.save_pretrained(tokenizer)
    ours = [*KVPREFIX, *RUN, str(bench.folder / "out"), "--data-path", str(chats)]
    theirs = [str(tools / "kvlint"), "analyze", str(lines), "--model", str(tokenizer)]
    theirs += ["--format", "sharegpt", "--engine", "vllm", "--block-size", "16"]
    return compare_commands(bench, ours, theirs, kept=kept)


def prepare_aisimulate(bench):
    """Compare vLLM's reuse of Mooncake's trace at three sizes of the pool."""
    if not bench.mooncake.is_file():
        raise NotHereError(f"Mooncake's conversation trace is not at {bench.mooncake.name} (--mooncake)")
    trace = mooncake_reuse.unpack(bench.mooncake, bench.folder)
    configs = mooncake_reuse.write_configs(bench.folder, trace)
    program = find_peer("aisimulate") / "aisimulate"
    ours = [sys.executable, mooncake_reuse.__file__, str(trace)]
    written = ["--format", "json", "--output-dir", str(bench.folder / "aisimulate"), "--overwrite"]
    theirs = [[str(program), "predict", "-c", str(one), *written] for one in configs]

    def simulate():
        done = [run(command, bench.folder / "derived") for command in theirs]
        return sum(one["cpu_s"] for one in done), [one["inner"]["prefix_cache_reused_ratio"] for one in done]

    def replay():
        done = run(ours, bench.folder / "derived")
        return done["cpu_s"], done["inner"]["reuse"]

    def take_pair(k):
        (ours_s, found), (theirs_s, said) = (job() for job in (replay, simulate))
        return Pair(ours_s, theirs_s, mooncake_reuse.describe(found, said))

    return Job("mooncake_reuse.py TRACE", "aisimulate predict -c CONFIG, once a size", take_pair)


def prepare_interactive(bench):
    """Take the slowest of the explorer's moves."""
    moves = PROJECT / "lib/benchmarks/interactive.py"
    if not moves.exists():
        raise NotHereError("there is no interactive.py")

    def take_pair(k):
        lines = subprocess.run([sys.executable, moves], capture_output=True, text=True, check=True).stdout.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
        slowest = max(cells, key=lambda row: float(row[-1]))
        return Pair(float(slowest[-1]), 1.0, f"the slowest move is: {', '.join(slowest[:-2])}")

    return Job("interactive.py", "", take_pair)


def prepare_scale(measure, bench):
    """Take what `scale.py` measured, which needs disk and hours."""
    table = PROJECT / "reports/bench/scale.md"
    rows = {}
    for line in table.read_text().splitlines() if table.exists() else ():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 8 and re.fullmatch("[0-9,]+", cells[0]) and cells[1] == "all after it":
            rows[cells[0]] = [float(cell.replace(",", "") or "nan") for cell in cells[2:]]  # what was not measured
    if not {"94,145", "941,450"} <= rows.keys():
        raise NotHereError("reports/bench/scale.md has no rows of both sizes (`scale.py`)")
    said = "from reports/bench/scale.md, which `scale.py --sizes 94145,941450` writes"
    return Job("scale.py", "", lambda k: Pair(*measure(rows["941,450"], rows["94,145"]), said))


def prepare_vllm(bench):
    """Compare the replay of real requests with vLLM's own manager of blocks, both from token ids in a file."""
    from kvprefix.traces.parameters import Parameters
    from kvprefix.traces.workload import load_workload, make_trace

    python = find_peer("vllm") / "python"
    trace = make_trace(load_workload(Parameters(max_conversations=POOL["conversations"])), "multi_turn")
    file, answers = bench.folder / "requests.jsonl", bench.folder / "answers.jsonl"
    with open(file, "w") as lines:
        for k, name in enumerate(trace.request_ids):
            lines.write(json.dumps({"request_id": name, "prompt_token_ids": trace.prompt(k).tolist()}) + "\n")
    pool = str(POOL["blocks"])
    ours = [*KVPREFIX, "replay", str(file), "--num-gpu-blocks", pool, "--ignore-outputs", "--out", str(answers)]
    theirs = [str(python), str(PROJECT / "lib/benchmarks/vllm_blocks.py"), str(file), pool]

    def take_pair(k):
        one, other = run(ours, bench.folder / "derived"), run(theirs, bench.folder / "derived")["inner"]
        totals = json.loads(answers.read_text().splitlines()[-1])["totals"]
        found, said = totals["prefix_cache_hits"], other["hits"]
        note = f"{len(trace):,} requests; cached tokens {found:,}, theirs {said:,}; without the start of vLLM"
        return Pair(one["cpu_s"], other["replay_s"], note)

    return Job(show(ours, bench.folder), show(theirs, bench.folder), take_pair)


def take_turns(jobs, k, note=""):
    """Run both jobs, the other one first every second time."""
    taken = {who: jobs[who]() for who in (list(jobs) if k % 2 else list(jobs)[::-1])}
    return Pair(taken["ours"], taken["theirs"], note)


def compare_commands(bench, ours, theirs, check=None, note="", kept=None):
    """Return a Job of two commands; ours has an empty cache, but for what is in `kept`."""

    def take_pair(k):
        fresh = copy_kept(kept, bench.folder / f"derived-{k}") if kept else bench.folder / "derived"
        shutil.rmtree(bench.folder / "out", ignore_errors=True)
        jobs = {"ours": lambda: run(ours, fresh), "theirs": lambda: run(theirs, bench.folder / "derived")}
        one, other, _ = take_turns(jobs, k)
        memory = f"peak memory {one['peak_mb']:,.0f} MB and {other['peak_mb']:,.0f} MB"
        said = [memory, note, check(one["inner"], other["inner"]) if check else ""]
        return Pair(one["cpu_s"], other["cpu_s"], "; ".join(filter(None, said)))

    return Job(show(ours, bench.folder), show(theirs, bench.folder), take_pair)


def show(command, folder=None):
    """Return a command for the reader: programs and files by name, long arguments cut."""
    texts = [str(one).replace(f"{folder}/", "") for one in command]
    names = [text.rpartition("/")[2] if text.startswith("/") else text for text in texts]
    return " ".join(name if len(name) < 60 and "\n" not in name else "..." for name in names)


def compare_rates(ours, theirs):
    """Say how far the token hit rates of the last half are from those that kvcache-simulator finds."""
    points = {point["cacheBlocks"]: point["results"]["lru"]["hitRate"] for point in theirs["points"]}
    curves = {point["capacity_blocks"]: point["token"] for point in ours["curves"]}
    most = max(abs(points[capacity] - curves[capacity]) for capacity in points)
    return f"the token hit rates of the last half differ by {most:.0e} at most"


CHECKS = {"kvcache-simulator": compare_rates}

ROWS = (
    Row("fresh", "main job, all bundled data", "one Hugging Face pass over the unique texts", "CPU s", prepare_fresh,
        0.5, 0.35, is_share=True),
    Row("cached", "main job from cached tokens, eight data files", f"commit {BEFORE}", "CPU s", prepare_cached,
        0.5, 0.4, is_share=True),
    Row("report", "`make report` after `make env`, nothing cached", f"commit {BEFORE}", "wall s", prepare_report,
        0.4, 0.3, is_share=True, pairs=1, is_asked_for=True),
    Row("sweep", "LRU at ten capacities of a prefix trace, from JSON Lines", name_peer("kvcache-simulator"), "CPU s",
        partial(prepare_sweep, "kvcache-simulator"), 10, 15),
    Row("libcachesim", "LRU at ten capacities, theirs from its own binary file", name_peer("libcachesim"), "CPU s",
        partial(prepare_sweep, "libcachesim"), 6, 10),
    Row("profile", "LRU at ten capacities, against a profile of the trace", name_peer("llmtrafficlens"), "CPU s",
        prepare_profile),
    Row("kvlint", f"prefix hits of {CONVERSATIONS:,} conversations, from text", name_peer("kvlint"), "CPU s",
        partial(prepare_kvlint, CONVERSATIONS), 6, 10),
    Row("kvlint-all", "prefix hits of all bundled conversations, from text", name_peer("kvlint"), "CPU s",
        partial(prepare_kvlint, None), 15, 20, pairs=1),
    Row("memory", "941,450 conversations, all after tokenising: peak anonymous memory", "", "MB",
        partial(prepare_scale, lambda large, small: (large[4], 1)), 6000, 4000, is_share=True, pairs=1),
    Row("growth-time", "from 94,145 conversations to 941,450", "94,145 conversations", "CPU s",
        partial(prepare_scale, lambda large, small: (large[1], small[1])), 11, is_share=True, pairs=1),
    Row("growth-memory", "the same, peak anonymous memory", "94,145 conversations", "MB",
        partial(prepare_scale, lambda large, small: (large[4], small[4])), 8, is_share=True, pairs=1),
    Row("interactive", "a move of the explorer, all bundled data", "", "wall s", prepare_interactive,
        0.5, is_share=True, pairs=1),
    Row("aisimulate", "vLLM's reuse of Mooncake's conversations at three sizes", name_peer("aisimulate"), "CPU s",
        prepare_aisimulate),
    Row("vllm", "cached tokens of real requests, from token ids", name_peer("vllm"), "CPU s", prepare_vllm,
        is_asked_for=True),
)  # fmt: skip
