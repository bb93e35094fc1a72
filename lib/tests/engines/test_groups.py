"""Groups of layers: by name, listed in a file, from a config.json; the command; and what is wrong with them."""

import json

import pytest

from kvprefix.__main__ import main
from kvprefix.engines.group_files import read_groups
from kvprefix.engines.group_layers import group_layers
from kvprefix.engines.groups import Group, check_groups, name_groups
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.files.paths import InputError
from kvprefix.models.cards import Card
from kvprefix.models.memory import list_models, load_model
from kvprefix.models.pool import plan_pool

FULL, WINDOW, CHUNK, STATE = Group("full"), Group("window", 64), Group("chunk", 64), Group("state")


def write(folder, content):
    path = folder / "model.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def label(groups):
    sizes = ["" if group.block_size == 16 else f", blocks of {group.block_size}" for group in groups]
    return [group.label + size for group, size in zip(groups, sizes, strict=True)]


# ---- From a config.json


def layers(*kinds, **fields):
    names = {"f": "full_attention", "w": "sliding_attention", "c": "chunked_attention", "s": "linear_attention"}
    text = "".join(kinds)
    return {"num_hidden_layers": len(text), "layer_types": [names[letter] for letter in text]} | fields


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Equal shares: groups of 2, in the order of their first layers.
        (layers("wfwf", sliding_window=128), ["window 128", "full"]),
        # 5 to 1: groups of 1.
        (layers("wwwwwf", sliding_window=64), ["window 64"] * 5 + ["full"]),
        # 7 and 2: groups of 2, the last one of the windows is padded.
        (layers("wwwwfwwwf", sliding_window=64), ["window 64"] * 4 + ["full"]),
        # 4 to 3, less than 1.5 times as many: one group of 4, and one of 3 that is padded.
        (layers("fwfwfwf", sliding_window=64), ["full", "window 64"]),
        # 3 to 2 is 1.5 times as many: groups of 2.
        (layers("fwfwf", sliding_window=64), ["full", "full", "window 64"]),
        (layers("sssf"), ["state"] * 3 + ["full"]),
        (layers("cccf", attention_chunk_size=8192), ["chunk 8192"] * 3 + ["full"]),
        (layers("swf", sliding_window=64), ["state", "window 64", "full"]),
        (layers("ww", sliding_window=64), ["window 64"]),
        (layers("ff"), ["full"]),
        # A token takes half as much in a window: its blocks hold twice as many.
        (layers("wf", sliding_window=64, num_attention_heads=4, num_key_value_heads=2, head_dim=8, global_head_dim=16),
         ["window 64, blocks of 32", "full"]),
        # Full attention alone is one group, whatever heads its layers have.
        ({"num_transformer_layers": 3, "num_query_heads": [12, 16, 20], "num_kv_heads": [3, 4, 5], "head_dim": 64},
         ["full"]),
        # 3 to 2 does not divide: those pages are padded.
        (layers("wf", sliding_window=64, num_attention_heads=4, num_key_value_heads=2, head_dim=16, global_head_dim=24),
         ["window 64", "full"]),
        ({"num_hidden_layers": 8, "full_attention_interval": 4}, ["state"] * 3 + ["full"]),
        ({"num_hidden_layers": 4, "layers_block_type": ["mamba", "attention", "mamba", "mamba"]},
         ["state"] * 3 + ["full"]),
        ({"text_config": {"num_hidden_layers": 3, "sliding_window": 9, "sliding_window_pattern": 3}},
         ["window 9", "window 9", "full"]),
    ],
)  # fmt: skip
def test_layers_are_dealt_into_groups(config, expected, tmp_path):
    assert label(read_groups(write(tmp_path, config))) == expected


@pytest.mark.parametrize("name", list_models()["model"])
def test_a_pool_is_counted_in_the_groups_that_are_replayed(name):
    card = Card("large", 1e8, {"bf16": 1e12}, 1e12)
    pool, groups = plan_pool(name, card), group_layers(load_model(name).row["config"])
    assert pool.groups == len(groups)
    assert pool.tokens == pool.blocks // len(groups) * pool.block_size


def test_a_folder_with_a_config_is_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(layers("wf", sliding_window=9)))
    assert label(read_groups(tmp_path)) == ["window 9", "full"]


def test_a_known_model_has_its_groups_by_its_name():
    assert label(read_groups("gemma-3-27b")) == ["window 1024"] * 6 + ["full"]
    assert label(read_groups("openai/gpt-oss-20b", 128)) == ["window 128", "full"]
    with pytest.raises(InputError, match="^Gemma-3-27B: has a window of 1024, and --window is 64"):
        read_groups("Gemma-3-27B", 64)
    with pytest.raises(InputError, match="^model is 'gema3'; expected full, .* did you mean gemma3.$"):
        read_groups("gema3")


