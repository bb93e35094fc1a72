"""The engine's replay: hand cases, a twin in plain Python, the command, and recordings where they lie at hand."""

import gzip
import json

import numpy as np
import pytest
from engine_twin import small_runs, summarise, twin_merged, twin_one_by_one
from hypothesis import given, settings
from places import CARRIED, SHARED

from kvprefix.__main__ import main
from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.sharing import measure_hits_with_outputs
from kvprefix.blocks.stretches import find_paths
from kvprefix.engines.overlap import Overlap
from kvprefix.engines.sglang import SGLang
from kvprefix.engines.vllm import VLLM
from kvprefix.files.paths import InputError
from kvprefix.studies.verify import make_recorded, read_lines
from kvprefix.traces.trace import make_trace_of

FIXTURES = SHARED / "fixtures"
recorded = pytest.mark.skipif(
    not (FIXTURES / "sharegpt200_close.jsonl.gz").exists(), reason="the recordings are not part of the repository"
)


def cached(prompts, block_size, blocks=None, *, outputs=None, version="0.32", **names):
    """Return the cached tokens; a prompt "abc" is a token a letter."""
    prompts, outputs = ([list(map(ord, text)) for text in texts or [""] * len(prompts)] for texts in (prompts, outputs))
    trace = make_trace_of(prompts, outputs=outputs, **names)
    return VLLM(version, block_size=block_size, blocks=blocks).replay(trace).hit_tokens.tolist()


# ---- Hand cases


def test_the_last_token_is_always_computed():
    # 8 tokens are 4 blocks of 2. Resent: at most floor(7/2) = 3 blocks hit; 5 tokens: 2; 4 tokens: 1; 2 tokens: 0
    assert cached(["abcdefgh", "abcdefgh", "abcde", "abcd", "ab"], 2) == [0, 6, 4, 2, 0]


def test_equal_tokens_after_another_prefix_are_another_block():
    assert cached(["abcdX", "abefX", "xycdX", "abcdX"], 2) == [0, 2, 0, 4]


def test_a_partial_block_is_never_cached():
    # "abc" leaves (a, b); "abcde" hits it and leaves (c, d)
    assert cached(["abc", "abcde", "abcde"], 2) == [0, 2, 4]


def test_the_last_generated_token_is_never_cached():
    # 6 + 3 tokens: floor((6 + 3 - 1) / 4) = 2 blocks; 6 + 2: floor(7 / 4) = 1
    assert cached(["abcdef", "abcdefghiX"], 4, outputs=["ghi", ""]) == [0, 8]
    assert cached(["abcdef", "abcdefghX"], 4, outputs=["gh", ""]) == [0, 4]
    assert cached(["abcdef", "abcdefghiX"], 4, outputs=["ghi", ""], blocks=9) == [0, 8]


def test_outputs_can_be_left_out():
    trace = make_trace_of([list(b"abcdef"), list(b"abcdefghiX")], outputs=[list(b"ghi"), []])
    assert VLLM(block_size=4, outputs=False).replay(trace).hit_tokens.tolist() == [0, 4]


def test_each_aligned_resend_leaves_a_duplicate():
    # 2 blocks; each resend hits 1 and stores the other again: 2 + 1 + 1 = 4 blocks, 2 contents
    result = VLLM(block_size=2, blocks=100).replay(make_trace_of([[1, 2, 3, 4]] * 3))
    assert (result.cached_hashes, result.blocks_with_hash) == (2, 4)


def test_duplicates_eat_capacity():
    # 4 usable. "abcd" three times fills them: ab, cd, and two more cd. In the queue, next to go first: the tail of
    # each request before its head: cd, cd, cd, ab. "wxyz" takes two of the cd; "abcd." still hits ab and the third cd.
    assert cached(["abcd", "abcd", "abcd", "wxyz", "abcd."], 2, 5) == [0, 2, 2, 0, 4]


def test_the_tail_of_the_oldest_goes_first():
    # 4 usable: "abcd" and "wxyz" fill them. "mn" evicts cd, the oldest's tail; ab stays, so "abcd." hits 2 tokens.
    # It takes ab, then needs 2 new: zy of "wxyz" and its wx, so "wxyz." hits nothing.
    assert cached(["abcd", "wxyz", "mn", "abcd.", "wxyz."], 2, 5) == [0, 0, 0, 2, 0]


def test_a_hit_moves_a_block_back_in_the_queue():
    # 4 usable: ab, cd, wx, yz. "abc" hits ab (and takes cd's place for c, which is freed un-hashed to the front).
    # "mn" takes that. "op" then evicts yz, for ab was freed last: "wxyz." hits wx only, had ab gone first it were 4.
    assert cached(["abcd", "wxyz", "abc", "mn", "op", "wxyz."], 2, 5) == [0, 0, 2, 0, 0, 2]


