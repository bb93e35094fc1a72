"""The engine's replay: hand cases, a twin in plain Python, the command, and recordings where they lie at hand."""

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvprefix.__main__ import main
from kvprefix.blocks import identify_blocks
from kvprefix.engine import Overlap, make_requests, replay_vllm
from kvprefix.files import InputError
from kvprefix.sharing import measure_hits_with_outputs
from kvprefix.trace import make_trace_of

FIXTURES = Path(__file__).resolve().parents[3] / "shared" / "fixtures"
recorded = pytest.mark.skipif(
    not (FIXTURES / "hand_semantics.json").exists(), reason="the recordings are not part of the repository"
)


def cached(prompts, block_size, num_gpu_blocks=None, *, outputs=None, **options):
    """Return the cached tokens; a prompt "abc" is a token a letter."""
    names = {name: options.pop(name) for name in ("cache_salts", "lora_names") if name in options}
    prompts, outputs = ([list(map(ord, text)) for text in texts or [""] * len(prompts)] for texts in (prompts, outputs))
    requests = make_requests(prompts, outputs, **names)
    return replay_vllm(requests, block_size, num_gpu_blocks, **options).cached_tokens.tolist()


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
    assert cached(["abcdef", "abcdefghiX"], 4, outputs=["ghi", ""], **{"num_gpu_blocks": 9}) == [0, 8]


def test_outputs_can_be_left_out():
    requests = make_requests([list(b"abcdef"), list(b"abcdefghiX")], [list(b"ghi"), []])
    assert replay_vllm(requests, 4, outputs=False).cached_tokens.tolist() == [0, 4]


def test_each_aligned_resend_leaves_a_duplicate():
    # 2 blocks; each resend hits 1 and stores the other again: 2 + 1 + 1 = 4 blocks, 2 contents
    result = replay_vllm(make_requests([[1, 2, 3, 4]] * 3), 2, 100)
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
    assert cached(prompts, 2, 5, legacy_free=True) == [0, 0, 0, 0, 0]


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
    requests = make_requests([[1, 2, 3]], [[4, 5, 6, 7, 8, 9]])  # 3 + 6 - 1 = 8 tokens in 3 usable blocks of 2
    result = replay_vllm(requests, 2, 4)
    assert (result.cached_tokens.tolist(), result.outputs_cut, result.cached_hashes) == ([0], 1, 3)
    assert replay_vllm(requests, 2, 5).outputs_cut == 0


# ---- Overlapping requests, by hand: blocks of 2, first token after 4 s, then one a second


def overlapping(prompts, outputs, arrival_s, num_gpu_blocks):
    requests = make_requests([list(map(ord, text)) for text in prompts], [list(map(ord, text)) for text in outputs])
    return replay_vllm(requests, 2, num_gpu_blocks, overlap=Overlap(arrival_s, 4, 1))


def test_a_prompt_is_visible_when_it_is_admitted():
    assert overlapping(["abcde", "abcde"], ["", ""], [0, 0], 100).cached_tokens.tolist() == [0, 4]


def test_who_finds_no_room_waits_for_who_came_before():
    # 3 usable. "abcd" holds 2 from 0 s to 4 s (no output). "wxyz" needs 2: waits until 4 s; "m" would fit, but waits.
    result = overlapping(["abcd", "wxyz", "m"], ["", "", ""], [0, 1, 2], 4)
    assert result.admitted_s.tolist() == [0, 4, 4]
    assert result.finished_s.tolist() == [4, 8, 8]


def test_held_blocks_are_not_evicted_and_need_no_room():
    # 3 usable, "abcd" holds 2. "abcde" hits both of them and takes the third: no wait. "abcd" ends at 4 s, but all
    # three are held until "abcde" ends at 5 s: "z" waits until then.
    result = overlapping(["abcd", "abcde", "z"], ["", "", ""], [0, 1, 1], 4)
    assert (result.cached_tokens.tolist(), result.admitted_s.tolist()) == ([0, 4, 0], [0, 1, 5])