def test_the_window_can_come_from_outside():
    assert label(group_layers(layers("wf"), window=7)) == ["window 7", "full"]
    assert label(group_layers(layers("wf", sliding_window=7), window=7)) == ["window 7", "full"]


@pytest.mark.parametrize(
    ("config", "window", "said"),
    [
        (layers("wf"), None, "sliding_window is missing"),
        (layers("cf"), None, "attention_chunk_size is missing"),
        (layers("wf", sliding_window=64), 128, "has a window of 64, and --window is 128"),
        (layers("ff"), 128, "has no windows or chunks; --window 128 has no meaning"),
        (layers("wf", sliding_window=64) | {"num_hidden_layers": 3}, None, "layer_types has 2 entries"),
        (layers("wf", sliding_window="wide"), None, "sliding_window is 'wide'"),
        (layers("wf", sliding_window=64, num_attention_heads=-8), None, "num_attention_heads is -8"),
        (layers("ff", num_attention_heads=8, num_key_value_heads=3), None, "num_key_value_heads is 3; expected a div"),
        (layers("ff", num_attention_heads=8, hidden_size=90), None, "hidden_size is 90; expected a multiple of the 8"),
        ({"num_hidden_layers": 2, "layer_types": ["mlp", "mlp"]}, None, "no layer keeps anything"),
    ],
)
def test_a_config_that_contradicts_itself_is_named(tmp_path, config, window, said):
    with pytest.raises(InputError) as error:
        read_groups(write(tmp_path, config), window)
    assert str(error.value).startswith(f"{tmp_path / 'model.json'}: {said}")


# ---- Listed in a file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"groups": [{"kind": "full"}, {"kind": "window", "window": 64, "count": 2}]},
         ["full", "window 64", "window 64"]),
        ({"groups": ["full", "window", "chunk"], "window": 8}, ["full", "window 8", "chunk 8"]),
        ({"groups": ["FullAttentionSpec", "MambaSpec"], "block_size": 64},
         ["full, blocks of 64", "state, blocks of 64"]),
        ({"groups": [{"kind": "full", "block_size": 32}, {"kind": "chunk", "chunk": 8}]},
         ["full, blocks of 32", "chunk 8"]),
    ],
)  # fmt: skip
def test_groups_are_listed_in_a_file(tmp_path, content, expected):
    assert label(read_groups(write(tmp_path, content))) == expected


@pytest.mark.parametrize(
    ("content", "window", "said"),
    [
        ("{", None, "not JSON"),
        ([1], None, "has no list of groups"),
        ({"groups": []}, None, "has no list of groups"),
        ({"groups": [{"kind": "wide"}]}, None, "group 1: is {'kind': 'wide'}; expected a kind of full, window"),
        ({"groups": ["full", "window"]}, None, "group 2: has no window; expected its tokens there, or --window"),
        ({"groups": ["full", {"kind": "window", "window": 0}]}, None, "group 2: span of a window group is 0"),
        ({"groups": [{"kind": "window", "window": 9}]}, 8, "group 1: has a window of 9, and --window is 8"),
        ({"groups": [{"kind": "full", "window": 9}]}, None, "group 1: is of kind full and has a window"),
        ({"groups": [{"kind": "full", "layers": 9}]}, None, "group 1: has layers; expected fields of kind, window"),
        ({"groups": [{"kind": "full", "count": 65}]}, None, "group 1: count is 65"),
        ({"groups": [{"kind": "full", "count": 40}] * 2}, None, "more than 64 groups"),
        ({"groups": [{"kind": "full", "block_size": "x"}]}, None, "group 1: block size is 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_list_is_named(tmp_path, content, window, said):
    with pytest.raises(InputError) as error:
        read_groups(write(tmp_path, content), window)
    assert f"model.json: {said}" in str(error.value) and "\n" not in str(error.value)


# ---- By name, and together


def test_names():
    assert label(name_groups("gemma3", 8)) == ["full"] + ["window 8"] * 5
    assert label(name_groups("llama4", 8, 4)) == ["full, blocks of 4"] + ["chunk 8, blocks of 4"] * 3
    with pytest.raises(InputError, match="the model gpt-oss needs --window, the tokens of its window"):
        name_groups("gpt-oss")
    with pytest.raises(InputError, match="has no windows or chunks; --window 8 has no meaning"):
        name_groups("mamba-align", 8)


@pytest.mark.parametrize(
    ("groups", "retention", "drop", "said"),
    [
        ([], 0, False, "the model has no groups"),
        ([FULL, CHUNK, Group("full", None, 32)], 0, False, "block sizes 16, 32 do not align: with chunked groups"),
        ([FULL, CHUNK], 0, True, "--drop-last-unit does not go with chunked groups"),
        ([Group("state", None, 32), FULL], 0, False, "block sizes 16, 32 do not align: a recurrent group needs"),
        ([Group("full", None, 65_521), Group("full", None, 65_537)], 0, False, "least common multiple of the"),
        ([FULL, WINDOW], 17, False, "retention is 17; expected 0, none or a multiple of 16"),
        ([Group("full", None, 24), WINDOW], 16, False, "expected 0, none or a multiple of 48"),
        ([FULL, WINDOW], -16, False, "retention is -16"),
        ([FULL, WINDOW], "16", False, "retention is '16'"),
        ([FULL, CHUNK], 32, False, "the model has no window or recurrent group; expected 0"),
    ],
)  # fmt: skip
def test_groups_that_vllm_cannot_run_are_refused(groups, retention, drop, said):
    with pytest.raises(InputError, match=said):
        check_groups(groups, retention, drop)
    with pytest.raises(InputError, match=said):
        VLLMHybrid(groups, retention=retention, drop_last_unit=drop)


def test_states_with_the_smallest_blocks_align():
    check_groups([Group("full", None, 32), STATE], 32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"version": "0.31"}, "vLLM with groups of layers '0.31' is older than those whose rules are known"),
        ({"blocks": 1}, "number of GPU blocks is 1"),
        ({"step_tokens": 0}, "number of tokens of a step is 0"),
    ],
)
def test_wrong_numbers_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        VLLMHybrid([FULL, WINDOW], **options)


