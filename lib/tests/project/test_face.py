"""The public face: what `import kvprefix as kp` offers, used as a reader of the README would use it."""

import gzip
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
from places import LIB, PROJECT

import kvprefix as kp
from kvprefix.contents import GROUPS, NAMES

CHATS = [
    [
        {"role": "user", "content": f"Question {k % 7} about blocks and caches. " * 4},
        {"role": "assistant", "content": f"Answer {k}. " * 6},
        {"role": "user", "content": "Go on, please."},
        {"role": "assistant", "content": "Gladly."},
    ]
    for k in range(40)
]


@pytest.fixture(params=["a file", "memory"])
def source(request, tmp_path):
    if request.param == "memory":
        return CHATS
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in CHATS))
    return str(path)


@pytest.fixture
def mooncake(tmp_path):
    lines = [{"timestamp": k, "input_length": 1000, "output_length": 5, "hash_ids": [0, k % 3 + 1]} for k in range(9)]
    path = tmp_path / "mooncake.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_the_script_runs(source, mooncake, shared_derived):
    @kp.policy("mine")
    def my_policy(block):  # the leaf with the lowest score goes first
        return block.now + 50 * block.uses

    chats = kp.read_conversations(source)
    work = kp.tokenize(chats, tokenizer="bundled")
    trace = work.multi_turn(kp.Poisson(2.0), kp.Causal(think_median_s=110), seed=0)
    shared = kp.share(trace, block_size=16)
    assert "token hit rate" in str(shared)
    blocks = trace.blocks(16)
    sizes = kp.Memory("Llama-3.1-8B").blocks(gib=[10, 40, 160], block_size=16)
    assert sizes == [5120, 20480, 81920]
    curve = kp.lru_curve(blocks)
    assert curve.plot().axes
    table = kp.sweep(blocks, policies=["lru", "s3fifo", "opt", my_policy], capacities=sizes)
    assert len(table) == 12 and len({row["token"] for row in table}) == 1  # all blocks fit into 5,120
    real = kp.VLLM("0.32", block_size=16, blocks=20_000).replay(trace)
    assert "vLLM" in str(kp.compare(shared, real))
    other = kp.read_trace(mooncake)
    assert len(trace) == 80 and len(other) == 9

    # The numbers, from the prompts alone: the first of each of the 7 questions is new, and so is each conversation's
    # second turn behind what it shares with its first.
    prompts = [trace.prompt(i).tolist() for i in range(len(trace))]
    seen, hits = set(), []
    for prompt in prompts:
        chain = [tuple(prompt[: 16 * (k + 1)]) for k in range(len(prompt) // 16)]
        run = next((k for k, block in enumerate(chain) if block not in seen), len(chain))
        hits.append(16 * min(run, (len(prompt) - 1) // 16))
        seen.update(chain)
    assert shared.hit_tokens.tolist() == hits and sum(hits) > 0
    assert curve.token[-1] == pytest.approx(sum(hits) / sum(map(len, prompts)))
    assert (real.hit_tokens >= shared.hit_tokens).all()  # generated tokens stay cached too


def test_a_file_and_the_same_messages_in_memory_give_the_same(tmp_path, shared_derived):
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps({"messages": one}) + "\n" for one in CHATS))
    traces = [
        kp.tokenize(kp.read_conversations(one)).multi_turn(kp.Poisson(2.0), kp.Causal(), seed=3)
        for one in (path, CHATS)
    ]
    for a, b in zip(traces[0].requests.items(), traces[1].requests.items(), strict=True):
        assert a[1].tolist() == b[1].tolist(), a[0]
    assert all(np.array_equal(traces[0].prompt(i), traces[1].prompt(i)) for i in range(len(CHATS)))


def test_results_show_themselves(mooncake):
    trace = kp.read_trace(mooncake)
    curve, rows = kp.lru_curve(trace), kp.sweep(trace, ["lru", "opt"], [1, 2, 3])
    for one in (curve, rows, kp.Memory("Llama-3.1-8B"), kp.read_conversations(CHATS)):
        text, page = repr(one), one._repr_html_()
        assert "\n" in text and page.startswith("<table") and " at 0x" not in text
    for one in (curve, rows):
        assert len(one.to_frame()) and one.plot()._repr_png_().startswith(b"\x89PNG")
    assert "empty cache" in repr(curve) and "by prompt token" in repr(rows)
    page = kp.read_conversations([{"messages": [{"role": "<b>", "content": "x"}]}])._repr_html_()
    assert "<b>" not in page


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_says_what_it_is(name):
    value = getattr(kp, name)
    assert name in dir(kp) and name in kp.__all__
    if callable(value):
        assert inspect.getdoc(value) and value.__module__.startswith("kvprefix.")


def test_the_table_of_contents_is_short():
    assert 30 <= len(NAMES) <= 42 and sum(map(len, GROUPS.values())) == len(NAMES)
    with pytest.raises(AttributeError, match="no 'shar'; it has .*share"):
        kp.shar  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_used():
    heavy = "{'numpy', 'numba', 'pandas', 'pyarrow', 'transformers', 'matplotlib', 'scipy', 'httpx', 'tqdm'}"
    for code in (
        "import kvprefix",
        "import contextlib, kvprefix.__main__ as m\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(None): m.main(['--help'])",
    ):
        command = f"{code}\nimport sys; found = {heavy} & set(sys.modules); assert not found, found"
        subprocess.run([sys.executable, "-c", command], check=True, cwd=LIB)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: kp.read_conversations(5), "conversations are a int; expected a file, or a list"),
        (lambda: kp.read_conversations(CHATS[0]), "conversation 0 is a single message"),
        (lambda: kp.read_conversations(["x"]), "conversation 0 is a str"),
        (lambda: kp.read_conversations("/no/such/file"), "no such file"),
        (lambda: kp.tokenize(CHATS, tokenizer="/no/such/folder"), "/no/such/folder"),
        (lambda: kp.tokenize(kp.read_conversations([])), "no usable conversation"),
        (lambda: kp.Poisson(0), "expected"),
        (lambda: kp.Poisson("often"), "expected"),
        (lambda: kp.Causal(think_median_s=-1), "expected"),
        (lambda: kp.Memory("No-Such-Model"), "is not known"),
        (lambda: kp.Memory("Llama-3.1-8B").blocks(gib=-1, block_size=16), "expected numbers, 0 or more"),
        (lambda: kp.Memory("Llama-3.1-8B").blocks(gib=1, block_size=0), "expected"),
        (lambda: kp.share(kp.make_trace_of([[1, 2]]), block_size=0), "block size"),
        (lambda: kp.share([[1, 2]], block_size=16), "expected a Trace"),
        (lambda: kp.lru_curve([[1, 2]]), "expected a PrefixTrace"),
        (lambda: kp.lru_curve(kp.make_trace_of([[1, 2]])), "expected a PrefixTrace"),
        (lambda: kp.sweep(kp.make_trace_of([[1, 2]]).blocks(1), ["lrux"], [1]), "'lrux' is not known; known: lru"),
        (lambda: kp.sweep(kp.make_trace_of([[1, 2]]).blocks(1), ["lru"], [0]), "capacity is 0"),
        (lambda: kp.VLLM("0.32", block_size=16, blocks=1), "expected a whole number, 2 or more"),
        (lambda: kp.VLLM("none"), "expected"),
        (lambda: kp.PrefixCache("lru", capacity=0), "capacity is 0"),
        (lambda: kp.compare(), "expected two or more"),
        (lambda: kp.compare(1, 2), "expected what `share` or a `replay` returns"),
        (lambda: kp.read_trace("/no/such/trace"), "/no/such/trace"),
        (lambda: kp.make_trace_of([[-1]]), "expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_what_would_be_right(call, said, shared_derived):
    with pytest.raises(ValueError, match=said):
        call()


def test_the_readme_s_script_is_this_one():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    block = next(part for part in readme.split("```") if part.startswith("python\nimport kvprefix as kp"))
    for line in ("kp.read_conversations(", "work.multi_turn(kp.Poisson(2.0)", "trace.blocks(16)", '@kp.policy("mine")'):
        assert line in block