def test_hits_that_nobody_holds_need_room_too():
    # 3 usable. "abcd" is gone at 4 s. "w" holds one block from 5 s to 9 s: of [new, cd, ab] the new one.
    # "abcde" hits ab and cd and needs one more: 1 + 2 > 2 free, so it waits until 9 s.
    result = overlapping(["abcd", "w", "abcde"], ["", "", ""], [0, 5, 6], 4)
    assert (result.cached_tokens.tolist(), result.admitted_s.tolist()) == ([0, 0, 4], [0, 5, 9])


def test_a_request_that_grows_takes_the_blocks_of_the_last_one_admitted():
    # 2 usable, one block each. "ab" knows its first token at 4 s and needs a block for it: "x" (admitted later) gives
    # its own back, still without a token. "ab" has 2 tokens, the last at 5 s, and ends at 6 s; then "x" is admitted
    # again and is done, its 1 token included, at 6 + 4 + 1 = 11 s.
    result = overlapping(["ab", "x"], ["cd", "y"], [0, 1], 3)
    assert result.preemptions.tolist() == [0, 1]
    assert (result.admitted_s.tolist(), result.finished_s.tolist()) == ([0, 1], [6, 11])


# ---- The twin: everything token by token, in lists


class Pool:
    """The blocks of vLLM: a list of free ones, what each holds, and who holds it."""

    def __init__(self, size, block_size, legacy_free):
        self.free, self.content, self.holders = list(range(1, size)), {}, dict.fromkeys(range(size), 0)
        self.block_size, self.legacy_free = block_size, legacy_free

    def find(self, tokens, context):
        found = []
        for end in range(self.block_size, len(tokens), self.block_size):  # never all the tokens
            equal = [block for block, held in self.content.items() if held == (context, tuple(tokens[:end]))]
            if not equal:
                break
            found.append(equal[0])  # a dict keeps the order in which contents were stored
        return found

    def admit(self, tokens, context):
        """Return (hits, block table), or None where there is no room."""
        hits = self.find(tokens, context)
        n_new = math.ceil(len(tokens) / self.block_size) - len(hits)
        if n_new + sum(block in self.free for block in hits) > len(self.free):
            return None
        self.free = [block for block in self.free if block not in hits]
        table = hits + [self.take() for _ in range(n_new)]
        for block in hits:
            self.holders[block] += 1
        for k in range(len(hits), len(tokens) // self.block_size):
            self.store(table[k], tokens[: (k + 1) * self.block_size], context)
        return len(hits), table

    def take(self):
        block = self.free.pop(0)
        self.content.pop(block, None)
        self.holders[block] = 1
        return block

    def store(self, block, tokens, context):
        self.content[block] = (context, tuple(tokens))

    def release(self, table):
        for block in reversed(table):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                to_front = block not in self.content and not self.legacy_free
                self.free.insert(0 if to_front else len(self.free), block)

    def compute(self, table, tokens, context):
        """Compute the last of the tokens: take a block if it begins one (the caller made room), store a full one."""
        if (len(tokens) - 1) % self.block_size == 0:
            table.append(self.take())
        if len(tokens) % self.block_size == 0:
            self.store(table[-1], tokens, context)


def twin_one_by_one(prompts, outputs, contexts, block_size, size, legacy_free):
    pool, hits = Pool(size, block_size, legacy_free), []
    for prompt, output, context in zip(prompts, outputs, contexts, strict=True):
        if math.ceil(len(prompt) / block_size) > size - 1:
            hits.append(-1)
            continue
        n_hits, table = pool.admit(prompt, context)
        for k in range(1, len(output)):
            if len(prompt) + k <= block_size * (size - 1):
                pool.compute(table, prompt + output[:k], context)
        pool.release(table)
        hits.append(n_hits * block_size)
    return hits, len(set(pool.content.values())), len(pool.content)


def twin_overlapping(prompts, outputs, contexts, block_size, size, legacy_free, arrival_s, first_s, token_s):
    """Look at every whole second."""
    n, pool = len(prompts), Pool(size, block_size, legacy_free)
    room = block_size * (size - 1)
    fits = [len(prompt) <= room for prompt in prompts]
    all_tokens = [
        prompt + (output if len(prompt) + len(output) - 1 <= room else output[: max(room - len(prompt), 0)])
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    to_compute = [
        max(len(prompt), len(prompt) + len(output) - 1 if len(prompt) + len(output) - 1 <= room else room)
        for prompt, output in zip(prompts, outputs, strict=True)
    ]
    hits, admitted_s, preempted = [-1] * n, [math.nan] * n, [0] * n
    finished_s, known = [math.nan] * n, [len(prompt) for prompt in prompts]
    queue, running, now, closed_until = [], [], -1, -1  # running: [request, began, known at admission, table]
    while running or queue or any(second > now for second in arrival_s):
        now += 1
        for entry in list(running):
            i, began, start, table = entry
            if now == began + (len(all_tokens[i]) - start) * token_s:
                pool.release(table)
                running.remove(entry)
                finished_s[i] = now
        due = [
            entry for entry in running
            if now >= entry[1] and (now - entry[1]) % token_s == 0
            and entry[2] + (now - entry[1]) // token_s < to_compute[entry[0]]
        ]  # fmt: skip
        for i, began, start, _ in due:
            known[i] = start + (now - began) // token_s + 1
        for entry in due:
            i, table = entry[0], entry[3]
            while entry in running and (known[i] - 1) % block_size == 0 and not pool.free:
                last = running.pop()
                pool.release(last[3])
                preempted[last[0]] += 1
                queue.insert(0, last[0])
                closed_until = now + token_s
            if entry in running:
                pool.compute(table, all_tokens[i][: known[i]], contexts[i])
        queue += [i for i in range(n) if arrival_s[i] == now and fits[i]]
        while queue and (now >= closed_until or not running):
            i = queue[0]
            admission = pool.admit(all_tokens[i][: known[i]], contexts[i])
            if admission is None:
                break
            queue.pop(0)
            if hits[i] < 0:
                hits[i], admitted_s[i] = admission[0] * block_size, now
            running.append([i, now + first_s, known[i], admission[1]])
    return (hits, len(set(pool.content.values())), len(pool.content)), admitted_s, finished_s, preempted


@st.composite
def small_runs(draw):
    """Draw prompts and outputs that often go on from one another, and a pool."""
    prompts, outputs = [], []
    letters = st.lists(st.integers(0, 1), max_size=6)
    for _ in range(draw(st.integers(1, 9))):
        before = draw(st.sampled_from([[], *[a + b for a, b in zip(prompts, outputs, strict=True)]]))
        kept = before[: draw(st.integers(0, len(before)))] if draw(st.booleans()) else before
        prompts.append((kept + draw(letters))[:24] or [0])
        outputs.append(draw(letters))
    contexts = draw(st.lists(st.sampled_from(["", "", "x"]), min_size=len(prompts), max_size=len(prompts)))
    return prompts, outputs, contexts, draw(st.integers(1, 4)), draw(st.integers(2, 16)), draw(st.booleans())


def summarise(result):
    return result.cached_tokens.tolist(), result.cached_hashes, result.blocks_with_hash


@given(small_runs())
@settings(max_examples=400)
def test_small_runs_agree_with_the_twin(run):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    requests = make_requests(prompts, outputs, cache_salts=contexts)
    assert summarise(replay_vllm(requests, block_size, size, legacy_free=legacy_free)) == twin_one_by_one(*run)
    no_outputs = [[] for _ in prompts]
    assert summarise(replay_vllm(requests, block_size, size, legacy_free=legacy_free, outputs=False)) == (
        twin_one_by_one(prompts, no_outputs, *run[2:])
    )


@given(small_runs(), st.data())
@settings(max_examples=600)
def test_small_overlapping_runs_agree_with_the_twin(run, data):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    seconds = st.lists(st.integers(0, 12), min_size=len(prompts), max_size=len(prompts))
    arrival_s = sorted(data.draw(seconds))
    first_s, token_s = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 2))
    requests = make_requests(prompts, outputs, cache_salts=contexts)
    overlap = Overlap(arrival_s, first_s, token_s)
    result = replay_vllm(requests, block_size, size, legacy_free=legacy_free, overlap=overlap)
    expected, admitted_s, finished_s, preempted = twin_overlapping(*run, arrival_s, first_s, token_s)
    assert result.preemptions.tolist() == preempted
    np.testing.assert_array_equal(result.admitted_s, admitted_s)
    np.testing.assert_array_equal(result.finished_s, finished_s)
    assert summarise(result) == expected