# ---- The command

LINES = [
    {"request_id": "a", "prompt_token_ids": [*range(20)], "output_token_ids": [90]},
    {"request_id": "b", "prompt_token_ids": [*range(12)]},
    {"request_id": "c", "prompt_token_ids": [*range(100, 180)]},
]


def run(folder, *options):
    source, out = folder / "requests.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    code = main(["replay", str(source), "--out", str(out), "--block-size", "4", *options])
    return code, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else None


def test_the_command_replays_a_hybrid(tmp_path):
    # As "shorter sibling misses", by hand: the window keeps blocks 2 and 3 of "a" only. "c" needs 20 blocks twice.
    hybrid = ["--model", "gpt-oss", "--window", "8", "--num-gpu-blocks", "30"]
    code, (*answers, totals) = run(tmp_path, *hybrid)
    assert (code, [one["num_cached_tokens"] for one in answers]) == (0, [0, 0, None])
    assert answers[2]["error"] == "the prompt needs up to 40 blocks in 2 groups and the pool has 29"
    totals = totals["totals"]
    assert (totals["groups"], totals["retention"], totals["block_size"]) == (["full", "window 8"], 0, 4)
    assert totals["hashed_blocks_at_end"] == [8, 4]
    code, (*answers, totals) = run(tmp_path, *hybrid, "--retention", "none")
    assert [one["num_cached_tokens"] for one in answers] == [0, 8, None]
    assert totals["totals"]["retention"] == "none"


def test_the_last_unit_is_dropped_without_a_model_too(tmp_path):
    # "b" hits two blocks of "a": one is computed again.
    assert [one["num_cached_tokens"] for one in run(tmp_path)[1][:2]] == [0, 8]
    assert [one["num_cached_tokens"] for one in run(tmp_path, "--drop-last-unit")[1][:2]] == [0, 4]


def test_a_model_without_hybrid_layers_runs_at_once_too(tmp_path, monkeypatch):
    for line in LINES:
        monkeypatch.setitem(line, "timestamp", 0)
    config = write(tmp_path, layers("ff"))
    plain, read = run(tmp_path, "--concurrent"), run(tmp_path, "--concurrent", "--model", str(config))
    assert plain[0] == 0 and read == plain


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "8"], "--window has a meaning only with --model"),
        (["--retention", "0"], "--retention has a meaning only with --model"),
        (["--model", "gemma3"], "the model gemma3 needs --window"),
        (["--model", "gemma3", "--window", "wide"], "--window is 'wide'; expected a whole number of tokens"),
        (["--model", "gemma3", "--window", "8", "--retention", "some"], "--retention is 'some'; expected 0, none or"),
        (["--model", "gemma3", "--window", "8", "--retention", "6"], "expected 0, none or a multiple of 4"),
        (["--model", "gemma9"], "model is 'gemma9'; expected full, gpt-oss, gemma3"),
        (["--model", "full", "--engine", "sglang"], "--model is a rule of vLLM's"),
        (["--model", "gemma3", "--window", "8", "--concurrent"], "--model is modelled for one request at a time"),
        (["--model", "full", "--legacy-free"], "'0.22' is older than those whose rules are known"),
        (["--model", "full", "--max-num-batched-tokens", "0"], "number of tokens of a step is 0"),
    ],
)
def test_wrong_options_are_refused(tmp_path, capsys, options, said):
    assert run(tmp_path, *options) == (2, None)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
