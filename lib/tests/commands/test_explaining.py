"""The commands that explain hits and misses: their keys, their files, and mistakes in one line."""

import json

import pandas as pd
import pytest
from places import SAMPLE

from kvprefix.__main__ import main
from kvprefix.explain.misses import CLASSES
from kvprefix.explain.provenance import ORIGINS


def run_json(capsys, command, *extra, data=SAMPLE):
    assert main([command, str(data), *extra, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def blocks(tmp_path):
    lines = [{"timestamp": k, "input_length": 1000, "output_length": 5, "hash_ids": [0, k % 3 + 1]} for k in range(9)]
    path = tmp_path / "blocks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def requests(tmp_path):
    prompts = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5, 9, 9]]
    lines = [{"request_id": f"r{k}", "timestamp": k, "prompt_token_ids": one, "output_token_ids": [9, 9, 9]}
             for k, one in enumerate(prompts)]  # fmt: skip
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_provenance_of_chats(capsys, tmp_path):
    rows = tmp_path / "rows.csv"
    found = run_json(capsys, "provenance", "--out", str(rows))
    assert set(found) == {
        "requests", "prompt_tokens", "hit_tokens", "partition_tokens", "holders_tokens", "writers_tokens"
    }  # fmt: skip
    assert list(found["partition_tokens"]) == list(ORIGINS)
    assert sum(found["partition_tokens"].values()) == found["prompt_tokens"]
    assert sum(found["holders_tokens"].values()) == sum(found["writers_tokens"].values()) == found["hit_tokens"] > 0
    table = pd.read_csv(rows)
    assert table[list(ORIGINS)].sum().to_dict() == found["partition_tokens"]
    assert (table[list(ORIGINS)].sum(axis=1) == table["prompt_tokens"]).all() and len(table) == found["requests"]
    bounded = run_json(capsys, "provenance", "--capacity", "20", "--policy", "fifo", "--mode", "single_turn")
    assert bounded["capacity_blocks"] == 20 and bounded["partition_tokens"]["own_turns"] == 0


def test_misses_of_chats(capsys, tmp_path):
    rows = tmp_path / "rows.parquet"
    found = run_json(capsys, "misses", "--capacities", "20,unbounded", "--outputs-cached", "--out", str(rows))
    assert list(found["capacities"]) == ["20", "unbounded"]
    for one in found["capacities"].values():
        assert list(one["tokens"]) == list(CLASSES) and sum(one["tokens"].values()) == found["prompt_tokens"]
    table = pd.read_parquet(rows).groupby("capacity_blocks")[list(CLASSES)].sum()
    assert all(table.loc[name].to_dict() == one["tokens"] for name, one in found["capacities"].items())
    routed = run_json(capsys, "misses", "--replicas", "2", "--router", "rr")
    assert routed["router"] == "rr" and routed["capacities"]["unbounded"]["tokens"]["routing"] > 0


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_hits_of_an_engine(capsys, engine):
    found = run_json(capsys, "misses", "--engine", engine, "--num-gpu-blocks", "12")
    whole = run_json(capsys, "misses", "--engine", engine)
    assert found["capacities"]["12"]["tokens"]["hit"] < whole["capacities"]["unbounded"]["tokens"]["hit"]
    assert whole["capacities"]["unbounded"]["tokens"]["generated_not_cached"] == 0
    plain = run_json(capsys, "misses", "--outputs-cached")
    assert plain["capacities"] == whole["capacities"]


def test_block_ids_have_coarse_parts(capsys, blocks):
    origins = run_json(capsys, "provenance", data=blocks)
    assert list(origins["partition_tokens"]) == ["own_turns", "other_conversation", "uncached"]
    assert origins["inferred_groups"] == 1 and origins["continuations"] == 8 and "97.0 %" in origins["notes"][0]
    causes = run_json(capsys, "misses", "--capacities", "2,unbounded", data=blocks)
    # a block of 512 tokens and one of 488: three of the second kind are new
    assert causes["capacities"]["unbounded"]["tokens"] == {
        "hit": 8 * 512 + 6 * 488, "policy": 0, "capacity": 0, "first_seen": 512 + 3 * 488
    }  # fmt: skip
    assert any("first_seen" in note for note in causes["notes"])
    assert main(["explain", str(blocks), "5", "--capacity", "2"]) == 0
    assert "nearest earlier prompt: 2 at" in capsys.readouterr().out


