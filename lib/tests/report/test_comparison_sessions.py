"""Comparisons of reports of block ids: with a report of chats, and of two of them, from the sessions to the page."""

import csv
import json

import pytest
from places import PROJECT
from session_files import make_sessions
from small_reports import make_report

from kvprefix.__main__ import main
from kvprefix.cache.curve import rate_unbounded
from kvprefix.files.paths import InputError
from kvprefix.report.comparison.read import read_report
from kvprefix.report.comparison.write import compare, compare_reports, describe
from kvprefix.report.notebooks import execute_notebooks
from kvprefix.studies.experiment import fit_parameters, load_experiment
from kvprefix.studies.session_files import name_sessions, write_sessions
from kvprefix.traces.parameters import Parameters

LEFT_OUT = "".join(f"single_turn_{part}\n" for part in ("stats.json", "request_metrics.csv", "block_metrics.csv"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Return a folder of files, a session each, beside a file that is none."""
    folder = tmp_path_factory.mktemp("data") / "sessions"
    folder.mkdir()
    for number, line in enumerate(make_sessions(folder.parent / "all.jsonl", 6).read_text().splitlines()):
        (folder / f"{number}.json").write_text(line)
    (folder / "notes.txt").write_text("not a session")
    return folder


def write(folder, data, **given):
    """Write the files of a report of sessions without its notebooks."""
    folder.mkdir()
    write_sessions(load_experiment(Parameters(data=str(data), **given)), folder)
    (folder / "left-out.txt").write_text(LEFT_OUT)
    return folder


def test_the_files_of_sessions_add_up_to_the_rates_of_the_cache(tmp_path, data):
    folder = write(tmp_path / "a", data)
    rate = rate_unbounded(load_experiment(Parameters(data=str(data))).draw(64))
    stats = json.loads((folder / "multi_turn_stats.json").read_text())
    assert stats["token_hit_rate"] == pytest.approx(rate["token"], rel=1e-12)
    assert stats["block_reuse_rate"] == pytest.approx(rate["block"], rel=1e-12)
    assert stats["sharing_fraction"]["mean"] == pytest.approx(rate["request_mean"], rel=1e-12)
    assert stats["intervals"]["token_hit_rate"][0] < stats["token_hit_rate"] < stats["intervals"]["token_hit_rate"][1]
    with open(folder / "multi_turn_request_metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == stats["requests"] and len({(r["conversation_id"], r["turn"]) for r in rows}) == len(rows)
    assert sum(int(row["cached_tokens"]) for row in rows) == stats["token_hit_rate"] * stats["prompt_tokens"]["total"]
    with open(folder / "multi_turn_block_metrics.csv", newline="") as file:
        blocks = [int(row["accesses"]) for row in csv.DictReader(file)]
    assert (len(blocks), sum(blocks)) == (stats["blocks"]["distinct"], stats["blocks"]["accesses"])


def test_a_session_has_its_name_wherever_it_stands(tmp_path, data):
    names = name_sessions(load_experiment(Parameters(data=str(data))).sessions)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(path.read_text() for path in sorted(data.glob("*.json"), reverse=True)))
    assert name_sessions(load_experiment(Parameters(data=str(turned))).sessions) == names[::-1]
    assert len(set(names)) == 6


def test_sessions_are_compared_with_chats(tmp_path, data, shared_derived, small_folder):
    chats, sessions = make_report(tmp_path / "chats", small_folder), write(tmp_path / "sessions", data)
    path, facts = compare_reports([chats, sessions], tmp_path / "out")
    found = json.loads((path / "comparison.json").read_text())
    rates = {one["rate"]: one for one in found["rates"]}
    assert {one["mode"] for one in found["rates"]} == {"multi_turn"}
    stats = {one: json.loads((tmp_path / one / "multi_turn_stats.json").read_text()) for one in ("chats", "sessions")}
    assert rates["token_hit_rate"]["values"] == {one: stats[one]["token_hit_rate"] for one in stats}
    generated = rates["with_generated_tokens.token_hit_rate"]
    assert generated["values"]["sessions"] is None and generated["against"]["sessions"]["verdict"] is None
    assert "tokenizer" not in facts["pairs"][0]["things"] and "data" in facts["pairs"][0]["things"]
    text = (path / "report.md").read_text()
    assert "sessions is of a trace of block ids" in text and "| tokenizer" in text and "tokenizer `–`" not in text
    assert "Another tokenizer" not in text


def test_two_reports_of_the_same_sessions_are_paired(tmp_path, data):
    folders = write(tmp_path / "a", data), write(tmp_path / "b", data, arrival_rate=0.001)
    found = describe(compare([read_report(folder, label) for folder, label in zip(folders, "ab", strict=True)]))
    assert found["parameters"]["things"]["b"] == ["arrival_rate"]
    (pair,) = found["pairs"]["multi_turn"]
    assert pair["conversations_common"] == 6 and pair["requests_with_equal_cached"] == pair["requests_common"]
    assert {one["rate"] for one in found["rates"]}.isdisjoint(
        ["with_generated_tokens.token_hit_rate", "without_template_tokens.token_hit_rate"]
    )
    assert {one["against"]["b"]["verdict"] for one in found["rates"]} == {"equal"}


def test_a_report_that_lacks_what_it_does_not_leave_out_is_refused(tmp_path, data):
    folder = write(tmp_path / "a", data)
    (folder / "multi_turn_block_metrics.csv").unlink()
    with pytest.raises(InputError, match=r"multi_turn_block_metrics.csv: is missing, so the report is half made"):
        read_report(folder, "a")


def test_a_folder_of_session_files_becomes_a_report_and_a_comparison(tmp_path, data, capsys):
    names = "15-agents", "20-prefix-sharing", "40-cache-size", "50-eviction", "90-report"
    sources = [PROJECT / "notebooks" / f"{name}.ipynb" for name in names]
    parameters = fit_parameters(Parameters(data=str(data)))
    assert parameters.block_size == 64 and execute_notebooks(sources, parameters, tmp_path / "a", jobs=2) == 0
    text = (tmp_path / "a/report.md").read_text()
    for said in (
        "of 6 agent sessions repeat earlier requests", "1 file of other kinds",
        "lists for each request the ids of the blocks of its prompt, of 64 tokens each",
        "When sessions start is drawn: sessions start by a Poisson process", "## Cache size", "## Eviction",
        "Prefix sharing is left out: the data list block ids",
    ):  # fmt: skip
        assert said in text
    before = text.partition("### Definitions")[0]
    assert not [one for one in ("onversation", "chat template", "causal clock") if one in before]
    left_out = (tmp_path / "a/left-out.txt").read_text().splitlines()
    assert "single_turn_stats.json" in left_out and len(left_out) == 13
    assert not any((tmp_path / "a" / name).exists() for name in left_out)
    assert "multi_turn_stats.json" not in left_out and (tmp_path / "a/multi_turn_stats.json").exists()
    assert main(["compare", str(tmp_path / "a"), str(write(tmp_path / "b", data)), "--out", str(tmp_path / "out")]) == 0
    assert "no difference" in (tmp_path / "out/report.md").read_text()