# ---- Invariants


@given(small_runs())
def test_requests_far_apart_do_not_overlap(run):
    prompts, outputs, contexts, block_size, size, legacy_free = run
    requests = make_requests(prompts, outputs, cache_salts=contexts)
    overlap = Overlap(1000 * np.arange(len(prompts)), 0.5, 0.03)
    alone = replay_vllm(requests, block_size, size, legacy_free=legacy_free)
    assert summarise(replay_vllm(requests, block_size, size, legacy_free=legacy_free, overlap=overlap)) == (
        summarise(alone)
    )


@given(small_runs())
def test_an_unlimited_pool_hits_what_was_seen(run):
    prompts, outputs, _, block_size, *_ = run
    trace = make_trace_of(prompts, outputs=outputs)
    result = replay_vllm(trace, block_size)
    assert result.cached_tokens.tolist() == (block_size * measure_hits_with_outputs(trace, block_size)).tolist()
    assert result.cached_hashes == identify_blocks(trace, block_size, outputs=True).n_distinct


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: replay_vllm(make_requests([[1]]), 0), "block size is 0"),
        (lambda: replay_vllm(make_requests([[1]]), 2, 1), "number of GPU blocks is 1; expected a whole number, 2 or"),
        (lambda: replay_vllm(make_requests([[1]]), 2, overlap=Overlap([1, 2])), "1 ascending numbers"),
        (lambda: Overlap([0], 0.0), "first_token_s is 0.0; expected seconds above 0"),
        (lambda: make_requests([[1, 2**31]]), "prompt 0: "),
        (lambda: make_requests([[1], [1.5]]), "prompt 1: "),
        (lambda: make_requests([[1, -1]]), "the token id -1"),
        (lambda: make_requests([[1]], [[1], [2]]), "outputs has 2 entries for 1 prompts"),
    ],
)
def test_wrong_input_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_no_requests_give_no_hits():
    assert summarise(replay_vllm(make_requests([]), 16, 100)) == ([], 0, 0)


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
    assert not (tmp_path / "out.jsonl").exists()