def test_blocks_without_content_are_used_first_and_last_in_older_versions():
    # 4 usable: "abc" leaves ab and a part of a block, "wxy" wx and a part. "m" takes one part; "abc" hits ab.
    # Older: the queue is [part, ab, part, wx]; "m" takes a part -> [ab, part, wx, m]; "n" evicts ab.
    prompts = ["abc", "wxy", "m", "n", "abc"]
    assert cached(prompts, 2, 5) == [0, 0, 0, 0, 2]
    assert cached(prompts, 2, 5, version="0.22") == [0, 0, 0, 0, 0]


def test_salts_and_adapters_separate_requests():
    prompts = ["abcde"] * 5
    assert cached(prompts, 2, cache_salts=[None, "x", "x", "y", ""]) == [0, 0, 4, 0, 4]
    assert cached(prompts, 2, lora_names=[None, "l", "l", None, "m"]) == [0, 0, 4, 4, 0]
    both = {"cache_salts": ["x", "x", None, "x", None], "lora_names": [None, "l", "l", "l", "l"]}
    assert cached(prompts, 2, **both) == [0, 0, 0, 4, 4]


def test_a_prompt_that_never_fits_is_reported_and_the_others_go_on():
    # 3 usable blocks of 2: 7 tokens need 4
    assert cached(["abcdefg", "abcdef", "abcdefg", "abcdef"], 2, 4) == [-1, 0, -1, 4]


def test_generation_ends_where_the_pool_is_full():
    trace = make_trace_of([[1, 2, 3]], outputs=[[4, 5, 6, 7, 8, 9]])  # 3 + 6 - 1 = 8 tokens in 3 usable blocks of 2
    result = VLLM(block_size=2, blocks=4).replay(trace)
    assert (result.hit_tokens.tolist(), result.outputs_cut, result.cached_hashes) == ([0], 1, 3)
    assert VLLM(block_size=2, blocks=5).replay(trace).outputs_cut == 0


# ---- The twin


@given(small_runs())
@settings(max_examples=400)
def test_small_runs_agree_with_the_twin(run):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    trace = make_trace_of(prompts, outputs=outputs, cache_salts=contexts)
    options = {"version": "0.22" if legacy_free else "0.32", "block_size": block_size, "blocks": size}
    assert summarise(VLLM(**options).replay(trace)) == twin_one_by_one(*run)
    no_outputs = [[] for _ in prompts]
    assert summarise(VLLM(**options, outputs=False).replay(trace)) == twin_one_by_one(prompts, no_outputs, *run[2:])
    assert summarise(VLLM(**options, merge_duplicates=True).replay(trace)) == twin_merged(*run)


@pytest.mark.parametrize("legacy_free", [False, True])
def test_long_runs_agree_with_the_twin(legacy_free):
    # Prompts that go on from any place of earlier ones, in pools that keep some of them: runs are cut again and again.
    rng = np.random.default_rng(5)
    for _ in range(30):
        block_size, size, prompts, outputs = int(rng.integers(1, 4)), int(rng.integers(25, 60)), [], []
        for _ in range(60):
            start = (prompts[rng.integers(len(prompts))] + [7] * 3)[: rng.integers(0, 30)] if prompts else []
            prompts.append(start + rng.integers(0, 2, rng.integers(1, 12)).tolist())
            outputs.append(rng.integers(0, 2, rng.integers(0, 9)).tolist())
        run = prompts, outputs, [""] * 60, block_size, size, legacy_free
        trace = make_trace_of(prompts, outputs=outputs)
        options = {"version": "0.22" if legacy_free else "0.32", "block_size": block_size, "blocks": size}
        assert summarise(VLLM(**options).replay(trace)) == twin_one_by_one(*run)
        assert summarise(VLLM(**options, merge_duplicates=True).replay(trace)) == twin_merged(*run)


@given(small_runs())
def test_paths_that_are_known_change_nothing(run):
    prompts, outputs, contexts, block_size, size, _ = run
    trace = make_trace_of(prompts, outputs=outputs, cache_salts=contexts)
    paths = find_paths(trace, block_size, outputs=True)
    for more in ({}, {"outputs": False}, {"overlap": Overlap()}):
        engine = VLLM(block_size=block_size, blocks=size, **more)
        assert summarise(engine.replay(trace, paths)) == summarise(engine.replay(trace))
    for outputs in (True, False):
        engine = SGLang(block_size=block_size, blocks=size, outputs=outputs)
        assert summarise(engine.replay(trace, paths)) == summarise(engine.replay(trace))


# ---- Invariants


