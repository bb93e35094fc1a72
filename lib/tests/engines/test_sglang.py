"""SGLang's replay: hand cases, a twin in plain Python, what SGLang itself answered, and the command."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED

from kvprefix.__main__ import main
from kvprefix.blocks.identify import identify_blocks
from kvprefix.blocks.sharing import measure_hits_with_outputs
from kvprefix.engines.sglang import SGLang
from kvprefix.files.paths import InputError
from kvprefix.traces.trace import make_trace_of

FIXTURES = SHARED / "fixtures"
REQUESTS = FIXTURES / "sharegpt200_close.jsonl.gz"
recorded = pytest.mark.skipif(not REQUESTS.exists(), reason="the recorded requests are not part of the repository")


def replay(prompts, page_size, capacity=None, outputs=None, **names):
    """Replay; a prompt or an output "abc" is a token a letter, and the capacity counts tokens."""
    prompts, outputs = ([list(map(ord, text)) for text in texts or [""] * len(prompts)] for texts in (prompts, outputs))
    return replay_trace(make_trace_of(prompts, outputs=outputs, **names), page_size, capacity)


def replay_trace(trace, page_size, capacity=None):
    pages = None if capacity is None else capacity // page_size
    return SGLang(block_size=page_size, blocks=pages).replay(trace)


def cached(*arguments, **options):
    return replay(*arguments, **options).hit_tokens.tolist()


# ---- Hand cases


def test_a_token_is_matched_for_itself_but_never_the_last():
    # "abcd" again hits 3 of its 4; "abxy" shares 2; "abcde" has all 4 of "abcd" before its last token
    assert cached(["abcd", "abcd", "abxy", "abcde"], 1) == [0, 3, 2, 4]


def test_pages_are_matched_whole():
    # 3 tokens before the last are 1 page of 2; "abxy" shares page ab; "abcxy" shares ab, for cx is not cd
    assert cached(["abcd", "abcd", "abxy", "abcxy", "abcdef"], 2) == [0, 2, 2, 2, 4]


def test_the_last_generated_token_is_never_cached():
    # 3 + 3 - 1 = 5 tokens: "abcde"; in pages of 2: "abcd"
    assert cached(["abc", "abcdefgh"], 1, outputs=["def", ""]) == [0, 5]
    assert cached(["abc", "abcdefgh"], 2, outputs=["def", ""]) == [0, 4]
    assert replay(["abc"], 1, outputs=["d"]).cached_hashes == 3


def test_nothing_is_kept_twice():
    # Distinct prefixes: a, ab, abc, abcd, abx, abxy
    assert replay(["abcd", "abcd", "abxy", "abcd"], 1).cached_hashes == 6


def test_salts_and_adapters_separate_requests():
    assert cached(["abcd"] * 5, 1, cache_salts=[None, "x", "x", "y", ""]) == [0, 0, 3, 0, 3]
    both = {"cache_salts": ["x", "x", None, "x", None], "lora_names": [None, "l", "l", "l", "l"]}
    assert cached(["abcd"] * 5, 1, **both) == [0, 0, 0, 3, 3]


def test_the_longest_prompt_leaves_room():
    # 20 tokens: refused from 20 - 6 = 14 on; with pages of 8 they wait for ever from 20 -> 24 - 8 = 16 on
    assert cached(["a" * 14, "b" * 13], 1, 20) == [-1, 0]
    assert cached(["a" * 16, "b" * 15], 8, 24) == [-1, 0]


def test_a_leaf_is_evicted_whole_the_oldest_first():
    # 20 tokens. After "a..h" (8) and "m..r" (6) 6 are free. "tuvwxyz" needs 7: one is short, and all of "a..h" goes.
    texts = ["abcdefgh", "mnopqr", "tuvwxyz"]
    assert replay(texts, 1, 20).cached_hashes == 6 + 7
    assert cached([*texts, "abcdefgh"], 1, 20)[3] == 0
    assert cached([*texts, "mnopqr"], 1, 20)[3] == 5


def test_a_lookup_refreshes_the_path_and_the_rest_of_a_node_that_it_splits():
    # 20 tokens. "abcdefgh" (8), "mnop" (4), then "abcdX" splits the first and adds X: 13, 7 free. "12345678" needs 8:
    # mnop was accessed before efgh, though efgh was not hit, so mnop goes.
    texts = ["abcdefgh", "mnop", "abcdX", "12345678"]
    assert cached([*texts, "mnop"], 1, 20)[2:] == [4, 0, 0]
    assert cached([*texts, "abcdefgh"], 1, 20)[4] == 7


def test_the_rest_of_a_split_node_goes_before_what_was_added():
    # 20 tokens: abcd + efgh + X + mnopq = 14. "1234567" needs 7 of 6 free: efgh, not X, is the older leaf
    assert cached(["abcdefgh", "abcdX", "mnopq", "1234567", "abcdXY"], 1, 20)[4] == 5
    assert cached(["abcdefgh", "abcdX", "mnopq", "1234567", "abcdefg"], 1, 20)[4] == 4


def test_generated_tokens_are_a_leaf_of_their_own():
    # 20 tokens. "abcd" with "efghX" leaves abcd and efgh, not one node of 8. "mnopqrs" (7): 15, 5 free. "12345678"
    # needs 8: efgh goes, 9 are free, abcd stays.
    assert cached(["abcd", "mnopqrs", "12345678", "abcdefgh"], 1, 20, ["efghX", "", "", ""])[3] == 4


def test_a_parent_becomes_a_leaf():
    # As before, but "1234567890" needs 10: efgh, then abcd, which no node is below any more: 13 are free.
    texts = ["abcd", "mnopqrs", "1234567890"]
    assert replay(texts, 1, 20, ["efghX", "", ""]).cached_hashes == 17
    assert cached([*texts, "abcde"], 1, 20, ["efghX", "", "", ""])[3] == 0


def test_with_pages_a_page_more_than_needed_is_made_free():
    # 12 pages of 2. "a..h" and "i..p" take 8; 4 are free. "12345" needs 5 tokens + 2 of 8: nothing goes. It takes 3
    # pages, and returns its half page: 2 stay; 2 free. "qrst" needs 4 + 2 = 6 of 4 although its 2 pages are there.
    texts = ["abcdefgh", "ijklmnop", "12345", "qrst"]
    assert cached([*texts, "abcdefghX"], 2, 24)[4] == 0
    assert cached([*texts[:3], "abcdefghX"], 2, 24)[3] == 8


def test_while_tokens_are_generated_a_page_is_kept_free():
    # 12 pages of 2, 8 taken. "12" with "345" computes 4 tokens, 2 pages; "12" needs 2 + 2 of 8. Before 3 one page of 3
    # must be free, before 4, which needs none, one of 2: nothing goes. With 7 tokens, 4 pages: before the 7th one of 0.
    before = ["abcdefgh", "ijklmnop"]
    assert cached([*before, "12", "abcdefghX"], 2, 24, ["", "", "345", ""])[3] == 8
    assert cached([*before, "12", "abcdefghX"], 2, 24, ["", "", "3456789", ""])[3] == 0


def test_generation_ends_where_the_pool_is_full():
    # 20 tokens: 10 + at most 20 - 10 - 2 = 8 generated ones, the last not cached: 17 stay
    result = replay(["a" * 10], 1, 20, ["b" * 30])
    assert (result.cached_hashes, result.outputs_cut) == (17, 1)
    # Pages of 4: 20 - 12 - 4 - 1 = 3 generated ones: 12 tokens, 3 pages
    result = replay(["a" * 10], 4, 20, ["b" * 30])
    assert (result.cached_hashes, result.outputs_cut) == (3, 1)
    assert replay(["a" * 10], 4, 20, ["b" * 3]).outputs_cut == 0


def test_a_trace_is_replayed_as_its_requests_and_without_its_template():
    prompts, outputs = [[1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 9]], [[4, 6], [], []]
    trace = make_trace_of(prompts, outputs=outputs)
    assert replay_trace(trace, 1).hit_tokens.tolist() == [0, 4, 2]
    assert SGLang(outputs=False).replay(trace).hit_tokens.tolist() == [0, 3, 2]
    trace.tokens.own_is_template[0] = True  # the first request's 1: only the third one's (1 2) was seen then
    assert replay_trace(trace.without_template(), 1).hit_tokens.tolist() == [0, 0, 2]


@pytest.mark.parametrize("page_size", [1, 4])
def test_many_tokens_outgrow_the_first_arena(page_size):
    # 300 prompts of 5,000 tokens, each with 1,000 of the one before: the last copies of what is left must be right
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 2**31, 5000, np.int32) for _ in range(300)]
    for one, other in zip(prompts, prompts[1:], strict=False):
        other[:1000] = one[:1000]
    result = replay_trace(make_trace_of(prompts), page_size, 40_000)
    assert result.hit_tokens.tolist() == [0] + [1000] * 299
    unlimited = replay_trace(make_trace_of(prompts), page_size)
    assert unlimited.cached_hashes == (1000 + 300 * 4000) // page_size


# ---- A twin in plain Python


class Node:
    """A node; time is when it was last accessed."""

    def __init__(self, tokens, parent, time):
        self.tokens, self.parent, self.children, self.time, self.locked = tokens, parent, [], time, 0


class Twin:
    """The cache again, with nodes as objects: an eviction looks at all leaves, a generated token is a step."""

    def __init__(self, page, capacity):
        self.page, self.free, self.roots, self.now = page, capacity, {}, 0

    def tick(self):
        self.now += 1
        return self.now

    def nodes(self, node=None):
        for child in (child for one in ([node] if node else self.roots.values()) for child in one.children):
            yield child
            yield from self.nodes(child)

    def down(self, root, tokens):
        """Go down as far as tokens match in whole pages, splitting where they end; return (node, matched)."""
        node, done, path = root, 0, [root]
        while len(tokens) - done >= self.page:
            rest = tokens[done:]
            child = next((one for one in node.children if one.tokens[: self.page] == rest[: self.page]), None)
            if child is None:
                break
            same = 0
            while child.tokens[same : same + self.page] == rest[same : same + self.page] != ():
                if same + self.page > min(len(child.tokens), len(rest)):
                    break
                same += self.page
            if same < len(child.tokens):
                top = Node(child.tokens[:same], node, 0)
                node.children[node.children.index(child)] = top
                top.children, child.parent, child.tokens = [child], top, child.tokens[same:]
                top.locked, child.time = child.locked, self.tick()
                child = top
            node, done = child, done + same
            path.append(node)
        time = self.tick()
        for one in path:
            one.time = time
        return node, done

    def insert(self, root, tokens):
        """Store whole pages; return (the last node, how many tokens were there)."""
        tokens = tokens[: len(tokens) // self.page * self.page]
        node, done = self.down(root, tokens)
        if done < len(tokens):
            node.children.append(Node(tokens[done:], node, self.tick()))
            node = node.children[-1]
        return node, done

    def make_room(self, tokens):
        while self.free < tokens:
            leaves = [one for one in self.nodes() if not one.children and not one.locked]
            if not leaves:
                return
            oldest = min(leaves, key=lambda one: one.time)
            oldest.parent.children.remove(oldest)
            self.free += len(oldest.tokens)

    def lock(self, node, by):
        while node.parent is not None:
            node.locked += by
            node = node.parent

    def serve(self, prompt, output, context, capacity):
        page, n = self.page, len(prompt)
        if n >= capacity - 6 or n + page >= capacity:
            return -1
        k = max(1, min(len(output), capacity - n - 2, capacity - (n + page - 1) // page * page - page - 1))
        root = self.roots.setdefault(context, Node((), None, 0))
        usable = prompt[: (n - 1) // page * page]
        node, hit = self.down(root, usable) if usable else (root, 0)
        self.lock(node, 1)
        self.make_room(n - hit if page == 1 else n - hit + page)
        held = (n + page - 1) // page * page
        self.free -= held - hit
        assert self.free >= 0
        inserted = hit
        for step in range(1, k + 1):  # the step-th token is known now
            tokens = prompt + output[: step - 1]
            if step in (1, k):
                self.lock(node, -1)
                node, there = self.insert(root, tokens)
                self.lock(node, 1)
                self.free += there - inserted
                inserted = len(tokens) // page * page
            if step < k:
                self.make_room(page)
                if len(tokens) % page == 0:
                    self.free -= page
                    assert self.free >= 0
        self.free += page if len(tokens) % page else 0
        self.lock(node, -1)
        assert self.free + self.size() == capacity
        return hit

    def size(self):
        return sum(len(one.tokens) for one in self.nodes())


@st.composite
def small_runs(draw):
    """Draw prompts, outputs, contexts, a page size and a capacity."""
    page = draw(st.sampled_from([1, 1, 2, 3]))
    pages = draw(st.integers(-(-8 // page), 14))
    token = st.integers(0, 2)
    prompts, outputs, contexts = [], [], []
    for _ in range(draw(st.integers(1, 14))):
        start = []
        if prompts and draw(st.booleans()):
            earlier = draw(st.integers(0, len(prompts) - 1))
            start = (prompts[earlier] + outputs[earlier])[: draw(st.integers(0, 12))]
        prompts.append(start + draw(st.lists(token, min_size=not start, max_size=9)))
        outputs.append(draw(st.lists(token, max_size=7)))
        contexts.append(draw(st.sampled_from(["", "", "x"])))
    return prompts, outputs, contexts, page, pages * page


@settings(max_examples=300)
@given(small_runs())
def test_replays_equal_the_twin(run):
    prompts, outputs, contexts, page, capacity = run
    twin = Twin(page, capacity)
    expected = [
        twin.serve(tuple(prompt), tuple(output), context, capacity)
        for prompt, output, context in zip(prompts, outputs, contexts, strict=True)
    ]
    result = replay_trace(make_trace_of(prompts, outputs=outputs, cache_salts=contexts), page, capacity)
    assert result.hit_tokens.tolist() == expected
    assert result.cached_hashes * page == twin.size()


@given(small_runs())
def test_an_unlimited_pool_hits_what_was_seen(run):
    prompts, outputs, _, page, _ = run
    trace = make_trace_of(prompts, outputs=outputs)
    result = replay_trace(trace, page)
    assert result.hit_tokens.tolist() == (page * measure_hits_with_outputs(trace, page)).tolist()
    assert result.cached_hashes == identify_blocks(trace, page, outputs=True).n_distinct


# ---- What SGLang 0.5.23 answered: its RadixCache and its UnifiedRadixCache alike, driven request by request


@recorded
@pytest.mark.parametrize(
    ("page_size", "capacity", "hit_tokens", "tree_tokens"),
    [
        (16, 8_000, 69_280, 7_968), (16, 32_000, 577_104, 31_744), (16, None, 577_504, 301_840),
        (1, 8_000, 80_985, 7_974), (1, 32_000, 584_768, 31_671), (1, None, 584_833, 301_160),
    ],
)  # fmt: skip
def test_the_recorded_requests_hit_what_they_hit_in_sglang(page_size, capacity, hit_tokens, tree_tokens):
    with gzip.open(REQUESTS, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    prompts, outputs = ([line[name] for line in lines] for name in ("prompt_token_ids", "output_token_ids"))
    result = replay_trace(make_trace_of(prompts, outputs=outputs), page_size, capacity)
    assert (result.hit_tokens >= 0).all()
    assert (result.hit_tokens.sum(), result.cached_hashes * page_size) == (hit_tokens, tree_tokens)


# ---- The command, and wrong input


def run_command(folder, *options):
    lines = [{"request_id": "a", "prompt_token_ids": [1, 2, 3, 4], "output_token_ids": [5, 6, 7]},
             {"request_id": "b", "prompt_token_ids": [1, 2, 3, 4, 5, 6, 9]},
             {"request_id": "c", "prompt_token_ids": [1] * 20}]  # fmt: skip
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = folder / "out.jsonl"
    code = main(["replay", str(folder / "in.jsonl"), "--engine", "sglang", "--out", str(out), *options])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else None


def test_the_command_answers_for_sglang(tmp_path):
    # 10 pages of 2: "c" needs 20 tokens and 20 - 6 - 1 = 13 are the most. "b" hits (1 2)(3 4)(5 6).
    code, (*answers, totals) = run_command(tmp_path, "--block-size", "2", "--num-gpu-blocks", "10")
    assert (code, [line["num_cached_tokens"] for line in answers]) == (0, [0, 6, None])
    assert answers[2]["error"] == "the prompt has 20 tokens and SGLang takes 13 at most with this pool"
    totals = totals["totals"]
    assert (totals["engine"], totals["num_gpu_blocks"], totals["errors"]) == ("sglang", 10, 1)
    assert (totals["prefix_cache_queries"], totals["prefix_cache_hits"]) == (11, 6)
    code, (*answers, _) = run_command(tmp_path, "--block-size", "1", "--ignore-outputs")
    assert [line["num_cached_tokens"] for line in answers] == [0, 4, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--legacy-free"], "--legacy-free is a rule of vLLM's"),
        (["--block-size", "0"], "block size is 0"),
        (["--num-gpu-blocks", "0"], "number of GPU blocks is 0; expected a whole number, 1 or more"),
        (["--num-gpu-blocks", "many"], "number of GPU blocks is 'many'"),
    ],
)
def test_a_bad_option_is_refused(tmp_path, capsys, options, said):
    assert run_command(tmp_path, *options) == (2, None)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("pages", [0, -1, True, 16.0, 2**58])
def test_a_pool_has_whole_pages(pages):
    with pytest.raises(InputError, match=f"number of GPU blocks is {pages}; expected a whole number, 1 or more, or"):
        SGLang(block_size=16, blocks=pages)


def test_no_requests_give_no_hits():
    result = SGLang(block_size=16, blocks=10).replay(make_trace_of([]))
    assert (result.hit_tokens.tolist(), result.cached_hashes) == ([], 0)