# ---- What the engine answered


def read_lines(path):
    with gzip.open(FIXTURES / path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


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
    *expected, expected_totals = read_lines(f"sharegpt200_close.{name}.expected.jsonl.gz")
    assert len(answers) == 893 and answers == expected
    same = ["prefix_cache_queries", "prefix_cache_hits", "hit_rate", "hit_blocks", "requests_with_hit", "errors"]
    for key in [*same, "cached_hashes_at_end", "blocks_with_hash_at_end"]:
        assert totals["totals"][key] == expected_totals["totals"][key], key


def make_recorded(lines):
    columns = [[line.get(name) for line in lines] for name in ("prompt_token_ids", "output_token_ids")]
    names = [[line.get(name) for line in lines] for name in ("cache_salt", "lora_name")]
    return make_requests(*columns, cache_salts=names[0], lora_names=names[1])


@recorded
def test_the_recorded_hand_cases():
    cases = json.loads((FIXTURES / "hand_semantics.json").read_text())
    assert len(cases) == 12
    for case in cases:
        result = replay_vllm(make_recorded(case["requests"]), case["block_size"], case["num_gpu_blocks"])
        expected = [-1 if tokens is None else tokens for tokens in case["expected_num_cached_tokens"]]
        assert summarise(result) == (expected, case["cached_hashes_at_end"], case["blocks_with_hash_at_end"]), case


@recorded
def test_a_live_server_s_answers():
    lines = read_lines("server_bs32_n200_completions.jsonl.gz")
    result = replay_vllm(make_recorded(lines), 32, 200)
    assert result.cached_tokens.tolist() == [line["server_cached_tokens"] for line in lines]
    assert len(lines) == 90