@given(small_runs())
def test_an_unlimited_pool_hits_what_was_seen(run):
    prompts, outputs, _, block_size, *_ = run
    trace = make_trace_of(prompts, outputs=outputs)
    result = VLLM(block_size=block_size).replay(trace)
    assert result.evictions == 0
    assert result.hit_tokens.tolist() == (block_size * measure_hits_with_outputs(trace, block_size)).tolist()
    assert result.cached_hashes == identify_blocks(trace, block_size, outputs=True).n_distinct


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: VLLM(block_size=0), "block size is 0"),
        (lambda: VLLM(block_size=2, blocks=1), "number of GPU blocks is 1; expected a whole number, 2 or"),
        (lambda: make_trace_of([[1, 2**31]]), "prompt 0: "),
        (lambda: make_trace_of([[1], [1.5]]), "prompt 1: "),
        (lambda: make_trace_of([[1, -1]]), "the token id -1"),
        (lambda: make_trace_of([[1]], outputs=[[1], [2]]), "outputs has 2 entries for 1 prompts"),
    ],
)
def test_wrong_input_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_no_requests_give_no_hits():
    assert summarise(VLLM(blocks=100).replay(make_trace_of([]))) == ([], 0, 0)


# ---- The command

LINES = [
    {"request_id": "a", "prompt_token_ids": [1, 2, 3, 4], "output_token_ids": [5, 6, 7], "cache_salt": "x"},
    {"request_id": "b", "prompt_token_ids": [1, 2, 3, 4, 5, 6, 9], "timestamp": 3, "cache_salt": "x"},
    {"request_id": "c", "prompt_token_ids": [1] * 20, "output_token_ids": None},
    {"request_id": "d", "prompt_token_ids": [1, 2, 3]},
]


