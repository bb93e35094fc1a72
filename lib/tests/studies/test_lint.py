"""Advice on logs with planted defects: found, and won as a plain rewriting of the texts wins it."""

import re

import pytest
from places import SHARED
from planted import DEFECTS, MIXED, make_systems, write_log

from kvprefix.explain.provenance import find_provenance
from kvprefix.studies.explain import open_data
from kvprefix.studies.lint import lint
from kvprefix.traces.parameters import Parameters

N = 60
NAMES = dict(zip(("time", "uuid", "name", "order of tools"), MIXED, strict=True))


@pytest.fixture
def open_log(small_folder):
    return lambda path: open_data(Parameters(data=str(path), tokenizer=str(small_folder)), progress=False)


@pytest.fixture
def lint_log(open_log):
    return lambda path, **options: lint(open_log(path), progress=False, **options)


def count_hits(open_log, folder, systems, capacity=None):
    """Return the hit tokens of a log with these system texts."""
    data = open_log(write_log(folder / "rewritten.jsonl", systems))
    return int(find_provenance(data.trace, 16, capacity=capacity).hit_tokens.sum())


def mend(text, some=MIXED):
    """Return a system text as a person would mend it, who knows what was planted."""
    lines, moved = text.split("\n"), []
    marks = {"user_name_first": "The user", "timestamp_first": "Current time", "uuid_middle": "Session"}
    for defect, mark in marks.items():
        if defect in some:
            moved += [line for line in lines if line.startswith(mark)]
            lines = [line for line in lines if not line.startswith(mark)]
    if "tools_shuffled" in some:
        at = lines.index("Tools:") + 1
        lines[at : at + 5] = sorted(lines[at : at + 5], key=lambda line: re.search(r"tool_\d", line)[0])
    return "\n".join([*lines, *moved])


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found_and_won(tmp_path, open_log, lint_log, defect):
    systems = make_systems(defect, N)
    facts, rows = lint_log(write_log(tmp_path / "log.jsonl", systems))
    expected = count_hits(open_log, tmp_path, list(map(mend, systems))) - facts["hit_tokens"]
    assert facts["recoverable_tokens"] == pytest.approx(expected, rel=0.01)
    assert [NAMES[one["kind"]] for one in facts["sites"]] == [defect] * (defect in MIXED)
    assert rows["hit_tokens_after"].sum() - rows["hit_tokens"].sum() == facts["recoverable_tokens"]
    assert all(one["message"] == 0 and one["proved"] for one in facts["sites"])


@pytest.mark.parametrize("timed", [True, False])
def test_gains_of_mixed_defects_add_up_greedily(tmp_path, open_log, lint_log, timed):
    systems = make_systems("mixed", N)
    facts, _ = lint_log(write_log(tmp_path / "log.jsonl", systems, timed=timed))
    order = [NAMES[one["kind"]] for one in facts["sites"]]
    assert sorted(order) == sorted(MIXED)
    won = [one["recoverable_tokens"] for one in facts["sites"]]
    assert sum(won) == facts["recoverable_tokens"] and won == sorted(won, reverse=True)
    for k, one in enumerate(facts["sites"]):
        sets = order[:k], order[: k + 1], [order[k]]
        before, after, alone = (
            count_hits(open_log, tmp_path, [mend(text, some) for text in systems]) for some in sets
        )  # fmt: skip
        expected = after - before, alone - facts["hit_tokens"]
        assert (one["recoverable_tokens"], one["alone_tokens"]) == pytest.approx(expected, rel=0.01)


def test_the_expected_logs():
    if not (SHARED / "expected" / "linter.json").exists():
        pytest.skip("the expected logs are not there")
    for name, won in {"clean": 0, "timestamp_first": 587_328, "timestamp_last": 0, "user_name_first": 13_248}.items():
        data = open_data(Parameters(data=str(SHARED / "expected" / f"linter_{name}.jsonl.gz")), progress=False)
        assert lint(data, progress=False)[0]["recoverable_tokens"] == won
