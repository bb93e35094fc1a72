"""`kvprefix lint`: its keys and files, a gate that fails and one that passes, and what it refuses."""

import json

import pandas as pd
import pytest
from places import SAMPLE
from planted import NAMES, make_systems, write_log

from kvprefix.__main__ import main

ONLY_TEXTS = "only changed texts can be replayed"
SITE = {
    "kind", "message", "where", "example", "values", "changes", "requests", "estimated_tokens", "recoverable_tokens",
    "fix",
}  # fmt: skip


@pytest.fixture
def run(small_folder, capsys):
    def run(data, *extra):
        code = main(["lint", str(data), "--tokenizer", str(small_folder), *extra])
        return code, capsys.readouterr()

    return run


@pytest.fixture
def named(tmp_path):
    return write_log(tmp_path / "named.jsonl", make_systems("user_name_first", 40))


def test_its_keys_and_rows(run, named, tmp_path):
    out = tmp_path / "rows.csv"
    code, said = run(named, "--format", "json", "--out", str(out), "--capacity", "300")
    facts, rows = json.loads(said.out), pd.read_csv(out)
    assert code == 0 and {"requests", "prompt_tokens", "hit_tokens", "recoverable_tokens", "sites"} <= set(facts)
    (site,) = facts["sites"]
    assert set(site) >= SITE and site["values"] == 10 and site["requests"] == 40
    assert facts["recoverable_tokens"] == site["recoverable_tokens"] > 0
    assert rows["hit_tokens"].sum() == facts["hit_tokens"] and (rows["site"] > 0).sum() == site["parted_requests"] == 9
    assert rows["hit_tokens_after"].sum() - facts["hit_tokens"] == facts["recoverable_tokens"]
    assert facts["bounded_recoverable_tokens"] == site["bounded_recoverable_tokens"]


def test_no_value_is_printed(run, named):
    for form in ("table", "json"):
        code, said = run(named, "--format", form)
        assert code == 0 and "The user is called <name>." in said.out
        assert not any(f"called {name}" in said.out for name in NAMES)


def test_a_gate_that_fails_and_one_that_passes(run, tmp_path):
    first = write_log(tmp_path / "first.jsonl", make_systems("timestamp_first", 20))
    last = write_log(tmp_path / "last.jsonl", make_systems("timestamp_last", 20))
    code, said = run(first, "--fail-above", "2")
    assert code == 1 and "% of the prompt tokens are recoverable; at most 2 % are allowed" in said.err
    assert "Move line 1 of the system message, in which a time stamp changes, to the end of" in said.out
    code, said = run(last, "--fail-above", "2")
    assert code == 0 and "fail" not in said.err and "0 (0.0 %) recoverable" in said.out


def test_what_comes_from_outside_is_escaped(run, tmp_path):
    systems = [text.replace("The user", "<b>|\x1b[2J The user") for text in make_systems("user_name_first", 20)]
    code, said = run(write_log(tmp_path / "odd.jsonl", systems))
    assert code == 0 and "\x1b" not in said.out
    row = next(line for line in said.out.splitlines() if line.startswith("|      1"))
    assert row.replace("\\|", "").count("|") == 11


def test_one_conversation_and_none_alike_are_said(run, tmp_path):
    one = write_log(tmp_path / "one.jsonl", make_systems("timestamp_first", 1))
    code, said = run(one, "--format", "json", "--fail-above", "0")
    assert run(one)[1].out.startswith("1 request, ")
    notes = json.loads(said.out)["notes"]
    assert code == 0 and len(notes) == 2 and "one conversation" in notes[0] and "nothing is cached" in notes[1]


def test_ordinary_chats_have_nothing_to_recover(run):
    code, said = run(SAMPLE, "--format", "json", "--fail-above", "0")
    facts = json.loads(said.out)
    assert code == 0 and facts["sites"] == [] and facts["recoverable_tokens"] == 0


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}], ONLY_TEXTS),
        ([{"request_id": "r", "timestamp": 0, "prompt_token_ids": [1, 2], "output_token_ids": [3]}], ONLY_TEXTS),
        ([], "is empty"),
    ],
)
def test_data_without_texts_are_refused(run, tmp_path, lines, said):
    path = tmp_path / "ids.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, told = run(path)
    assert code == 2 and said in told.err and "Traceback" not in told.err and str(path) in told.err


@pytest.mark.parametrize("most", ["-1", "101", "many", "nan"])
def test_a_gate_takes_a_percentage(run, most):
    code, said = run(SAMPLE, "--fail-above", most)
    assert code == 2 and "expected a number from 0 to 100" in said.err


def test_a_bounded_cache_has_its_column(run, named):
    assert "bounded" not in run(named)[1].out
    said = run(named, "--capacity", "300")[1].out
    assert "bounded |" in said and "of a cache of 300 blocks" in said.splitlines()[0]