def test_token_ids_have_no_known_writers(capsys, requests):
    origins = run_json(capsys, "provenance", "--block-size", "2", data=requests)
    assert origins["writers_tokens"]["message"] == origins["hit_tokens"] == 8
    assert origins["partition_tokens"]["own_turns"] == 8  # both continue the first one, whose last full block they have
    assert any("inferred" in note for note in origins["notes"])
    facts = run_json(capsys, "explain", "r2", "--block-size", "2", data=requests)
    assert (facts["nearest"]["tokens"], facts["before"], facts["here"]) == (7, "1 2 3 4 5 9 9", "")
    causes = run_json(capsys, "misses", "--block-size", "2", data=requests)["capacities"]["unbounded"]["tokens"]
    # of the third prompt 4 tokens hit and one more was there; the last two are in the first one's reply
    assert {name: n for name, n in causes.items() if n} == {
        "hit": 8, "sub_block_inside": 1, "generated_not_cached": 1, "last_token": 1, "cold": 6
    }  # fmt: skip


def test_the_traces_that_run_writes_have_the_origins_of_their_chats(capsys, tmp_path):
    out = ["--output-dir", str(tmp_path), "--skip-visualization", "--parquet"]
    assert main(["run", "--data-path", str(SAMPLE), *out]) == 0
    capsys.readouterr()
    whole = run_json(capsys, "provenance")
    for name in ("multi_turn_trace.parquet", "multi_turn_trace.jsonl"):
        found = run_json(capsys, "provenance", data=tmp_path / name)
        assert (found["requests"], found["hit_tokens"]) == (whole["requests"], whole["hit_tokens"])
        assert found["holders_tokens"] == whole["holders_tokens"]