def run(folder, lines, *options, name="requests.jsonl", compress=bytes):
    """Run the command on lines, dicts or texts; return its exit code and its answers (None: not written)."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / name).write_bytes(compress(text.encode()))
    out = folder / "out.jsonl"
    code = main(["replay", str(folder / name), "--out", str(out), "--block-size", "2", *options])
    return code, [json.loads(line) for line in out.read_text().split("\n")[:-1]] if out.exists() else None


def test_the_command_answers_a_line_a_request_and_the_totals(tmp_path):
    # 9 usable blocks of 2. a leaves floor((4 + 3 - 1) / 2) = 3 blocks, b hits all 3; c needs 10; d has no salt.
    code, (*answers, totals) = run(tmp_path, LINES, "--num-gpu-blocks", "10")
    assert (code, answers) == (0, [
        {"request_id": "a", "num_prompt_tokens": 4, "num_cached_tokens": 0},
        {"request_id": "b", "num_prompt_tokens": 7, "num_cached_tokens": 6},
        {"request_id": "c", "num_prompt_tokens": 20, "num_cached_tokens": None,
         "error": "the prompt needs 10 blocks and the pool has 9"},
        {"request_id": "d", "num_prompt_tokens": 3, "num_cached_tokens": 0},
    ])  # fmt: skip
    totals = totals["totals"]
    assert (totals["requests"], totals["errors"], totals["requests_with_hit"]) == (4, 1, 1)
    assert (totals["prefix_cache_queries"], totals["prefix_cache_hits"], totals["hit_rate"]) == (14, 6, 0.428571)


def test_the_command_s_options(tmp_path):
    assert run(tmp_path, LINES, "--ignore-outputs")[1][1]["num_cached_tokens"] == 4
    assert run(tmp_path, LINES, "--num-gpu-blocks", "unlimited")[1][2]["num_cached_tokens"] == 0
    prompts = [[1, 2, 3], [4, 5, 6], [7], [8], [1, 2, 3]]
    lines = [{"request_id": i, "prompt_token_ids": prompt} for i, prompt in enumerate(prompts)]
    hits = [run(tmp_path, lines, "--num-gpu-blocks", "5", *more)[1][4] for more in ([], ["--legacy-free"])]
    assert [(hit["request_id"], hit["num_cached_tokens"]) for hit in hits] == [(4, 2), (4, 0)]


def test_the_command_reads_gzip_and_blank_lines_and_what_arrow_does_not(tmp_path):
    plain = run(tmp_path, LINES)
    assert run(tmp_path, LINES, compress=gzip.compress) == plain
    assert run(tmp_path, [LINES[0], "", *LINES[1:]]) == plain
    slow = [{**LINES[0], "timestamp": [1], "cache_salt": "x"}, {**LINES[1], "request_id": 7}, *LINES[2:]]
    assert [line.get("num_cached_tokens") for line in run(tmp_path, slow)[1]] == [0, 6, 0, 0, None]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no JSON object"),
        ({"prompt_token_ids": [1]}, "lacks request_id"),
        ({"request_id": "a"}, "lacks prompt_token_ids"),
        ({"request_id": True, "prompt_token_ids": [1]}, "has request_id true"),
        ({"request_id": "a", "prompt_token_ids": 5}, "has prompt_token_ids 5; expected a list"),
        ({"request_id": "a", "prompt_token_ids": []}, "has no prompt_token_ids"),
        ({"request_id": "a", "prompt_token_ids": [1, -1]}, "has -1 among its prompt_token_ids"),
        ({"request_id": "a", "prompt_token_ids": [1, None]}, "has null among"),
        ({"request_id": "a", "prompt_token_ids": [2**31]}, "has 2147483648 among"),
        ({"request_id": "a", "prompt_token_ids": [1.0]}, "has 1.0 among"),
        ({"request_id": "a", "prompt_token_ids": ["1"]}, 'has "1" among'),
        ({"request_id": "a", "prompt_token_ids": [1], "output_token_ids": "x"}, 'has output_token_ids "x"'),
        ({"request_id": "a", "prompt_token_ids": [1], "cache_salt": 5}, "has cache_salt 5; expected a text"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path, capsys, line, said):
    assert run(tmp_path, [*LINES, "", line]) == (2, None)
    error = capsys.readouterr().err
    assert f"requests.jsonl: line 6 {said}" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--block-size", "0"], "block size is 0"),
        (["--block-size", "1.5"], "block size is '1.5'"),
        (["--num-gpu-blocks", "1"], "number of GPU blocks is 1"),
        (["--num-gpu-blocks", "many"], "number of GPU blocks is 'many'"),
    ],
)
def test_a_bad_option_is_refused(tmp_path, capsys, options, said):
    assert run(tmp_path, LINES, *options) == (2, None)
    assert said in capsys.readouterr().err


def test_bad_files_are_refused(tmp_path, capsys):
    assert run(tmp_path, []) == (2, None)
    assert run(tmp_path, LINES, compress=lambda data: gzip.compress(data)[:-20]) == (2, None)
    assert main(["replay", str(tmp_path / "none"), "--out", str(tmp_path / "out.jsonl")]) == 2
    assert main(["replay", str(tmp_path), "--out", str(tmp_path / "out.jsonl")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4 and "holds no requests" in errors[0] and "damaged" in errors[1]
    assert "none: No such file" in errors[2] and "irectory" in errors[3]
    assert not (tmp_path / "out.jsonl").exists()


# ---- What the engine answered


@recorded
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("seq.bs16.nunlimited.cached", ["--num-gpu-blocks", "unlimited"]),
        ("seq.bs16.n2000.cached", ["--num-gpu-blocks", "2000"]),
        ("seq.bs16.n500.cached", ["--num-gpu-blocks", "500"]),
        ("legacyfree.bs16.n500", ["--num-gpu-blocks", "500", "--legacy-free"]),
    ],
)
def test_the_recorded_requests_hit_what_they_hit_in_vllm(tmp_path, name, options):
    out = tmp_path / "out.jsonl.gz"
    source = FIXTURES / "sharegpt200_close.jsonl.gz"
    assert main(["replay", str(source), "--out", str(out), "--block-size", "16", *options]) == 0
    *answers, totals = read_lines(out)
    *expected, expected_totals = read_lines(CARRIED / f"sharegpt200_close.{name}.expected.jsonl.gz")
    assert len(answers) == 893 and answers == expected
    same = ["prefix_cache_queries", "prefix_cache_hits", "hit_rate", "hit_blocks", "requests_with_hit", "errors"]
    for key in [*same, "cached_hashes_at_end", "blocks_with_hash_at_end"]:
        assert totals["totals"][key] == expected_totals["totals"][key], key


def test_the_recorded_hand_cases():
    cases = json.loads((CARRIED / "hand_semantics.json").read_text())
    assert len(cases) == 12
    for case in cases:
        engine = VLLM(block_size=case["block_size"], blocks=case["num_gpu_blocks"])
        result = engine.replay(make_recorded(case["requests"]))
        expected = [-1 if tokens is None else tokens for tokens in case["expected_num_cached_tokens"]]
        assert summarise(result) == (expected, case["cached_hashes_at_end"], case["blocks_with_hash_at_end"]), case


def test_a_live_server_s_answers():
    lines = read_lines(CARRIED / "server_bs32_n200_completions.jsonl.gz")
    result = VLLM(block_size=32, blocks=200).replay(make_recorded(lines))
    assert result.hit_tokens.tolist() == [line["server_cached_tokens"] for line in lines]
    assert len(lines) == 90