def test_one_request(capsys):
    assert main(["explain", str(SAMPLE), "c0t1", "--capacity", "20"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("c0t1: ") and "nearest earlier prompt: " in said and "  here " in said
    facts = run_json(capsys, "explain", "c0t1", "--capacity", "20")
    assert sum(facts["classes"].values()) == facts["prompt_tokens"] and facts["turns"][-1]["request_id"] == "c0t1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["provenance", "--capacity", "0"], "capacity is 0; expected a whole number of blocks, 1 or more, or `un"),
        (["misses", "--capacities", "5,many"], "capacity is 'many'; expected"),
        (["misses", "--policy", "lur"], "policy 'lur' is not known; known: lru"),
        (["misses", "--replicas", "2", "--router", "rrr"], "router 'rrr' is not known; known: rr, random, session"),
        (["misses", "--replicas", "0"], "replicas is 0; expected"),
        (["misses", "--replicas", "1e9"], "replicas is '1e9'; expected a whole number, 1 to 1024"),
        (["misses", "--replicas", "99999"], "replicas is 99999; expected a whole number, 1 to 1024"),
        (["misses", "--capacities", "-1"], "capacity is -1; expected"),
        (["misses", "--capacities", "2,,3"], "capacity is ''; expected"),
        (["explain", "c0t0", "--capacity", "0"], "capacity is 0; expected"),
        (["misses", "--server", "vlm"], "server vlm: its rules are not known; expected one of vllm, sglang"),
        (["misses", "--arrivals", "data"], "the log has no time for"),
        (["misses", "--replicas", "2", "--capacities", "9", "--policy", "lfu"], "replicas are replayed under lru only"),
        (["misses", "--num-gpu-blocks", "9"], "name it with --engine"),
        (["misses", "--engine", "vllm", "--capacities", "9", "--router", "rr"], "expected no --capacities, --router"),
        (["misses", "--engine", "vllm", "--num-gpu-blocks", "1"], "number of GPU blocks is 1; expected"),
        (["provenance", "--mode", "both"], "mode is 'both'; known: single_turn, multi_turn"),
        (["provenance", "--out", "rows.txt"], "expected one that ends with .csv or .parquet"),
        (["route", "--routers", "rr,lnogest"], "router 'lnogest' is not known; known: rr, random, session, hash:TO"),
        (["route", "--routers", "hash"], "router 'hash' lacks its number; expected hash:N"),
        (["route", "--routers", ""], "router '' is not known"),
        (["route", "--replicas", "0"], "replicas is 0; expected a whole number, 1 to 1024"),
        (["route", "--capacity", "0"], "capacity is 0; expected"),
        (["route", "--capacity", "-5"], "capacity is -5; expected"),
        (["tiers", "--capacities", "9"], "capacities of 1 tier; expected 2 or more, the fastest first"),
        (["tiers", "--capacities", "9,0"], "capacity is 0; expected"),
        (["tiers", "--capacities", "9,20", "--semantics", "vlm"], "semantics 'vlm' is not known"),
        (["explain", "c0t99"], "request 'c0t99' is not among the"),
    ],
)
def test_mistakes_are_said_in_one_line(capsys, arguments, said):
    command, *extra = arguments
    assert main([command, str(SAMPLE), *extra]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("error:") == 1 and "Traceback" not in error


def test_routers(capsys, blocks):
    found = run_json(capsys, "route", "--replicas", "2", "--capacity", "30", "--routers", "rr, hash:64,llm-d")
    assert list(found["routers"]) == ["rr", "hash:64", "llm-d"] and found["capacity"] == 30
    keys = {"hit_tokens", "token_hit", "routing_loss", "imbalance_computed", "max_share_requests"}
    assert set(found["pooled"]) == keys
    for one in found["routers"].values():
        assert keys | {"ttft_p50", "ttft_p90", "ttft_p99"} <= set(one)
        assert one["token_hit"] == one["hit_tokens"] / found["prompt_tokens"]
    listed = run_json(capsys, "route", "--routers", "rr,session", data=blocks)
    assert list(listed["left_out"]) == ["session"] and listed["capacity"] is None
    assert main(["route", str(SAMPLE), "--capacity", "30"]) == 0
    said = capsys.readouterr().out
    assert ", 4 replicas with caches of 30 blocks of 16 tokens" in said and "one cache of their size" in said


@pytest.mark.parametrize("names", [[7, 3, 7], ["b", "a", "b"]])
def test_conversations_that_requests_of_token_ids_name_are_heeded(capsys, requests, names):
    lines = [json.loads(line) for line in requests.read_text().splitlines()]
    options = ["--routers", "session", "--replicas", "2", "--block-size", "2"]
    inferred = run_json(capsys, "route", *options, data=requests)
    assert "conversations are inferred" in inferred["notes"][0]
    named = [line | {"conversation": one} for line, one in zip(lines, names, strict=True)]
    requests.write_text("".join(json.dumps(line) + "\n" for line in named))
    found = run_json(capsys, "route", *options, data=requests)
    # the second request is on the other replica; the third finds two blocks of the first, as 5 is not a whole one
    assert "inferred" not in str(found["notes"]) and found["routers"]["session"]["hit_tokens"] == 4
    assert found["routers"]["session"]["max_share_requests"] == 2 / 3
    parts = run_json(capsys, "provenance", "--block-size", "2", data=requests)["partition_tokens"]
    assert parts["own_turns"] == 4 and parts["other_conversation"] == 4
    requests.write_text("".join(json.dumps(line) + "\n" for line in (named[0], *lines[1:])))  # not all have one
    assert run_json(capsys, "route", *options, data=requests) == inferred


def test_how_long_requests_are_outstanding_is_heeded_wherever_a_router_asks(capsys, requests):
    # of three requests 1 ms apart the first runs for 0.5 s and more, or for 1 us and is over
    short, found = ["--ttft-s", "0.000001", "--time-per-output-token-s", "0"], []
    for data, extra in ((requests, []), (requests, short), (SAMPLE, []), (SAMPLE, ["--ttft-s", "600"])):
        options = ["--replicas", "2", "--block-size", "2", *extra]
        routed = run_json(capsys, "route", "--routers", "dynamo", *options, data=data)["routers"]["dynamo"]
        (missed,) = run_json(capsys, "misses", "--router", "dynamo", *options, data=data)["capacities"].values()
        assert missed["tokens"]["hit"] == routed["hit_tokens"]
        found.append(routed["hit_tokens"])
    assert found[0] < found[1] and found[2] != found[3]
    assert main(["misses", str(requests), *short]) == 2
    assert "--ttft-s, --time-per-output-token-s cannot be heeded" in capsys.readouterr().err


def test_tiers(capsys, blocks):
    found = run_json(capsys, "tiers", "--capacities", "20,60", "--semantics", "exclusive,vllm,after:2")
    assert list(found["semantics"]) == ["exclusive", "vllm", "after:2"]
    for one in found["semantics"].values():
        assert [tier["capacity"] for tier in one["tiers"]] == [20, 60]
        assert sum(tier["hit_tokens"] for tier in one["tiers"]) == one["hit_tokens"]
        assert one["token_hit"] == one["hit_tokens"] / found["prompt_tokens"]
    assert main(["tiers", str(blocks), "--capacities", "2, 1"]) == 0
    said = capsys.readouterr()
    assert "tier 2 (1 blocks)" in said.out and "inclusive: tier 2 (1 blocks) is no larger" in said.err


def test_what_block_ids_cannot_tell_is_refused(capsys, blocks):
    for command in (["misses", "--outputs-cached"], ["misses", "--engine", "vllm"], ["route", "--outputs-cached"]):
        assert main([command[0], str(blocks), *command[1:]]) == 2
        assert "the data list block ids" in capsys.readouterr().err
    assert main(["explain", str(blocks), "99"]) == 2
    assert "request '99' is not among the 9 requests; the first one is 0" in capsys.readouterr().err
    assert main(["provenance", str(blocks), "--block-size", "32"]) == 2
    assert "lists blocks of 512 tokens; --block-size 32 cannot be made" in capsys.readouterr().err


def test_parameters_that_a_trace_cannot_heed_are_refused(capsys, blocks, requests):
    single = ["--mode", "single_turn"]
    for data, extra, said in (
        (blocks, single, "--mode single_turn"), (requests, single, "--mode single_turn"),
        (blocks, ["--clock", "at_once"], "--clock"), (requests, ["--arrivals", "gamma:2"], "--arrivals"),
    ):  # fmt: skip
        assert main(["misses", str(data), *extra]) == 2
        assert f"{said} cannot be heeded" in capsys.readouterr().err


def test_the_first_conversations_of_traces(capsys, blocks, requests):
    assert run_json(capsys, "provenance", "--max-conversations", "2", data=blocks)["requests"] == 2
    # r0 and the two that continue it are one conversation
    found = run_json(capsys, "misses", "--max-conversations", "1", "--block-size", "2", data=requests)
    assert found["requests"] == 3


def test_texts_with_control_characters_are_shown_escaped(capsys, tmp_path):
    chats, odd = tmp_path / "chats.jsonl", "\x1b[31m\u202e\x07"
    lines = [{"messages": [{"role": "user", "content": f"{odd} {end}"}]} for end in ("x", "y")]
    chats.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["explain", str(chats), "c1t0"]) == 0
    said = capsys.readouterr().out
    assert "[31m" in said and not set(odd[:1] + odd[-2:]) & set(said)


def test_one_conversation_and_no_reuse_are_said(capsys, tmp_path):
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "Hi."}]}) + "\n")
    notes = run_json(capsys, "provenance", data=path)["notes"]
    assert notes == [
        "the data are one conversation: nothing can come from another one",
        "no prompt begins with a block of an earlier one: there is no hit to explain",
    ]
